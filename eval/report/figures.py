"""Which figures of a run go into which plot of its report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from eval.analysis.drift import NONSTATIONARY_SCENARIOS
from eval.analysis.predictions.accuracy import CALIBRATION_BINS
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.formatting import short_count, value_of
from eval.plan.config import COLD, IDLE, MAX_RATE, SCENARIOS
from eval.report.answer_groups import AnswerGroup
from eval.report.plots import core, scenarios
from eval.report.plots.scenarios import CostLatencyPoint
from eval.samples.columns import Samples
from eval.samples.model import Run, Sample
from eval.samples.rounds import split_after_pause

MIN_CROSSING_RATIO = 1.05  # as a factor: closer crossings are one, as of a target that costs the same with two engines
MIN_BLOCKS = 3  # blocks of which latency over time is drawn

SummaryReport = Mapping[str, Any]
TargetStyles = Mapping[str, int]  # target -> number of its colour


def latency_plots(
    samples: Iterable[Sample], target_reports: Mapping[str, Any], styles: TargetStyles
) -> dict[str, Markup]:
    """A plot for each scenario with a successful request; the steps of a search are too different to be one."""
    by_scenario = _group_by_scenario(samples)
    figures = {}
    for scenario in (name for name in SCENARIOS if name in by_scenario and name != MAX_RATE):
        timed = {name: split_after_pause(of_target)[1] for name, of_target in by_scenario[scenario].items()}
        series = [
            core.LatencySeries(target_reports[name]["title"], styles[name], latencies_ms, len(timed[name]))
            for name in target_reports
            if name in timed and (latencies_ms := timed[name].succeeded.array("latency_ms").tolist())
        ]
        if series:
            figures[scenario] = core.latency_ecdf(series, scenario)
    return figures


def rate_plot(target_reports: Mapping[str, Any], styles: TargetStyles, slo_ms: float) -> Markup | None:
    """Every step of the search for the highest rate, or None when nobody searched."""
    searches = []
    for name, target_report in target_reports.items():
        if search_report := target_report["scenarios"].get(MAX_RATE):
            steps = [
                scenarios.RateStep(
                    step["rate_rps"],
                    step["p95_ms"]["value"],
                    step["p95_ms"]["low"],
                    step["p95_ms"]["high"],
                    step["passed"],
                )
                for step in search_report["steps"]
                if step["rate_rps"] > 0  # samples may lack it
            ]
            max_rps = value_of(search_report["max_rate_rps"])
            searches.append(scenarios.RateSearch(target_report["title"], styles[name], steps, max_rps))
    return scenarios.rate_search(searches, slo_ms) if any(search.steps for search in searches) else None


def latency_over_time_plots(
    samples: Iterable[Sample], target_reports: Mapping[str, Any], styles: TargetStyles
) -> dict[str, Markup]:
    """A plot for each scenario of several blocks, not where the load changes, nor where a block is a single start."""
    by_scenario = _group_by_scenario(samples)
    figures = {}
    for scenario in (
        name for name in SCENARIOS if name in by_scenario and name not in (*NONSTATIONARY_SCENARIOS, COLD, IDLE)
    ):
        series = [
            scenarios.LatencyOverTime(target_reports[name]["title"], styles[name], *zip(*blocks, strict=True))
            for name in target_reports
            if len(blocks := _block_medians(by_scenario[scenario].get(name, ()))) >= MIN_BLOCKS
        ]
        if series:
            figures[scenario] = scenarios.latency_over_time(series, scenario)
    return figures


def _block_medians(samples: Iterable[Sample]) -> list[tuple[float, float]]:
    """The start of each block, and its median."""
    blocks = split_after_pause(samples)[1].succeeded.by("block")
    return sorted(
        (float(block.array("scheduled_s").min()), float(np.median(block.array("latency_ms"))))
        for block in blocks.values()
    )


def cost_latency_plot(summary: SummaryReport, styles: TargetStyles, scenario_title: str) -> Markup | None:
    """Cost at REQUESTS_PER_MONTH against p95 of the main scenario, with failures; None for fewer than two."""
    marks = {}
    for name, target_report in summary["targets"].items():
        bill = target_report["cost"]["monthly_usd"].get(str(REQUESTS_PER_MONTH))
        report = target_report["scenarios"].get(summary["verdict"]["scenario"])
        p95: Mapping[str, Any] = report["latency_with_failures_ms"]["p95"] if report else {"value": None}
        if bill and value_of(bill["net_usd"]) is not None and p95["value"] is not None:
            usd_bounds = (bill["net_usd"], bill["net_low_usd"], bill["net_high_usd"])
            p95_bounds = (p95["value"], p95["low"] or p95["value"], p95["high"] or p95["value"])
            marks[name] = CostLatencyPoint(target_report["title"], styles[name], usd_bounds, p95_bounds)
    if len(marks) < 2:
        return None
    return scenarios.cost_latency(list(marks.values()), short_count(REQUESTS_PER_MONTH), scenario_title)


def _group_by_scenario(samples: Iterable[Sample]) -> dict[str, dict[str, Samples]]:
    """Scenario -> target -> its samples."""
    return {scenario: of.by("target") for scenario, of in Samples.of(samples).by("scenario").items()}


def cost_plot(summary: SummaryReport, styles: TargetStyles) -> Markup | None:
    """The curves of all targets that have a price, or None when none has."""
    curves = {}
    for name, target_report in summary["targets"].items():
        points = [point for point in target_report["cost"]["curve"] if value_of(point["net_usd"]) is not None]
        if points:
            requests, net, gross, low, high = (
                [point[key] for point in points]
                for key in ("requests_per_month", "net_usd", "gross_usd", "net_low_usd", "net_high_usd")
            )
            servable_points = sum(not point["exceeds_max_instances"] for point in points)
            net_range = (low, high) if low != high else None
            curves[name] = core.CostCurve(
                target_report["title"], styles[name], requests, net, gross, servable_points, net_range
            )
    if not curves:
        return None
    return core.cost_curves(list(curves.values()), cheapest_target_changes(curves, summary["break_even"]))


def cheapest_target_changes(
    curves: Mapping[str, core.CostCurve], break_even: Iterable[Mapping[str, Any]]
) -> list[core.CostCrossing]:
    """The break-even points at which no third target is cheaper: there the cheapest target changes.

    As long as both can serve the traffic: beyond that neither is an offer.
    """
    candidates = []
    for point in break_even:
        monthly_requests = value_of(point["requests_per_month"])
        if monthly_requests is None or point["exceeds_max_instances"] or not {point["a"], point["b"]} <= curves.keys():
            continue
        usd_by_target = {
            name: float(np.interp(np.log(monthly_requests), np.log(curve.monthly_requests), curve.net_usd))
            for name, curve in curves.items()
        }
        pair_min_usd = min(usd_by_target[point["a"]], usd_by_target[point["b"]])
        if all(other_usd >= pair_min_usd * 0.99 for other_usd in usd_by_target.values()):
            candidates.append(
                core.CostCrossing(monthly_requests, max(usd_by_target[point["a"]], usd_by_target[point["b"]]))
            )
    distinct: list[core.CostCrossing] = []
    for candidate in sorted(candidates, key=lambda crossing: crossing.monthly_requests):
        if not distinct or candidate.monthly_requests > MIN_CROSSING_RATIO * distinct[-1].monthly_requests:
            distinct.append(candidate)
    return distinct


def calibration_plot(
    run: Run, samples: Iterable[Sample], groups: Sequence[AnswerGroup], styles: TargetStyles
) -> Markup | None:
    """One line for all targets with the same answers."""
    by_target = Samples.of(samples).with_("target", *(group.names[0] for group in groups)).succeeded.by("target")
    predictions = {
        name: {
            s.image_index: (max(s.probabilities), s.predicted_class == run.image_manifest[s.image_index].label)
            for s in _last_of_each_image(of_target)
            if s.probabilities and s.predicted_class is not None
        }
        for name, of_target in by_target.items()
    }
    curves = [
        core.ReliabilityCurve(
            group.title,
            styles[group.names[0]],
            *_calibration_bins([of_first[image] for image in sorted(of_first)]),
            target_styles=[styles[name] for name in group.names],
        )
        for group in groups
        if (of_first := predictions.get(group.names[0]))
    ]
    return core.reliability_diagram(curves) if curves else None


def _last_of_each_image(samples: Samples) -> Samples:
    """Of those with probabilities."""
    predicted = samples.where(~samples.equal("probabilities", None))
    return predicted.where(len(predicted) - 1 - np.unique(predicted.array("image_index")[::-1], return_index=True)[1])


def _calibration_bins(
    predictions: Sequence[tuple[float, bool]],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]:
    """Mean confidence, accuracy, and number of predictions of each filled bin; bins as in the error's."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, correct in predictions:
        bins[max(0, math.ceil(confidence * CALIBRATION_BINS) - 1)].append((confidence, correct))
    filled_bins = [bins[number] for number in sorted(bins)]
    return (
        tuple(round(fmean(c for c, _ in bin_pairs), 4) for bin_pairs in filled_bins),
        tuple(round(fmean(r for _, r in bin_pairs), 4) for bin_pairs in filled_bins),
        tuple(len(bin_pairs) for bin_pairs in filled_bins),
    )
