"""Drift is seen where there is some, and where there is none it is hardly ever claimed."""

import dataclasses
import json

import numpy as np
import pytest

from eval.analysis.drift import LatencyBlock, block_effect, detect_drift, drift_warnings, kendall_trend
from eval.analysis.findings import Severity
from eval.report.report_json import to_jsonable
from eval.statements import DriftCode, DriftResult, ReasonCode, unavailable
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


def test_a_run_that_grows_slower_says_so_and_by_how_much():
    found = detect_drift(samples(steady(24) * np.linspace(1, 1.3, 24 * SIZE)))
    assert of(found).has_drift
    assert of(found).change == pytest.approx(0.2, abs=0.08)  # first third to last
    assert of(found).trend.p_holm < 0.001
    (finding,) = drift_warnings(found, {"heroku": "Heroku"})
    assert (finding.code, finding.severity, finding.target) == ("latency_drift", Severity.WARNING, "heroku")
    assert finding.values == {"title": "Heroku", "results_by_scenario": {"single": of(found).result}}
    slower = DriftResult(DriftCode.BECAME_SLOWER, {"change": of(found).change, "blocks": 24})
    assert of(found).result == slower and of(found).change > 0


def test_growing_faster_is_drift_too():
    found = of(detect_drift(samples(steady(24) * np.linspace(1.3, 1, 24 * SIZE))))
    assert found.has_drift and found.result.code == DriftCode.BECAME_FASTER and found.change < 0


def test_blocks_are_ordered_by_time_not_by_number():
    taken = samples(steady(24) * np.linspace(1, 1.5, 24 * SIZE))
    turned = [dataclasses.replace(s, block=1000 - s.block) for s in taken]
    assert of(detect_drift(turned)) == of(detect_drift(taken))


def test_a_trend_that_hardly_matters_is_told_but_not_warned_of():
    found = detect_drift(samples(steady(400) * np.linspace(1, 1.04, 400 * SIZE)))
    assert of(found).result.code == DriftCode.SMALL_TREND and of(found).change > 0
    assert not of(found).has_drift
    assert drift_warnings(found, {}) == []


def test_blocks_that_vary_are_heterogeneous_without_a_warning():
    jumps = np.repeat(np.random.default_rng(4).lognormal(0, 0.15, 40), SIZE)
    found = detect_drift(samples(steady(40) * jumps))
    assert of(found).heterogeneous and drift_warnings(found, {}) == []


def test_design_effect_factor_widens_intervals_as_blocks_demand():
    """Normal blocks in which half of the variance is between: of 25 alike samples the mean varies 13 times as much."""
    dice = np.random.default_rng(8)
    blocks = [LatencyBlock(i, tuple(dice.normal(dice.normal(), 1, SIZE) + 10)) for i in range(400)]
    assert block_effect(blocks).epsilon_squared == pytest.approx(0.5, abs=0.05)
    assert block_effect(blocks).design_effect_factor == pytest.approx(13**0.5, rel=0.06)


@pytest.mark.parametrize("blocks", [8, 12, 40])
def test_without_drift_each_test_is_wrong_in_about_5_of_100_runs(blocks):
    dice = np.random.default_rng(blocks)
    runs = [[LatencyBlock(i, tuple(dice.lognormal(3, 0.4, SIZE).tolist())) for i in range(blocks)] for _ in range(300)]
    assert sum(kendall_trend(run).p < 0.05 for run in runs) <= 26  # 15 are expected, more than 26 in one case of 200
    assert sum(block_effect(run).p < 0.05 for run in runs) <= 26


def test_p_values_are_adjusted_for_all_targets_and_scenarios():
    taken = [s for i, name in enumerate("abcd") for s in samples(steady(12, seed=i), target=name)]
    found = detect_drift(taken)
    p = sorted(found[name]["single"].trend.p for name in "abcd")
    assert min(found[name]["single"].trend.p_holm for name in "abcd") == pytest.approx(min(1, 4 * p[0]))


def test_too_few_blocks_have_a_reason():
    assert of(detect_drift(samples(steady(7)))) == unavailable(ReasonCode.TOO_FEW_BLOCKS, needed=8, n=7)
    assert drift_warnings(detect_drift(samples(steady(7))), {}) == []


def test_blocks_of_one_request_have_a_trend_but_no_block_effect():
    found = of(detect_drift(samples(np.linspace(100, 200, 20), scenario="cold", size=1)), scenario="cold")
    assert found.has_drift
    assert found.block_effect == unavailable(ReasonCode.TOO_FEW_LARGE_BLOCKS, needed=8, responses=5)


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
