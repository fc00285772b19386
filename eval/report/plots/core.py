"""The report's plots, drawn with matplotlib. Which figures go in is decided in report_figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval import formatting
from eval.cost.billing import MONTH_S
from eval.report.plots.style import MARKERS, entry, face, gid, legend, line_style, log_ticks, signs
from eval.report.plots.svg import COLOURS, INK, MUTED, SERIES, SQUARE, SURFACE, render

ECDF_POINTS = 400  # of a distribution that are drawn; more cannot be seen
SHARES, SHARES_NARROW = (0, 10, 25, 50, 75, 90, 95, 100), (0, 25, 50, 75, 95, 100)  # percent, on the axis
COST_FLOOR_USD = 0.1  # what is cheaper is drawn here: a logarithmic axis has no zero


@dataclass(frozen=True)
class Latencies:
    """What one target's requests took."""

    title: str
    colour: int
    answered_ms: Sequence[float]  # of the answered requests
    sent: int  # failures included: they never arrive, so the curve ends below 100%


@dataclass(frozen=True)
class CostCurve:
    """What one target costs a month."""

    title: str
    colour: int
    requests: Sequence[float]  # a month, ascending
    net_usd: Sequence[float]  # after the free tier
    gross_usd: Sequence[float]  # at list price
    served: int | None = None  # points from the left that its instances can serve; None: all


@dataclass(frozen=True)
class Crossing:
    """A traffic at which the cheapest target changes."""

    requests: float
    usd: float


@dataclass(frozen=True)
class Interval:
    """A share with its confidence interval."""

    title: str
    colour: int
    value: float
    low: float
    high: float
    over_sent: float | None = None  # the same share with failures counted as wrong, where that differs


@dataclass(frozen=True)
class Reliability:
    """How sure a target was, and how often it was right when that sure."""

    title: str
    colour: int
    confidence: Sequence[float] = field(default_factory=tuple)  # mean of each bin
    accuracy: Sequence[float] = field(default_factory=tuple)
    counts: Sequence[int] = field(default_factory=tuple)
    targets: Sequence[int] = field(default_factory=tuple)  # colours of all that the line stands for; none: its own


def latency(series: Sequence[Latencies], scenario: str) -> Markup:
    """The share of requests answered within a time."""

    def draw(axes: Axes, narrow: bool) -> None:
        for one in series:
            times = np.sort(np.asarray(one.answered_ms, dtype=float))
            ranks = np.unique(np.linspace(0, len(times) - 1, min(len(times), ECDF_POINTS)).astype(int))
            shares = (ranks + 1) / one.sent * 100
            axes.step(times[ranks], shares, where="post", label=entry(one.title), **line_style(one.colour),
                      **signs(one.colour))  # fmt: skip
        log_ticks(axes, [t for one in series for t in (min(one.answered_ms), max(one.answered_ms))])
        axes.set_ylim(0, 101)
        axes.yaxis.set_major_locator(FixedLocator(SHARES_NARROW if narrow else SHARES))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f}%"))
        axes.set_xlabel("milliseconds, log scale" if narrow else "milliseconds from the scheduled time, log scale")
        legend(axes, narrow)

    series = [one for one in series if one.answered_ms]
    medians = ", ".join(f"{one.title} {formatting.ms(float(np.median(one.answered_ms)))}" for one in series)
    label = f"Share of requests answered within a time, per target. Medians: {medians}."
    return render(f"latency-{scenario}", draw, label, read=("ms", "percent"))


def cost(curves: Sequence[CostCurve], crossings: Sequence[Crossing]) -> Markup:
    """Dollars a month over requests a month, both on log axes."""

    def draw(axes: Axes, narrow: bool) -> None:
        for one in curves:
            gross, net = (np.maximum(usd, COST_FLOOR_USD) for usd in (one.gross_usd, one.net_usd))
            served = len(one.requests) if one.served is None else one.served
            axes.plot(one.requests, gross, **{**line_style(one.colour), "linewidth": 1, "linestyle": ":"})
            axes.plot(one.requests, net, **{**line_style(one.colour), "linewidth": 1, "alpha": 0.45})
            axes.plot(one.requests[:served], net[:served], label=entry(one.title), **line_style(one.colour),
                      **signs(one.colour))  # fmt: skip
        for level, one in enumerate(crossings):
            _mark(axes, one, level)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(one.requests[0] for one in curves), max(one.requests[-1] for one in curves))
        axes.set_ylim(bottom=COST_FLOOR_USD * 0.8)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: formatting.short_count(x)))
        axes.yaxis.set_major_formatter(FuncFormatter(_cost_tick))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("requests a month, log scale")
        axes.set_ylabel("$ a month, log scale")
        a_second = (lambda n: np.divide(n, MONTH_S), lambda rps: np.multiply(rps, MONTH_S))
        rates = axes.secondary_xaxis("top", functions=a_second)
        rates.xaxis.set_major_formatter(FuncFormatter(lambda rps, _: f"{rps:,.7g}/s"))
        rates.xaxis.set_minor_locator(NullLocator())
        legend(axes, narrow)

    marks = ", ".join(formatting.short_count(one.requests) for one in crossings) or "none"
    return render("cost", draw, f"Monthly cost over monthly requests, per target. The cheapest changes at: {marks}.",
                  read=("requests", "usd"))  # fmt: skip


