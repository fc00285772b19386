"""What the switch from the plain engine to another is worth, target by target: the `engines` of report.json. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.analysis.accuracy import Predictions
from eval.analysis.mcnemar import DiscordantPairs, discordant_pairs, mcnemar_tests
from eval.plan.config import MAX_RATE
from eval.samples.model import Run, Sample
from eval.statements import ReasonCode, unavailable
from eval.stats.bootstrap import LatenciesByBlock, RelativeChange, compare_quantiles
from eval.stats.intervals import PERCENTILES
from eval.targets.engines import matching_engine_pairs
from service.engines.names import PLAIN_ENGINE

COMPARED_PERCENTILES = ("p50", "p95")

TargetReport = Mapping[str, Any]  # one entry of report.json's `targets`


def compare_engines(
    run: Run,
    samples_by_target: Mapping[str, Sequence[Sample]],
    predictions: Mapping[str, Predictions],
    targets: Mapping[str, TargetReport],
    agreements: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The `engines` of report.json: an entry for each pair, empty where no target was asked with two engines.

    taken: the measured samples of each target. said: its answers at usual work.
    """
    paired_targets = matching_engine_pairs(run.targets)
    true_labels = {number: image.label for number, image in enumerate(run.image_manifest)}
    discordant_by_pair = {
        f"{p.plain}|{p.alternative}": discordant_pairs(
            true_labels, predictions.get(p.plain, {}), predictions.get(p.alternative, {})
        )
        for p in paired_targets
    }
    mcnemar_by_pair = mcnemar_tests(discordant_by_pair)  # adjusted for these pairs alone: no other was meant to differ
    comparisons = []
    for pair in paired_targets:
        key = f"{pair.plain}|{pair.alternative}"
        pair_reports = targets[pair.plain], targets[pair.alternative]
        pair_samples = [samples_by_target.get(name, ()) for name in (pair.plain, pair.alternative)]
        agreement = agreements.get(key) or agreements.get(f"{pair.alternative}|{pair.plain}")
        comparisons.append(
            {
                "a": pair.plain,
                "b": pair.alternative,
                "title": pair_reports[0]["title"],
                "engines": {"a": pair_reports[0]["engine"] or PLAIN_ENGINE, "b": pair_reports[1]["engine"]},
                **_latency(pair_reports, pair_samples, run.seed),
                **_cost_pairs(pair_reports),
                "start_ms": _startup_time(pair_reports),
                "memory_mib": _side_by_side(pair_reports, lambda facts: facts["memory"]["peak_mib"]),
                "shipped": _side_by_side(pair_reports, lambda facts: facts["shipped"]),
                "accuracy": _accuracy(pair_reports, discordant_by_pair[key], mcnemar_by_pair[key]),
                "parity": {k: v for k, v in (agreement or {}).items() if k != "mcnemar"}
                or unavailable(ReasonCode.NO_RESPONSE_OF_ONE),
            }
        )
    return comparisons


def _side_by_side(pair_reports: Sequence[TargetReport], get_figure: Callable[[TargetReport], Any]) -> dict[str, Any]:
    return {side: get_figure(target_report) for side, target_report in zip("ab", pair_reports, strict=True)}


