"""Which figures of a run go into which plot of its report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
from markupsafe import Markup

from eval.analysis.accuracy import CALIBRATION_BINS
from eval.analysis.drift import CHANGING
from eval.analysis.slo import judged
from eval.formatting import short_count, value_of
from eval.plan.config import COLD, IDLE, MAX_RATE, SCENARIOS
from eval.report.engine_table import titles_of
from eval.report.plots import core, scenarios
from eval.report.plots.scenarios import Offer
from eval.samples.model import Run, Sample

APART = 1.05  # as a factor: closer crossings are one, as of a target that costs the same with two engines
LEAST_COURSE = 3  # blocks of which a course is drawn

Summary = Mapping[str, Any]
Colours = Mapping[str, int]  # target -> number of its colour


def latency_plots(samples: Iterable[Sample], targets: Mapping[str, Any], colours: Colours) -> dict[str, Markup]:
    """A plot for each scenario in which anything was answered; the steps of a search are too unlike to be one."""
    taken = _by_scenario(samples)
    drawn = {}
    for scenario in (name for name in SCENARIOS if name in taken and name != MAX_RATE):
        of_target = taken[scenario]
        series = [
            core.Latencies(targets[name]["title"], colours[name], times, len(of_target[name]))
            for name in targets
            if (times := [s.latency_ms for s in of_target[name] if s.error is None])
        ]
        if series:
            drawn[scenario] = core.latency(series, scenario)
    return drawn


def rate_plot(targets: Mapping[str, Any], colours: Colours, slo_ms: float) -> Markup | None:
    """Every step of the search for the highest rate, or None when nobody searched."""
    searches = []
    for name, facts in targets.items():
        if found := facts["scenarios"].get(MAX_RATE):
            steps = [
                scenarios.RateStep(
                    s["rate_rps"], s["p95_ms"]["value"], s["p95_ms"]["low"], s["p95_ms"]["high"], s["held"]
                )
                for s in found["steps"]
            ]
            rate = value_of(found["max_rate_rps"])
            searches.append(scenarios.RateSearch(facts["title"], colours[name], steps, rate))
    return scenarios.rate(searches, slo_ms) if any(one.steps for one in searches) else None


def course_plots(samples: Iterable[Sample], targets: Mapping[str, Any], colours: Colours) -> dict[str, Markup]:
    """A plot for each scenario of several blocks, not where the load changes, nor where a block is a single start."""
    taken = _by_scenario(samples)
    drawn = {}
    for scenario in (name for name in SCENARIOS if name in taken and name not in (*CHANGING, COLD, IDLE)):
        courses = [
            scenarios.Course(targets[name]["title"], colours[name], *zip(*blocks, strict=True))
            for name in targets
            if len(blocks := _blocks(taken[scenario][name])) >= LEAST_COURSE
        ]
        if courses:
            drawn[scenario] = scenarios.course(courses, scenario)
    return drawn


def _blocks(samples: Iterable[Sample]) -> list[tuple[float, float]]:
    """When each block began, and the median of its answers."""
    blocks: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.error is None:
            blocks[sample.block].append(sample)
    return sorted((min(s.started_s for s in of), median(s.latency_ms for s in of)) for of in blocks.values())


def pareto_plot(summary: Summary, colours: Colours) -> Markup | None:
    """Cost at the verdict's traffic against p95 with failures, as the verdict has it; None for fewer than two."""
    requests = summary["verdict"]["traffic"]["requests_per_month"]
    places = {}
    for name, facts in summary["targets"].items():
        bill = facts["cost"]["monthly_usd"].get(str(requests))
        of = judged(facts)
        p95 = of["latency_with_failures_ms"]["p95"] if of else {"value": None}
        if bill and value_of(bill["net"]) is not None and p95["value"] is not None:
            usd = (bill["net"], bill["net_low"], bill["net_high"])
            times = (p95["value"], p95["low"], p95["high"])
            places[name] = (usd, times, value_of(facts["accuracy"]))
    if len(places) < 2:
        return None
    values = {name: (usd[0], times[0], -(accuracy or 0.0)) for name, (usd, times, accuracy) in places.items()}
    offers = [
        Offer(
            summary["targets"][name]["title"], colours[name], *place,
            dominated=any(dominates(values[other], values[name]) for other in places if other != name),
        )
        for name, place in places.items()
    ]  # fmt: skip
    return scenarios.pareto(offers, short_count(requests))


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is as low as `b` in everything and lower in something."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def _by_scenario(samples: Iterable[Sample]) -> dict[str, dict[str, list[Sample]]]:
    """Scenario -> target -> its samples."""
    taken: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        taken[sample.scenario][sample.target].append(sample)
    return taken


