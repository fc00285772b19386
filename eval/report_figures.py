"""Which figures of a run go into which plot of its report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from eval import plots
from eval.formatting import value_of
from eval.metrics import CALIBRATION_BINS
from eval.samples import Run, Sample

Summary = Mapping[str, Any]
Colours = Mapping[str, int]  # target -> number of its colour


def latency_plots(samples: Iterable[Sample], targets: Mapping[str, Any], colours: Colours) -> dict[str, Markup]:
    """A plot for each scenario in which anything was answered."""
    taken: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        taken[sample.scenario][sample.target].append(sample)
    drawn = {}
    for scenario, of_target in taken.items():
        series = [
            plots.Latencies(targets[name]["title"], colours[name], times, len(of_target[name]))
            for name in targets
            if (times := [s.latency_ms for s in of_target[name] if s.error is None])
        ]
        if series:
            drawn[scenario] = plots.latency(series, scenario)
    return drawn


def cost_plot(summary: Summary, colours: Colours) -> Markup | None:
    """The curves of all targets that have a price, or None when none has."""
    curves = {}
    for name, facts in summary["targets"].items():
        points = [p for p in facts["cost"]["curve"] if value_of(p["net"]) is not None]
        if points:
            requests, net, gross = zip(*((p["requests_per_month"], p["net"], p["gross"]) for p in points), strict=True)
            curves[name] = plots.CostCurve(facts["title"], colours[name], requests, net, gross)
    if not curves:
        return None
    return plots.cost(list(curves.values()), crossings(curves, summary["break_even"]))


def crossings(curves: Mapping[str, plots.CostCurve], break_even: Iterable[Mapping[str, Any]]) -> list[plots.Crossing]:
    """The break-even points at which no third target is cheaper: there the cheapest target changes."""
    found = []
    for point in break_even:
        requests = value_of(point["requests_per_month"])
        if requests is None or not {point["a"], point["b"]} <= curves.keys():
            continue
        usd = {name: float(np.interp(np.log(requests), np.log(c.requests), c.net_usd)) for name, c in curves.items()}
        here = min(usd[point["a"]], usd[point["b"]])
        if all(other >= here * 0.99 for other in usd.values()):
            found.append(plots.Crossing(requests, max(usd[point["a"]], usd[point["b"]])))
    return sorted(found, key=lambda crossing: crossing.requests)


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
        intervals.append(plots.Interval(facts["title"], colours[name], *interval, over_sent))
    return plots.accuracy(intervals) if intervals else None


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
        every = len(lines) == 1 and len(names) > 1
        title = "all targets" if every else ", ".join(targets[name]["title"] for name in names)
        drawn.append(plots.Reliability(title, colours[first], *bins))
    return plots.calibration(drawn) if drawn else None


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
