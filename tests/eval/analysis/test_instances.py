"""How many instances of a target were measured, how much they differ, and what the intervals make of it."""

from __future__ import annotations

from dataclasses import replace
from statistics import median, stdev

import pytest

from eval.analysis.instances import instance_report
from eval.analysis.latency import scenario_report
from eval.codes import ReasonCode, reason
from eval.cost.price_list import load_price_list
from eval.report.report_json import build_report
from eval.report.wording import instances_line, starts_title
from eval.samples.rounds import instances_by_round
from tests.helpers.synthetic_run import make_run


def with_instances(levels, images=240):
    """The single requests to one target, in parts of equal length, each with an instance of its own level."""
    _, samples = make_run(images, names=["heroku"])
    single = sorted((s for s in samples if s.target == "heroku" and s.phase == "measure"), key=lambda s: s.scheduled_s)
    parts = [i * len(levels) // len(single) for i in range(len(single))]
    return [
        replace(s, instance_id=f"i{part}", latency_ms=s.latency_ms * levels[part])
        for s, part in zip(single, parts, strict=True)
    ]


def test_difference_of_instances_is_that_of_their_medians():
    samples = with_instances([1.0, 1.1, 0.9, 1.0, 1.05, 0.95])
    found = instance_report(samples)
    medians = [median(s.latency_ms for s in samples if s.instance_id == f"i{i}") for i in range(6)]
    assert (found.seen, found.measured, found.in_intervals) == (6, 6, True)
    assert found.spread.sd_ms == pytest.approx(stdev(medians))
    assert found.spread.fraction_of_p50 == pytest.approx(stdev(medians) / median(s.latency_ms for s in samples))


def test_one_instance_says_that_the_variance_is_not_known():
    assert instance_report(with_instances([1.0])).spread.reason == reason(ReasonCode.ONE_INSTANCE)


def test_instance_with_few_requests_is_seen_and_not_measured():
    samples = with_instances([1.0, 1.2])
    found = instance_report(samples[:125])  # five of the second
    assert (found.seen, found.measured, found.in_intervals) == (2, 1, False)
    assert found.spread.reason == reason(ReasonCode.TOO_FEW_INSTANCES_KNOWN, min_requests=6)


def test_an_endpoint_without_instance_ids_has_none():
    found = instance_report([replace(s, instance_id=None) for s in with_instances([1.0])])
    assert (found.seen, found.measured) == (0, 0)
    assert found.spread.reason == reason(ReasonCode.TOO_FEW_INSTANCES_KNOWN, min_requests=6)


def test_every_latency_figure_has_the_variance_between_instances():
    samples = with_instances([1.0, 1.3, 0.8, 1.2, 0.75, 1.0], images=1200)
    alike = [replace(s, instance_id="only") for s in samples]
    found, one = (scenario_report("single", of, 200.0) for of in (samples, alike))
    for figure in ("latency_ms", "latency_with_failures_ms"):
        wide, narrow = getattr(found, figure)["p50"], getattr(one, figure)["p50"]
        assert wide.value == narrow.value and wide.high - wide.low > narrow.high - narrow.low
    assert found.tail_ratio.high - found.tail_ratio.low > one.tail_ratio.high - one.tail_ratio.low


def test_a_round_without_an_answer_is_of_the_instance_before():
    samples = with_instances([1.0, 1.0], images=80)
    blocks = sorted({s.block for s in samples})
    silent = [replace(s, instance_id=None) if s.block == blocks[1] else s for s in samples]
    assert list(instances_by_round(silent, "single").values()) == ["i0", "i0", "i1", "i1"]


def test_words_say_how_many_instances_and_how_much_they_differ():
    spread = {"sd_ms": 0.123, "fraction_of_p50": 0.0143}
    found = {"seen": 6, "measured": 6, "spread": spread, "in_intervals": True}
    said = "6 instances, whose medians have a standard deviation of 0.12 ms (1.4% of p50)"
    assert instances_line(found) == said
    few = instances_line({**found, "measured": 3, "in_intervals": False})
    assert few == said.replace("6", "3") + "; too few for the intervals to include it"


def test_reports_tell_the_instances_of_each_target():
    run, _ = make_run(240, names=["heroku"])
    samples = with_instances([1.0, 1.1, 0.9, 1.0, 1.05, 0.95])
    found = build_report(run, samples, load_price_list())["targets"]["heroku"]["instances"]
    assert (found["seen"], found["measured"], found["in_intervals"]) == (6, 6, True)


@pytest.mark.parametrize(
    ("twins", "title"),
    [([True, True], "Service starts"), ([False], "Cold starts"), ([True, False], "Cold starts and service starts")],
)
def test_start_of_a_twin_is_called_a_service_start(twins, title):
    assert starts_title([{"twin": twin} for twin in twins]) == title
