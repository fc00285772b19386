"""Why requests of open loops were sent late: too little processor time all along, or nothing ready at the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from eval.analysis.client.lateness import START_S
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
