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
from eval.cost.billing import SECONDS_PER_MONTH
from eval.report.plots.style import (
    add_legend,
    legend_label,
    line_markers,
    line_style,
    set_log_axis,
    target_group_id,
)
from eval.report.plots.svg import COLOUR_COUNT, INK, MUTED, SERIES_COLOURS, SQUARE, SURFACE, render_plot

MAX_ECDF_POINTS = 400  # of a distribution that are drawn; more cannot be seen
PERCENT_TICKS = (0, 10, 25, 50, 75, 90, 100)
MIN_SHOWN_USD = 0.1  # what is cheaper is drawn here: a logarithmic axis has no zero
LINE_PT, EDGE_PT = 2, 3  # of a line, and what it is wider for each target whose line lies on it: both are seen
SAME_COST = 0.03  # relative difference that can't be seen


@dataclass(frozen=True)
class LatencySeries:
    """What one target's requests took."""

    title: str
    style: int
    latencies_ms: Sequence[float]  # of the answered requests
    requests_sent: int  # failures included: they never arrive, so the curve ends below 100%


@dataclass(frozen=True)
class CostCurve:
    """What one target costs a month."""

    title: str
    style: int
    monthly_requests: Sequence[float]  # a month, ascending
    net_usd: Sequence[float]  # after the free tier
    gross_usd: Sequence[float]  # at list price
    servable_points: int | None = None  # points from the left that its instances can serve; None: all
    net_range_usd: tuple[Sequence[float], Sequence[float]] | None = None  # where a billing rule is not documented


@dataclass(frozen=True)
class CostCrossing:
    """A traffic at which the cheapest target changes."""

    monthly_requests: float
    usd: float


@dataclass(frozen=True)
class ReliabilityCurve:
    """How sure a target was, and how often it was right when that sure."""

    title: str
    style: int
    confidence: Sequence[float] = field(default_factory=tuple)  # mean of each bin
    accuracy: Sequence[float] = field(default_factory=tuple)
    counts: Sequence[int] = field(default_factory=tuple)
    target_styles: Sequence[int] = field(
        default_factory=tuple
    )  # colours of all that the line stands for; none: its own


def latency_ecdf(series: Sequence[LatencySeries], scenario: str) -> Markup:
    """The share of requests answered within a time."""

    def draw(axes: Axes) -> None:
        for target_series in series:
            sorted_ms = np.sort(np.asarray(target_series.latencies_ms, dtype=float))
            ranks = np.unique(np.linspace(0, len(sorted_ms) - 1, min(len(sorted_ms), MAX_ECDF_POINTS)).astype(int))
            percents = (ranks + 1) / target_series.requests_sent * 100
            axes.step(
                sorted_ms[ranks],
                percents,
                where="post",
                label=legend_label(target_series.title),
                **line_style(target_series.style),
                **line_markers(target_series.style),
            )
        set_log_axis(
            axes,
            [t for target_series in series for t in (min(target_series.latencies_ms), max(target_series.latencies_ms))],
        )
        axes.set_ylim(0, 101)
        axes.yaxis.set_major_locator(FixedLocator(PERCENT_TICKS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f}%"))
        axes.set_xlabel("milliseconds from the scheduled time, log scale")
        add_legend(axes)

    series = [one for one in series if one.latencies_ms]
    medians = ", ".join(f"{one.title} {formatting.ms(float(np.median(one.latencies_ms)))}" for one in series)
    label = f"Share of requests answered within a time, per target. Medians: {medians}."
    return render_plot(f"latency-{scenario}", draw, label, axis_units=("ms", "percent"))


def cost_curves(curves: Sequence[CostCurve], crossings: Sequence[CostCrossing]) -> Markup:
    """Dollars a month over requests a month, both on log axes."""

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(curves):
            gross, net = (np.maximum(amounts, MIN_SHOWN_USD) for amounts in (curve.gross_usd, curve.net_usd))
            servable = len(curve.monthly_requests) if curve.servable_points is None else curve.servable_points
            if curve.net_range_usd is not None:
                low, high = (np.maximum(amounts, MIN_SHOWN_USD) for amounts in curve.net_range_usd)
                colour = line_style(curve.style)["color"]
                axes.fill_between(curve.monthly_requests, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(curve.monthly_requests, gross, **{**line_style(curve.style), "linewidth": 1, "linestyle": ":"})
            axes.plot(curve.monthly_requests, net, **{**line_style(curve.style), "linewidth": 1, "alpha": 0.45})
            hiding = {later.style % COLOUR_COUNT for later in curves[index + 1 :] if _cost_the_same(curve, later)}
            axes.plot(
                curve.monthly_requests[:servable],
                net[:servable],
                label=legend_label(curve.title),
                **line_style(curve.style, linewidth=LINE_PT + EDGE_PT * len(hiding)),
                **line_markers(curve.style),
            )
        for index, crossing in enumerate(crossings):
            _mark_crossing(axes, crossing, index)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(
            min(curve.monthly_requests[0] for curve in curves), max(curve.monthly_requests[-1] for curve in curves)
        )
        axes.set_ylim(bottom=MIN_SHOWN_USD * 0.8)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: formatting.short_count(x)))
        axes.yaxis.set_major_formatter(FuncFormatter(_cost_tick))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("requests a month, log scale")
        axes.set_ylabel("$ a month, log scale")
        per_second = (lambda n: np.divide(n, SECONDS_PER_MONTH), lambda rps: np.multiply(rps, SECONDS_PER_MONTH))
        rate_axis = axes.secondary_xaxis("top", functions=per_second)
        rate_axis.xaxis.set_major_formatter(FuncFormatter(lambda rps, _: f"{rps:,.7g}/s"))
        rate_axis.xaxis.set_minor_locator(NullLocator())
        add_legend(axes)

    crossing_text = ", ".join(formatting.short_count(crossing.monthly_requests) for crossing in crossings) or "none"
    return render_plot(
        "cost",
        draw,
        f"Monthly cost over monthly requests, per target. The cheapest changes at: {crossing_text}.",
        axis_units=("requests", "usd"),
    )


