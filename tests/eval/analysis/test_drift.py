"""Drift is seen where there is some, and where there is none it is hardly ever claimed."""

import json

import numpy as np
import pytest

from eval.analysis.drift import detect_drift, drift_warnings, trend_p
from eval.analysis.findings import Severity
from eval.codes import DriftCode, DriftResult, ReasonCode, unavailable
from eval.report.report_json import to_jsonable
from tests.helpers.synthetic_run import make_run, make_sample

SIZE = 25


def samples(latencies, target="heroku", scenario="single", size=SIZE):
    return [
        make_sample(
            image=i, target=target, scenario=scenario, block=i // size, scheduled_s=float(i), latency_ms=float(ms)
        )
        for i, ms in enumerate(latencies)
    ]


def steady(blocks, seed=0, size=SIZE):
    return 20 * np.random.default_rng(seed).lognormal(0, 0.3, blocks * size)


def of(found, target="heroku", scenario="single"):
    return found[target][scenario]


def three_targets(factors, own=None):
    """The same course for three targets; `own` is another factor for the first."""
    return [
        s
        for i, name in enumerate(("heroku", "aws_ec2", "gcp_cloudrun"))
        for s in samples(steady(24, seed=i) * factors * (own if own is not None and i == 0 else 1), target=name)
    ]


QUIET = {DriftCode.NO_DRIFT, DriftCode.SMALL_TREND}  # of which nobody is warned
GROWING = np.linspace(1, 1.3, 24 * SIZE)


def test_a_run_that_grows_slower_says_so_and_by_how_much():
    found = detect_drift(samples(steady(24) * GROWING))
    assert of(found).has_drift
    assert of(found).change == pytest.approx(0.2, abs=0.08)  # first third to last
    assert of(found).own_change == pytest.approx(of(found).change, abs=0.01) and of(found).shared_change is None
    assert of(found).p_holm < 0.01
    (finding,) = drift_warnings(found, {"heroku": "Heroku"})
    assert (finding.code, finding.severity, finding.target) == ("latency_drift", Severity.WARNING, "heroku")
    assert finding.values == {"title": "Heroku", "results_by_scenario": {"single": of(found).result}}
    slower = DriftResult(DriftCode.BECAME_SLOWER, {"change": of(found).change, "blocks": 24})
    assert of(found).result == slower and of(found).change > 0


@pytest.mark.parametrize("blocks", [10, 400])
def test_a_straight_line_is_a_trend_however_short_the_run(blocks):
    assert trend_p(np.linspace(0, 1, blocks) + np.random.default_rng(1).normal(0, 0.001, blocks)) < 0.001


def test_growing_faster_is_drift_too():
    found = of(detect_drift(samples(steady(24) * np.linspace(1.3, 1, 24 * SIZE))))
    assert found.has_drift and found.result.code == DriftCode.BECAME_FASTER and found.change < 0


def test_what_all_targets_share_is_the_machine_and_one_warning():
    found = detect_drift(three_targets(GROWING))
    assert {of(found, name).result.code for name in found} == {DriftCode.ALL_BECAME_SLOWER}
    assert not any(of(found, name).has_drift for name in found)
    (finding,) = drift_warnings(found, {})
    assert (finding.code, finding.target) == ("machine_drift", None)
    assert finding.values["results_by_scenario"]["single"].values["change"] == of(found).shared_change
    assert of(found).shared_change == pytest.approx(0.2, abs=0.05)


def test_a_target_that_drifts_alone_is_the_one_that_is_named():
    found = detect_drift(three_targets(1, own=np.linspace(1, 1.8, 24 * SIZE)))
    assert of(found).result.code == DriftCode.BECAME_SLOWER
    assert of(found).own_change > 0.1
    assert {of(found, name).result.code for name in ("aws_ec2", "gcp_cloudrun")} <= QUIET
    assert [f.target for f in drift_warnings(found, {})] == ["heroku"]


def test_of_two_targets_the_one_that_is_steady_is_not_accused():
    own = np.linspace(1, 1.8, 24 * SIZE)
    found = detect_drift([*samples(steady(24) * own), *samples(steady(24, seed=1), target="aws_ec2")])
    assert of(found).result.code == DriftCode.BECAME_SLOWER
    assert of(found, "aws_ec2").result.code in QUIET
    assert [f.target for f in drift_warnings(found, {})] == ["heroku"]


def test_a_trend_that_hardly_matters_is_told_but_not_warned_of():
    found = detect_drift(samples(steady(400) * np.linspace(1, 1.04, 400 * SIZE)))
    assert of(found).result.code == DriftCode.SMALL_TREND and of(found).change > 0
    assert not of(found).has_drift
    assert drift_warnings(found, {}) == []


@pytest.mark.parametrize("blocks", [8, 12, 40, 400])
def test_without_drift_the_test_is_wrong_in_about_5_of_100_runs(blocks):
    rng = np.random.default_rng(blocks)
    wrong = sum(trend_p(rng.normal(0, 1, blocks)) < 0.05 for _ in range(300))
    assert wrong <= 26  # 15 are expected, more than 26 in one case of 200


def test_a_machine_that_wanders_without_a_direction_is_no_drift():
    """Blocks that are like their neighbours, autocorrelation 0.9 at a lag of one: Kendall's test would see trends."""
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(200):
        series = np.zeros(400)
        for i, noise in enumerate(rng.normal(0, 1, 399)):
            series[i + 1] = 0.9 * series[i] + noise
        wrong += trend_p(series) < 0.05
    assert wrong <= 20  # 10 are expected, more than 20 in one case of 500


def test_p_values_are_adjusted_for_all_targets_and_scenarios():
    taken = [s for i, name in enumerate("abcd") for s in samples(steady(12, seed=i), target=name)]
    found = detect_drift(taken)
    p = sorted(found[name]["single"].p for name in "abcd")
    assert min(found[name]["single"].p_holm for name in "abcd") == pytest.approx(min(1, 4 * p[0]))


def test_too_few_blocks_have_a_reason():
    assert of(detect_drift(samples(steady(7)))) == unavailable(ReasonCode.TOO_FEW_BLOCKS, needed=8, n=7)
    assert drift_warnings(detect_drift(samples(steady(7))), {}) == []


def test_blocks_of_one_request_have_a_trend():
    found = of(detect_drift(samples(np.linspace(100, 200, 30), scenario="cold", size=1)), scenario="cold")
    assert found.has_drift


def test_a_load_that_changes_by_plan_is_not_tested():
    found = of(detect_drift(samples(steady(20), scenario="ramp")), scenario="ramp")
    assert found == unavailable(ReasonCode.LOAD_CHANGES_BY_PLAN)


def test_failures_and_the_warm_up_are_left_out():
    taken = samples(steady(20))
    odd = [make_sample(image=i, block=i, latency_ms=9000.0, error="timeout") for i in range(20)]
    warm = [make_sample(image=i, block=i, latency_ms=9000.0, phase="warmup") for i in range(20)]
    assert detect_drift(odd + warm + taken) == detect_drift(taken)


def test_equal_times_are_no_drift():
    found = of(detect_drift(samples([7.0] * 20 * SIZE)))
    assert found.result == DriftResult(DriftCode.NO_DRIFT, {"change": 0.0, "blocks": 20})


def test_it_is_json_of_a_whole_run():
    _, taken = make_run()
    found = detect_drift(taken)
    assert set(found) == {"aws_ec2", "heroku", "gcp_cloudrun", "gcp_function", "reference"}
    assert not any(found[name]["single"].has_drift for name in found if name != "reference")
    json.dumps(to_jsonable(found), allow_nan=False)
