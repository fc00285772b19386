"""Whether latency changed while the run went on: of one target, or of all, which is the client's machine or network.

The medians of the blocks, on a logarithmic scale, are a series for each target. Their median over all targets is the
machine's series, which one target that drifts alone does not move; what a target has beyond that is its own. A target
is said to drift only where its latency changed in that direction.

Of each series one question is asked: is there a trend? The lowest cosine of the series is one; the next ones, up to
six, show by how much such a figure varies without any (Student's t; eval/stats/intervals.py has the same cosines). So a
machine that wanders, or blocks that are alike, are no trend. The p-values of the targets are adjusted for all targets
and scenarios of the run, those of the machine for all scenarios (Holm).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import scipy

from eval.analysis.findings import Finding, FindingCode, warning
from eval.codes import DriftCode, DriftResult, ReasonCode, Unavailable, unavailable
from eval.samples.columns import Samples
from eval.samples.model import Sample
from eval.samples.rounds import latencies_by_round
from eval.stats.comparison import BLOCKS_PER_COSINE
from eval.stats.intervals import N_COSINES, holm_adjust

ALPHA = 0.05  # of p-values after Holm
MIN_BLOCKS = 8
MIN_MEDIAN_MS = 0.001  # latencies are rounded to it
WARN_RELATIVE_CHANGE = 0.05  # of the median, first third of the blocks to last; a smaller trend is no warning
NONSTATIONARY_SCENARIOS = {"ramp", "max_rate", "idle"}  # whose load or whose instance changes by plan


@dataclass(frozen=True)
class DriftReport:
    """One scenario of one target. Changes are fractions, from the first third of the blocks to the last."""

    blocks: int
    change: float
    first_ms: float
    last_ms: float
    own_change: float  # beyond that of all targets together
    p: float  # of no trend of its own
    p_holm: float
    shared_change: float | None  # of all targets together; None with one target
    shared_p_holm: float | None
    has_drift: bool  # of its own
    result: DriftResult


DriftByScenario = Mapping[str, DriftReport | Unavailable]
Key = tuple[str, str]  # target and scenario


def detect_drift(samples: Iterable[Sample]) -> dict[str, DriftByScenario]:
    """Target -> scenario -> whether there is a trend, or the reason why it is not known."""
    samples_by_key = {
        (target, scenario): of
        for target, of_target in Samples.of(samples).with_("phase", "measure").by("target").items()
        for scenario, of in of_target.by("scenario").items()
    }
    medians_ms = {
        (target, scenario): {
            number: max(MIN_MEDIAN_MS, median(latencies_ms))
            for number, latencies_ms in latencies_by_round(of, scenario, failures_as_infinite=False).items()
        }
        for (target, scenario), of in samples_by_key.items()
    }
    tested = {
        key: medians
        for key, medians in medians_ms.items()
        if key[1] not in NONSTATIONARY_SCENARIOS and len(medians) >= MIN_BLOCKS
    }
    shared = {scenario: _shared_series(tested, scenario) for scenario in {scenario for _, scenario in tested}}
    own = {key: _own_series(medians, shared[key[1]]) for key, medians in tested.items()}
    own_p = {key: trend_p(series) for key, series in own.items()}
    own_p_holm = dict(zip(own_p, holm_adjust(list(own_p.values())), strict=True))
    shared_p = {scenario: trend_p(list(series.values())) for scenario, series in shared.items() if series}
    shared_p_holm = dict(zip(shared_p, holm_adjust(list(shared_p.values())), strict=True))
    drift_by_target: dict[str, dict[str, DriftReport | Unavailable]] = defaultdict(dict)
    for (target, scenario), medians in medians_ms.items():
        key = target, scenario
        drift_by_target[target][scenario] = (
            _drift_report(
                list(medians.values()),
                own[key],
                (own_p[key], own_p_holm[key]),
                list(shared[scenario].values()),
                shared_p_holm.get(scenario),
            )
            if key in tested
            else _untested(scenario, len(medians))
        )
    return dict(drift_by_target)


def drift_warnings(drift_by_target: Mapping[str, DriftByScenario], titles: Mapping[str, str]) -> list[Finding]:
    """One for all targets that became faster or slower together, and one for each that did so by itself."""
    results_by_target = {
        target: {name: drift.result for name, drift in scenarios.items() if isinstance(drift, DriftReport)}
        for target, scenarios in drift_by_target.items()
    }
    together = {
        scenario: result
        for results in results_by_target.values()
        for scenario, result in results.items()
        if result.code in (DriftCode.ALL_BECAME_SLOWER, DriftCode.ALL_BECAME_FASTER)
    }
    findings = [warning(FindingCode.MACHINE_DRIFT, results_by_scenario=together)] if together else []
    for target, results in results_by_target.items():
        alone = {
            scenario: result
            for scenario, result in results.items()
            if result.code in (DriftCode.BECAME_SLOWER, DriftCode.BECAME_FASTER)
        }
        if alone:
            title = titles.get(target, target)
            findings.append(warning(FindingCode.LATENCY_DRIFT, target, title=title, results_by_scenario=alone))
    return findings


def trend_p(series: Sequence[float]) -> float:
    """Of no trend, two-sided."""
    n_noise = min(N_COSINES, len(series) // BLOCKS_PER_COSINE - 1)
    trend = scipy.fft.dct(np.asarray(series) - np.mean(series))[1]
    if abs(trend) < 1e-9:
        return 1.0
    without_line = scipy.signal.detrend(series)  # a straight line is no noise of itself, but has higher cosines too
    noise = scipy.fft.dct(without_line)[2 : n_noise + 2]
    variance = float(np.mean(np.square(noise)))
    return 2 * float(scipy.stats.t.sf(abs(trend) / math.sqrt(variance), n_noise)) if variance else 0.0


def _shared_series(medians_ms: Mapping[Key, Mapping[int, float]], scenario: str) -> dict[int, float]:
    """The median logarithm of all targets in each round that all have; empty with one target, or too few rounds."""
    of_targets = [medians for (_, name), medians in medians_ms.items() if name == scenario]
    rounds = sorted(set.intersection(*map(set, of_targets)))
    if len(of_targets) < 2 or len(rounds) < MIN_BLOCKS:
        return {}
    return {number: float(np.median([math.log(medians[number]) for medians in of_targets])) for number in rounds}


def _own_series(medians_ms: Mapping[int, float], shared: Mapping[int, float]) -> list[float]:
    """The logarithms of a target's medians beyond those of all."""
    if not shared:
        return [math.log(value) for value in medians_ms.values()]
    return [math.log(medians_ms[number]) - value for number, value in shared.items()]