def reliability_diagram(curves: Sequence[ReliabilityCurve]) -> Markup:
    """How often an answer of a given confidence was right."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.annotate("as sure as right", (30, 30), (34, 22), color=MUTED, fontsize=9)
        for curve in curves:
            sizes = 12 + 150 * np.sqrt(np.asarray(curve.counts) / max(1, sum(curve.counts)))
            x, y = (np.asarray(values) * 100 for values in (curve.confidence, curve.accuracy))
            group_id: dict[str, Any] = {"gid": target_group_id(*(curve.target_styles or (curve.style,)))}
            axes.plot(x, y, label=legend_label(curve.title), **line_style(curve.style) | group_id)
            axes.scatter(
                x,
                y,
                s=sizes,
                facecolors="none",  # so that none hides another
                edgecolors=SERIES_COLOURS[curve.style % COLOUR_COUNT],
                zorder=3,
                **group_id,
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
        axes.set_xlim(0, 103)
        axes.set_ylim(0, 103)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share that was right")
        add_legend(axes)

    total = sum(curves[0].counts) if curves else 0
    label = f"Share of right answers by the probability given, {formatting.count(total)} answers."
    return render_plot("calibration", draw, label, SQUARE)


def _cost_tick(usd: float, _: int) -> str:
    if usd <= MIN_SHOWN_USD:
        return f"≤ ${MIN_SHOWN_USD:.2f}"
    return f"${usd:,.0f}" if usd >= 1 else f"${usd:.2f}"


def _cost_the_same(a: CostCurve, b: CostCurve) -> bool:
    """Whether b's line, drawn later in another colour, would hide all of a's."""
    if a.style % COLOUR_COUNT == b.style % COLOUR_COUNT or len(a.net_usd) != len(b.net_usd):
        return False
    a_usd, b_usd = (np.maximum(curve.net_usd, MIN_SHOWN_USD) for curve in (a, b))
    return float(np.mean(np.abs(np.log(a_usd / b_usd)) < SAME_COST)) > 0.5


def _mark_crossing(axes: Axes, crossing: CostCrossing, index: int) -> None:
    """A ring where the cheapest changes, and its traffic above all lines."""
    y = max(crossing.usd, MIN_SHOWN_USD)
    axes.axvline(crossing.monthly_requests, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    axes.plot(crossing.monthly_requests, y, "o", markersize=9, markerfacecolor=SURFACE, markeredgecolor=INK, zorder=5)
    axes.annotate(
        formatting.short_count(crossing.monthly_requests),
        (crossing.monthly_requests, 1),
        (-5, -6 - 14 * (index % 3)),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=10,
        fontweight="bold",
        zorder=6,
    )
