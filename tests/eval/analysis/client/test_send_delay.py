"""Why requests of open loops were sent late: too little processor time all along, or nothing ready at the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from eval.analysis.client.send_delay import START_S
from eval.analysis.findings import FindingCode, Severity
from eval.cost.price_list import load_price_list
from eval.report.report_json import build_report
from eval.samples.model import Sample, SenderRecord
from tests.helpers.synthetic_run import PRICES
from tests.helpers.synthetic_scenarios import make_full_run

LATE = (FindingCode.CLIENT_SATURATED, FindingCode.LATE_AT_START, FindingCode.SENT_LATE)


def found_late(
    start_ms: float, later_ms: float, scheduled: Callable[[Sample], float] = lambda s: s.scheduled_s, **changes
):
    """What is found of a stream that was sent so late in the first second of its blocks, and so late after it."""
    run, samples = make_full_run(20, names=["heroku"], scenarios=("single", "poisson"))
    stream = [replace(s, scheduled_s=scheduled(s)) for s in samples if s.scenario == "poisson"]
    starts = {s.block: min(other.scheduled_s for other in stream if other.block == s.block) for s in stream}
    delayed = [
        replace(s, send_delay_ms=later_ms if s.scheduled_s - starts[s.block] >= START_S else start_ms) for s in stream
    ]
    report = build_report(
        replace(run, **changes), [s for s in samples if s.scenario != "poisson"] + delayed, load_price_list(PRICES)
    )
    findings = [each for each in report["run"]["findings"] if each["code"] in LATE]
    return [(each["code"], each["severity"], each["values"]) for each in findings], report["verdict"]["valid"]


@pytest.mark.parametrize(
    ("start_ms", "severity"), [(40.0, Severity.INVALID), (2.0, Severity.WARNING)], ids=["very late", "late"]
)
def test_a_stream_late_at_its_start_alone_is_told_apart(start_ms, severity):
    values = {"p99_delay_ms_by_title": {"Heroku": start_ms}, "start_s": START_S}
    found, valid = found_late(start_ms, 0.1)
    assert found == [(FindingCode.LATE_AT_START, severity, values)]
    assert valid is (severity == Severity.WARNING)


def test_a_stream_late_all_along_lacks_processor_time():
    ((code, severity, values),), valid = found_late(40.0, 30.0)
    assert (code, severity, valid) == (FindingCode.CLIENT_SATURATED, Severity.INVALID, False)
    assert values["max_p99_delay_ms"] == 40.0 and values["workers"] == 1 and "cores" in values


def test_of_several_machines_that_send_the_most_crowded_is_named():
    roomy = SenderRecord("10.0.0.2", 2, 8, {}, {}, "")
    ((_, _, values),), _ = found_late(40.0, 30.0, senders=[roomy, replace(roomy, workers=4, cores=2)])
    assert (values["workers"], values["cores"]) == (4, 2)


def test_of_blocks_without_a_later_part_the_start_is_not_blamed():
    found, _ = found_late(40.0, 0.1, lambda s: s.block + s.index_in_block / 100)
    assert [code for code, _, _ in found] == [FindingCode.CLIENT_SATURATED]


def test_a_target_late_in_one_stream_is_not_on_time_by_another():
    run, samples = make_full_run(20, names=["heroku"], scenarios=("single", "poisson", "ramp"))
    starts: dict[tuple[str, int], float] = {}
    for each in samples:
        starts[each.scenario, each.block] = min(each.scheduled_s, starts.get((each.scenario, each.block), math.inf))

    def delay_ms(each: Sample) -> float | None:
        if each.scenario == "poisson":
            return 2.0
        return 1.0 if each.scheduled_s < starts[each.scenario, each.block] + START_S else 0.1

    delayed = [each if each.scenario == "single" else replace(each, send_delay_ms=delay_ms(each)) for each in samples]
    report = build_report(run, delayed, load_price_list(PRICES))
    found = [(each["code"], each["values"]["p99_delay_ms_by_title"]) for each in report["run"]["findings"]
             if each["code"] in LATE]  # fmt: skip
    assert found == [(FindingCode.SENT_LATE, {"Heroku": 2.0})]