def _first_and_last(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first third and of the last."""
    n_third = max(1, len(values) // 3)
    return median(values[:n_third]), median(values[-n_third:])


def _relative_change(log_series: Sequence[float]) -> float:
    first, last = _first_and_last(log_series)
    return round(math.expm1(last - first), 6)


def _is_relevant(change: float, cause: float) -> bool:
    """Whether latency changed enough, and in the direction in which the cause did."""
    return min(abs(change), abs(cause)) >= WARN_RELATIVE_CHANGE and (change > 0) == (cause > 0)


def _untested(scenario: str, n_blocks: int) -> Unavailable:
    if scenario in NONSTATIONARY_SCENARIOS:
        return unavailable(ReasonCode.LOAD_CHANGES_BY_PLAN)
    return unavailable(ReasonCode.TOO_FEW_BLOCKS, needed=MIN_BLOCKS, n=n_blocks)


def _drift_report(
    medians_ms: Sequence[float],
    own: Sequence[float],
    own_p: tuple[float, float],  # as it is, and after Holm
    shared: Sequence[float],
    shared_p_holm: float | None,
) -> DriftReport:
    first_ms, last_ms = _first_and_last(medians_ms)
    change, own_change = round(last_ms / first_ms - 1, 6), _relative_change(own)
    shared_change = _relative_change(shared) if shared else None
    has_own_trend = own_p[1] < ALPHA
    has_shared_trend = shared_p_holm is not None and shared_p_holm < ALPHA
    has_drift = has_own_trend and _is_relevant(change, own_change)
    if has_drift:
        code = DriftCode.BECAME_SLOWER if change > 0 else DriftCode.BECAME_FASTER
    elif shared_change is not None and has_shared_trend and _is_relevant(change, shared_change):
        code = DriftCode.ALL_BECAME_SLOWER if change > 0 else DriftCode.ALL_BECAME_FASTER
    else:
        code = DriftCode.SMALL_TREND if has_own_trend or has_shared_trend else DriftCode.NO_DRIFT
    is_shared = code in (DriftCode.ALL_BECAME_SLOWER, DriftCode.ALL_BECAME_FASTER)
    told = shared_change if is_shared else change
    return DriftReport(
        blocks=len(medians_ms),
        change=change,
        first_ms=first_ms,
        last_ms=last_ms,
        own_change=own_change,
        p=own_p[0],
        p_holm=own_p[1],
        shared_change=shared_change,
        shared_p_holm=shared_p_holm,
        has_drift=has_drift,
        result=DriftResult(code, {"change": told, "blocks": len(medians_ms)}),
    )