def _latency(
    pair_reports: Sequence[TargetReport], pair_samples: Sequence[Sequence[Sample]], seed: int
) -> dict[str, Any]:
    """The first scenario that both answered, and by how much the second is faster; the highest rates where known."""
    scenario = next(
        (name for name in pair_reports[0]["scenarios"] if name in pair_reports[1]["scenarios"] and name != MAX_RATE),
        None,
    )
    latency_reports = [
        target_report["scenarios"][scenario]["latency_ms"] if scenario else {} for target_report in pair_reports
    ]
    estimates = {
        p: [latency_report.get(p) or unavailable(ReasonCode.NO_COMMON_SCENARIO) for latency_report in latency_reports]
        for p in COMPARED_PERCENTILES
    }
    blocks = [_latencies_by_block(samples, scenario) for samples in pair_samples]
    changes: dict[str, RelativeChange] = {}
    if all(blocks):
        quantile_changes = compare_quantiles(blocks[0], blocks[1], [PERCENTILES[p] for p in COMPARED_PERCENTILES], seed)
        changes = dict(zip(COMPARED_PERCENTILES, quantile_changes, strict=True))
    max_rates = [target_report["scenarios"].get(MAX_RATE, {}).get("max_rate_rps") for target_report in pair_reports]
    return {
        "scenario": scenario,
        "latency_ms": {
            p: {
                "a": a,
                "b": b,
                "times_as_fast": _speedup(changes[p])
                if _both_known(a, b)
                else unavailable(ReasonCode.NOT_KNOWN_OF_BOTH),
            }
            for p, (a, b) in estimates.items()
        },
        "max_rate_rps": {"a": max_rates[0], "b": max_rates[1]} if all(max_rates) else None,
    }


def _latencies_by_block(samples: Sequence[Sample], scenario: str | None) -> LatenciesByBlock:
    """What each block's answers took."""
    latencies_by_block: dict[int, list[float]] = defaultdict(list)
    for s in samples:
        if s.scenario == scenario and s.error is None:
            latencies_by_block[s.block].append(s.latency_ms)
    return latencies_by_block


def _speedup(latency_change: RelativeChange) -> dict[str, Any]:
    """As a factor: half the latency is 2 times as fast."""
    value, high, low = (
        1 / (1 + change) if change > -1 else None
        for change in (latency_change.change, latency_change.low, latency_change.high)
    )
    return unavailable(ReasonCode.ZERO_LATENCY) if value is None else {"value": value, "low": low, "high": high}


def _cost_pairs(pair_reports: Sequence[TargetReport]) -> dict[str, Any]:
    """Dollars by the same meters; only the work differs."""
    a, b = (target_report["cost"] for target_report in pair_reports)
    return {
        kind: {
            volume: {"a": a[kind][volume], "b": b[kind][volume]} for volume in a[kind]
        }  # a month's requests, or requests a second
        for kind in ("monthly_usd", "usd_per_million")
    }


START_METRICS: dict[str, Callable[[TargetReport], Any]] = {  # what a start was seen to take, the most telling first
    "create": lambda facts: facts["cold_start_ms"]["forced"].get("create_ms", {}).get("p50"),
    "natural": lambda facts: facts["cold_start_ms"]["idle"].get("latency_ms", {}).get("p50"),
    "forced": lambda facts: facts["cold_start_ms"]["forced"].get("latency_ms", {}).get("p50"),
    "ready": lambda facts: facts["startup_ms"],
}


def _startup_time(pair_reports: Sequence[TargetReport]) -> dict[str, Any]:
    """`of` says which: start command to the first correct prediction, the first request of a natural or of a forced
    start, or a twin's start-up until it was ready, which happened once."""
    for metric, get_figure in START_METRICS.items():
        a, b = map(get_figure, pair_reports)
        if _both_known(a, b):
            return {"of": metric, "a": a, "b": b}
    no_start = unavailable(ReasonCode.NO_COMMON_START)
    return {"of": None, "a": no_start, "b": no_start}


def _accuracy(
    pair_reports: Sequence[TargetReport], discordant: DiscordantPairs, mcnemar_report: Mapping[str, Any]
) -> dict[str, Any]:
    """Of each, and the difference on the images that both answered."""
    return {
        **_side_by_side(pair_reports, lambda target_report: target_report["accuracy"]),
        "difference": discordant.difference() if discordant.n else unavailable(ReasonCode.NO_COMMON_IMAGE),
        "mcnemar": mcnemar_report,
    }


def _both_known(a: Any, b: Any) -> bool:
    return all((figure.get("value") if isinstance(figure, Mapping) else figure) is not None for figure in (a, b))
