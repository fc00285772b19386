"""How late the client sent the requests of open loops, and why: too little processor time, or nothing ready at a start.

A closed loop has no schedule, so nothing of it is late. A rate search counts the delay as latency, and so finds a lower
rate than the target could take, never a higher one; its steps of too high a rate are to overload the target, and where
both share cores the client too. What a pause of the client has touched is among no samples: eval/load/pauses.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from eval.analysis.findings import Finding, FindingCode, invalid, warning
from eval.analysis.latency import RateSearchReport
from eval.analysis.report_model import TargetReport
from eval.plan.config import BURST
from eval.samples.columns import Samples
from eval.samples.model import Run, Sample
from eval.stats.intervals import nearest_rank

# The client is saturated where the p99 of its send delay is above both: a fraction of the median latency, in a rate
# search of the latency objective, and so much.
MAX_SEND_DELAY_FRACTION, MIN_SEND_DELAY_MS = 0.05, 5.0
MAX_OVERLOAD_DELAY_FRACTION = 0.5  # at a rate of a search that did not keep the objective
ON_TIME_SEND_DELAY_MS = 0.5  # an open loop whose send delay has a larger p99 is marked
START_S = 1.0  # of a block, in which connections are made

Targets = Mapping[str, TargetReport]
SamplesByTarget = Mapping[str, Sequence[Sample]]  # target -> its measured samples


def client_saturation(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    """Why the figures are the client's, and not the targets'."""
    late = _late_sends(run, samples_by_target, targets)
    findings = []
    if late.saturated_ms:
        values = {"titles": list(late.saturated_ms), "max_p99_delay_ms": max(late.saturated_ms.values())}
        workers, cores = _workers_and_cores(run)
        findings.append(invalid(FindingCode.CLIENT_SATURATED, **values, workers=workers, cores=cores))
    if late.saturated_at_start_ms:
        values = {"p99_delay_ms_by_title": late.saturated_at_start_ms, "start_s": START_S}
        findings.append(invalid(FindingCode.LATE_AT_START, **values))
    return findings


def _workers_and_cores(run: Run) -> tuple[int, int | None]:
    """Of this machine; where others sent, of the one with the fewest cores for its workers."""
    if run.senders:
        crowded = max(run.senders, key=lambda sender: sender.workers / (sender.cores or 1))
        return crowded.workers, crowded.cores
    workers = run.config.get("workers")
    return workers if isinstance(workers, int) else 1, run.client_environment.get("cores")


def late_send_warnings(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    """What of the latencies is the client's own delay."""
    late, findings = _late_sends(run, samples_by_target, targets), []
    if late.late_ms:
        limit_ms = ON_TIME_SEND_DELAY_MS
        findings.append(warning(FindingCode.SENT_LATE, p99_delay_ms_by_title=late.late_ms, limit_ms=limit_ms))
    if late.late_at_start_ms:
        values = {"p99_delay_ms_by_title": late.late_at_start_ms, "start_s": START_S}
        findings.append(warning(FindingCode.LATE_AT_START, **values))
    if late.search_ms:
        findings.append(warning(FindingCode.SEARCH_LIMITED_BY_CLIENT, p99_delay_ms_by_title=late.search_ms))
    return findings


@dataclass(frozen=True)
class _Stream:
    """How late requests of one rate were sent, at p99."""

    delay_ms: float
    start_delay_ms: float  # of those in the first second of their blocks
    later_delay_ms: float  # of the others; infinite if these are the smaller part
    saturated_above_ms: float
    overload: bool

    @classmethod
    def of(cls, samples: Samples, saturated_above_ms: float, overload: bool = False) -> Self:
        delays_ms, later = np.nan_to_num(samples.array("send_delay_ms")), _is_after_start(samples)
        enough = 2 * later.sum() >= len(delays_ms)
        return cls(
            _p99(delays_ms), _p99(delays_ms[~later]), _p99(delays_ms[later]) if enough else math.inf,
            max(saturated_above_ms, MIN_SEND_DELAY_MS), overload,
        )  # fmt: skip

    @property
    def is_saturated(self) -> bool:
        return self.delay_ms > self.saturated_above_ms

    @property
    def is_late(self) -> bool:
        return self.delay_ms > ON_TIME_SEND_DELAY_MS and not self.overload

    @property
    def is_on_time_later(self) -> bool:
        """Whether the start alone is to blame."""
        return self.later_delay_ms <= (self.saturated_above_ms if self.is_saturated else ON_TIME_SEND_DELAY_MS)