def cost_plot(summary: Summary, colours: Colours) -> Markup | None:
    """The curves of all targets that have a price, or None when none has."""
    curves = {}
    for name, facts in summary["targets"].items():
        points = [p for p in facts["cost"]["curve"] if value_of(p["net"]) is not None]
        if points:
            requests, net, gross = zip(*((p["requests_per_month"], p["net"], p["gross"]) for p in points), strict=True)
            served = sum(not p["beyond_limit"] for p in points)
            curves[name] = core.CostCurve(facts["title"], colours[name], requests, net, gross, served)
    if not curves:
        return None
    return core.cost(list(curves.values()), crossings(curves, summary["break_even"]))


def crossings(curves: Mapping[str, core.CostCurve], break_even: Iterable[Mapping[str, Any]]) -> list[core.Crossing]:
    """The break-even points at which no third target is cheaper: there the cheapest target changes.

    As long as both can serve the traffic: beyond that neither is an offer.
    """
    found = []
    for point in break_even:
        requests = value_of(point["requests_per_month"])
        if requests is None or point["beyond_limit"] or not {point["a"], point["b"]} <= curves.keys():
            continue
        usd = {name: float(np.interp(np.log(requests), np.log(c.requests), c.net_usd)) for name, c in curves.items()}
        here = min(usd[point["a"]], usd[point["b"]])
        if all(other >= here * 0.99 for other in usd.values()):
            found.append(core.Crossing(requests, max(usd[point["a"]], usd[point["b"]])))
    kept: list[core.Crossing] = []
    for one in sorted(found, key=lambda crossing: crossing.requests):
        if not kept or one.requests > APART * kept[-1].requests:
            kept.append(one)
    return kept


def accuracy_plot(targets: Mapping[str, Any], colours: Colours) -> Markup | None:
    """Accuracy of answers, and of all that was sent where that is another number."""
    intervals = []
    for name, facts in targets.items():
        answered = facts["accuracy"]
        if answered.get("value") is None:
            continue
        sent = value_of(facts["accuracy_over_sent"])
        over_sent = None if sent == answered["value"] else sent
        interval = answered["value"], answered["low"], answered["high"]
        intervals.append(core.Interval(facts["title"], colours[name], *interval, over_sent))
    return core.accuracy(intervals) if intervals else None


def calibration_plot(
    run: Run, samples: Iterable[Sample], targets: Mapping[str, Any], colours: Colours
) -> Markup | None:
    """One line for all targets that were equally sure and equally right, on every picture together."""
    pairs: dict[str, dict[int, tuple[float, bool]]] = defaultdict(dict)
    for s in samples:
        if s.error is None and s.probabilities and s.label is not None:
            pairs[s.target][s.image] = (max(s.probabilities), s.label == run.images[s.image].label)
    lines: dict[tuple, tuple[str, list[str]]] = {}
    for name in (name for name in targets if name in pairs):
        lines.setdefault(_bins([pairs[name][image] for image in sorted(pairs[name])]), (name, []))[1].append(name)
    drawn = []
    for bins, (first, names) in lines.items():
        title = _shared_title(names, [name for name in targets if name in pairs], targets)
        drawn.append(core.Reliability(title, colours[first], *bins, targets=[colours[name] for name in names]))
    return core.calibration(drawn) if drawn else None


def _shared_title(names: Sequence[str], every: Sequence[str], targets: Mapping[str, Any]) -> str:
    """What a line of these targets is called, `every` being all that have one."""
    every_one = len(names) > 1 and len(names) == len(every)
    return "all targets" if every_one else ", ".join(titles_of(names, {name: targets[name] for name in every}))


def _bins(pairs: Sequence[tuple[float, bool]]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]:
    """Mean confidence, share right, and number of answers, of each bin that holds any; bins as in the error's."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in pairs:
        bins[max(0, math.ceil(confidence * CALIBRATION_BINS) - 1)].append((confidence, right))
    held = [bins[number] for number in sorted(bins)]
    return (
        tuple(round(fmean(c for c, _ in one), 4) for one in held),
        tuple(round(fmean(r for _, r in one), 4) for one in held),
        tuple(len(one) for one in held),
    )