def accuracy(intervals: Sequence[Interval]) -> Markup:
    """Top-1 accuracy of each target with its interval."""

    def draw(axes: Axes, narrow: bool) -> None:
        for row, one in enumerate(intervals):
            colour = SERIES[one.colour % COLOURS]
            axes.plot([one.low * 100, one.high * 100], [row, row], color=colour, linewidth=5, alpha=0.35,
                      gid=gid(one.colour))  # fmt: skip
            axes.plot(one.value * 100, row, MARKERS[one.colour % COLOURS], color=colour, markersize=8,
                      gid=gid(one.colour))  # fmt: skip
            if one.over_sent is not None:
                axes.plot(one.over_sent * 100, row, "o", markerfacecolor="none", markeredgecolor=colour, markersize=8,
                          gid=gid(one.colour))  # fmt: skip
        titles = [_broken(one.title) if narrow else one.title for one in intervals]
        axes.set_yticks(range(len(intervals)), titles)
        for one, title in zip(intervals, axes.get_yticklabels(), strict=True):
            title.set_gid(gid(one.colour))
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.set_ylim(len(intervals) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.locator_params(axis="x", nbins=4 if narrow else 8)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}%"))
        axes.set_xlabel("top-1 accuracy, 95% interval")

    values = ", ".join(f"{one.title} {formatting.percent(one.value)}" for one in intervals)
    sizes = {"wide": (10.0, 1.1 + 0.42 * len(intervals)), "narrow": (3.75, 1.3 + 0.52 * len(intervals))}
    return render("accuracy", draw, f"Top-1 accuracy with its 95% interval. {values}.", sizes)


def calibration(lines: Sequence[Reliability]) -> Markup:
    """How often an answer of a given confidence was right."""

    def draw(axes: Axes, narrow: bool) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.annotate("as sure as right", (30, 30), (34, 22), color=MUTED, fontsize=9)
        for one in lines:
            sizes = 12 + 150 * np.sqrt(np.asarray(one.counts) / max(1, sum(one.counts)))
            x, y = (np.asarray(values) * 100 for values in (one.confidence, one.accuracy))
            group: dict[str, Any] = {"gid": gid(*(one.targets or (one.colour,)))}
            axes.plot(x, y, label=entry(one.title), **line_style(one.colour) | group)
            axes.scatter(x, y, s=sizes, facecolors=face(one.colour)["markerfacecolor"],
                         edgecolors=SERIES[one.colour % COLOURS], zorder=3, **group)  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 103)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share that was right")
        legend(axes, narrow)

    total = sum(lines[0].counts) if lines else 0
    label = f"Share of right answers by the probability given, {formatting.count(total)} answers."
    return render("calibration", draw, label, SQUARE)


def _broken(title: str) -> str:
    """On lines that leave a phone room for the plot."""
    name, engine, rest = title.partition(" (")
    return (name.replace(" ", "\n", 1) if len(name) > 10 else name) + (f"\n({rest}" if engine else "")


def _cost_tick(usd: float, _: int) -> str:
    if usd <= COST_FLOOR_USD:
        return f"≤ ${COST_FLOOR_USD:.2f}"
    return f"${usd:,.0f}" if usd >= 1 else f"${usd:.2f}"


def _mark(axes: Axes, crossing: Crossing, level: int) -> None:
    """A ring where the cheapest changes, with its traffic beside it."""
    y = max(crossing.usd, COST_FLOOR_USD)
    axes.axvline(crossing.requests, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    axes.plot(crossing.requests, y, "o", markersize=9, markerfacecolor=SURFACE, markeredgecolor=INK, zorder=5)
    axes.annotate(formatting.short_count(crossing.requests), (crossing.requests, y), (-7, 9 + 3 * (level % 2)),
                  textcoords="offset points", ha="right", fontsize=10, fontweight="bold", zorder=6)  # fmt: skip