@dataclass(frozen=True)
class _LateSends:
    """Titles of targets to which open loops sent late, with the largest p99 of their send delay in ms."""

    saturated_ms: dict[str, float] = field(default_factory=dict)  # so late that the client was measured, not the target
    saturated_at_start_ms: dict[str, float] = field(default_factory=dict)  # in the first second of blocks alone
    late_ms: dict[str, float] = field(default_factory=dict)  # of the others
    late_at_start_ms: dict[str, float] = field(default_factory=dict)
    search_ms: dict[str, float] = field(default_factory=dict)  # saturated in a rate search

    def add(self, title: str, stream: _Stream, *, of_search: bool) -> None:
        """Note what one stream was, if it was late."""
        if stream.is_saturated and of_search:
            found_ms, delay_ms = self.search_ms, stream.delay_ms
        elif not (stream.is_saturated or stream.is_late):
            return
        elif stream.is_on_time_later:
            found_ms = self.saturated_at_start_ms if stream.is_saturated else self.late_at_start_ms
            delay_ms = stream.start_delay_ms
        else:
            found_ms, delay_ms = self.saturated_ms if stream.is_saturated else self.late_ms, stream.delay_ms
        found_ms[title] = max(delay_ms, found_ms.get(title, 0.0))


def _late_sends(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> _LateSends:
    """What each open loop's send delay says of it."""
    late = _LateSends()
    for name, report in targets.items():
        for scenario in run.scenarios:
            if scenario == BURST:  # one process cannot send all of a burst in the same moment
                continue
            samples = Samples.of(samples_by_target.get(name, ())).with_("scenario", scenario)
            scenario_report = report.scenarios.get(scenario)
            of_search = isinstance(scenario_report, RateSearchReport)
            streams = _steps(samples, scenario_report) if of_search else _streams(samples)
            for stream in streams:
                late.add(report.title, stream, of_search=of_search)
    for title in late.saturated_ms:
        for less_grave in (late.saturated_at_start_ms, late.late_ms, late.late_at_start_ms):
            less_grave.pop(title, None)
    for title in late.late_ms:  # in one stream after the start, too
        late.late_at_start_ms.pop(title, None)
    return late


def _streams(samples: Samples) -> Iterator[_Stream]:
    """An open loop of one rate; nothing of a closed one."""
    latencies_ms = samples.succeeded.array("latency_ms")
    if len(latencies_ms) and samples[0].send_delay_ms is not None:
        yield _Stream.of(samples, MAX_SEND_DELAY_FRACTION * float(np.median(latencies_ms)))


def _steps(samples: Samples, report: RateSearchReport) -> Iterator[_Stream]:
    """The steps of a rate search. In one that was to overload the target the client's delay alone must not do it."""
    rates = np.nan_to_num(samples.array("rate_rps"))
    for rate_rps in dict.fromkeys(rates.tolist()):
        step_samples = samples.where(rates == rate_rps)
        overload = rate_rps > (report.max_rate_rps.value or 0.0)
        fraction = MAX_OVERLOAD_DELAY_FRACTION if overload else MAX_SEND_DELAY_FRACTION
        yield _Stream.of(step_samples, fraction * report.slo_ms, overload)


def _is_after_start(samples: Samples) -> np.ndarray:
    """Where a request was due later than the first second of its block."""
    scheduled_s = samples.array("scheduled_s")
    blocks, numbers = np.unique(samples.array("block"), return_inverse=True)
    starts_s = np.full(len(blocks), np.inf)
    np.minimum.at(starts_s, numbers, scheduled_s)
    return scheduled_s - starts_s[numbers] >= START_S


def _p99(delays_ms: np.ndarray) -> float:
    return nearest_rank(np.sort(delays_ms), 0.99) if len(delays_ms) else 0.0
