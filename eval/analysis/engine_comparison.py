"""The plain engine against another, target by target. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from eval.analysis.cold_starts import StartReport
from eval.analysis.latency import RateSearchReport
from eval.analysis.predictions.accuracy import Agreement, Predictions
from eval.analysis.predictions.mcnemar import (
    NON_INFERIORITY_MARGIN,
    discordant_pairs,
    mcnemar_tests,
    non_inferiority,
)
from eval.analysis.report_model import AccuracyPair, EngineComparison, LatencyPair, Pair, StartupPair, TargetReport
from eval.codes import ReasonCode, Unavailable, unavailable
from eval.dataset.golden import is_golden
from eval.plan.config import MAX_RATE
from eval.samples.model import Run, Sample
from eval.samples.rounds import instances_by_round, latencies_by_round
from eval.stats.comparison import Decision, Ratio, quantile_ratio
from eval.stats.intervals import PERCENTILES, Estimate
from eval.targets.engines import matching_engine_pairs
from service.engines.names import PLAIN_ENGINE

COMPARED_PERCENTILES = ("p50", "p95")
Start = Estimate | float | Unavailable | None  # None: nothing was started so


def compare_engines(
    run: Run,
    samples_by_target: Mapping[str, Sequence[Sample]],
    predictions: Mapping[str, Predictions],
    targets: Mapping[str, TargetReport],
    agreements: Mapping[str, Agreement],
) -> list[EngineComparison]:
    """One for each pair of targets that differ in the engine alone; empty where there is none.

    samples_by_target: measured samples. predictions: at normal load.
    """
    paired_targets = matching_engine_pairs(run.targets)
    true_labels = {number: image.label for number, image in enumerate(run.image_manifest)}
    pairs = [(p.plain, p.alternative) for p in paired_targets]
    known = {name: predictions.get(name, {}) for pair in pairs for name in pair}
    golden = is_golden(run.images_source)
    # For these pairs alone: no other was meant to differ
    mcnemar_by_pair = {} if golden else mcnemar_tests(true_labels, known, pairs)

    def ratio_of(a: str, b: str, scenario: str, p: float) -> Ratio | None:
        samples = [samples_by_target.get(name, ()) for name in (a, b)]
        rounds_a, rounds_b = (latencies_by_round(of, scenario, failures_as_infinite=False) for of in samples)
        instances_a, instances_b = (instances_by_round(of, scenario) for of in samples)
        return quantile_ratio(rounds_a, rounds_b, p, paired=True, instances=(instances_a, instances_b))

    comparisons = []
    for pair in paired_targets:
        key = f"{pair.plain}|{pair.alternative}"
        a, b = targets[pair.plain], targets[pair.alternative]
        discordant = discordant_pairs(true_labels, known[pair.plain], known[pair.alternative])
        difference = discordant.difference() if discordant.n else unavailable(ReasonCode.NO_COMMON_IMAGE)
        if golden:
            difference = unavailable(ReasonCode.GOLDEN_SET)
        agreement = agreements.get(key) or agreements.get(f"{pair.alternative}|{pair.plain}")
        scenario = next((name for name in a.scenarios if name in b.scenarios and name != MAX_RATE), None)
        max_rates = [report.scenarios.get(MAX_RATE) for report in (a, b)]
        comparisons.append(
            EngineComparison(
                a=pair.plain,
                b=pair.alternative,
                title=a.title,
                engines=Pair(a.engine or PLAIN_ENGINE, b.engine or PLAIN_ENGINE),
                scenario=scenario,
                latency_ms=_latency_pairs(
                    [report.scenarios[scenario].latency_ms if scenario else {} for report in (a, b)],
                    partial(ratio_of, pair.plain, pair.alternative, scenario) if scenario else lambda p: None,
                ),
                max_rate_rps=Pair(*(r.max_rate_rps for r in max_rates if isinstance(r, RateSearchReport)))
                if all(max_rates)
                else None,
                monthly_usd={
                    volume: Pair(a.cost.monthly_usd[volume], b.cost.monthly_usd[volume])
                    for volume in a.cost.monthly_usd
                },
                per_million={rate: Pair(cost, b.cost.per_million[rate]) for rate, cost in a.cost.per_million.items()},
                startup_ms=_startup_pair(a, b),
                memory_mib=Pair(a.memory.peak_mib, b.memory.peak_mib),
                artifact_size=Pair(a.artifact_size, b.artifact_size),
                accuracy=AccuracyPair(
                    a.accuracy,
                    b.accuracy,
                    difference,
                    mcnemar_by_pair.get((pair.plain, pair.alternative)),
                    non_inferiority(difference),
                    NON_INFERIORITY_MARGIN,
                ),
                agreement=replace(agreement, mcnemar=None) if agreement else unavailable(ReasonCode.NO_RESPONSE_OF_ONE),
            )
        )
    return comparisons


def _latency_pairs(
    reports: Sequence[Mapping[str, Estimate]], ratio_of: Callable[[float], Ratio | None]
) -> dict[str, LatencyPair]:
    """By how much the second is faster, in the first scenario that both ran; successful requests."""
    no_scenario = unavailable(ReasonCode.NO_COMMON_SCENARIO)
    pairs = {}
    for name in COMPARED_PERCENTILES:
        a, b = (report.get(name, no_scenario) for report in reports)
        speedup, decision = unavailable(ReasonCode.NOT_KNOWN_OF_BOTH), Decision.UNDECIDED
        if isinstance(a, Estimate) and isinstance(b, Estimate) and _both_known(a, b):
            ratio = ratio_of(PERCENTILES[name])
            speedup, decision = _speedup(a, b, ratio), ratio.decision if ratio else Decision.UNDECIDED
        pairs[name] = LatencyPair(a, b, speedup, decision)
    return pairs


def _speedup(a: Estimate, b: Estimate, ratio: Ratio | None) -> Estimate | Unavailable:
    """As a factor: half the latency is a speedup of 2. Without an interval where that has no end."""
    if not a.value or not b.value:
        return unavailable(ReasonCode.ZERO_LATENCY)
    if ratio is None or ratio.low <= 0 or math.isinf(ratio.high):
        return Estimate(a.value / b.value)
    return Estimate(a.value / b.value, 1 / ratio.high, 1 / ratio.low)


def _first_request_p50(start: StartReport | Unavailable) -> Estimate | None:
    return start.latency_ms["p50"] if isinstance(start, StartReport) else None


def _first_prediction_p50(start: StartReport | Unavailable) -> Estimate | Unavailable | None:
    return start.time_to_first_prediction_ms["p50"] if isinstance(start, StartReport) else None


START_METRICS: dict[str, Callable[[TargetReport], Start]] = {  # how long a start took, the most telling first
    "time_to_first_prediction": lambda report: _first_prediction_p50(report.cold_starts.forced),
    "idle": lambda report: _first_request_p50(report.cold_starts.idle),
    "forced": lambda report: _first_request_p50(report.cold_starts.forced),
    "ready": lambda report: report.startup_ms,
}


def _startup_pair(a: TargetReport, b: TargetReport) -> StartupPair:
    """`metric` says which: start command to the first correct prediction, the first request of an idle or of a forced
    start, or a twin's start-up until it was ready, which happened once."""
    for metric, get_figure in START_METRICS.items():
        of_a, of_b = get_figure(a), get_figure(b)
        if of_a is not None and of_b is not None and _both_known(of_a, of_b):
            return StartupPair(of_a, of_b, metric)
    no_start = unavailable(ReasonCode.NO_COMMON_START)
    return StartupPair(no_start, no_start, None)


def _both_known(a: Start, b: Start) -> bool:
    return all(getattr(figure, "value", figure) is not None for figure in (a, b))
