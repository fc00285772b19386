"""The plots of what a run tried beyond single requests: the search for the highest rate, the run's course in time,
and every target's cost against its latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Affine2D, Transform

from eval import formatting
from eval.report.plots.style import (
    MARKERS,
    add_legend,
    legend_label,
    line_style,
    marker_face,
    marker_style,
    set_log_axis,
    target_group_id,
)
from eval.report.plots.svg import COLOUR_COUNT, MUTED, SERIES_COLOURS, SURFACE, render_plot

LOG_SCALE_RATIO = 20.0  # times the smallest; from there on an axis is logarithmic
INFINITE_FACTOR = 1.6  # times the highest value on the plot, where a p95 without end is drawn
FAINT_ALPHA = 0.35
MARK_GAP_POINTS = 13.0  # between the middles of two marks, each of which is smaller
DODGE_OCTAVES = 0.3  # over which the marks of one rate are spread, on its logarithmic axis


@dataclass(frozen=True)
class RateStep:
    """One rate that was tried. Where too many failed, p95 or an end of its interval is None: it is endless."""

    rate_rps: float
    p95_ms: float | None
    low_ms: float | None
    high_ms: float | None
    passed: bool


@dataclass(frozen=True)
class RateSearch:
    """All rates that were tried on one target."""

    title: str
    style: int
    steps: Sequence[RateStep]  # by rate
    max_rps: float | None  # the highest that held


@dataclass(frozen=True)
class LatencyOverTime:
    """How long one target took while the run went on."""

    title: str
    style: int
    time_s: Sequence[float]  # since the run began: when each block did
    median_ms: Sequence[float]  # of each block


@dataclass(frozen=True)
class CostLatencyPoint:
    """What one target costs and how fast it is."""

    title: str
    style: int
    usd_per_month: tuple[float, float, float]  # a month: value, low, high
    p95_ms: tuple[float, float, float]


def rate_search(searches: Sequence[RateSearch], slo_ms: float) -> Markup:
    """p95 over the rate that was offered, with the objective."""
    bounds_ms = [bound for one in searches for s in one.steps for bound in (s.p95_ms, s.high_ms, s.low_ms) if bound]
    infinite_at_ms = max([slo_ms, *bounds_ms]) * INFINITE_FACTOR

    def draw(axes: Axes) -> None:
        for number, search in enumerate(searches):
            dodge = 2 ** (DODGE_OCTAVES * (number - (len(searches) - 1) / 2) / len(searches))
            _draw_rate_search(axes, search, infinite_at_ms, dodge)
        axes.axhline(slo_ms, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"objective: p95 within {formatting.ms(slo_ms)}",
            (0, slo_ms),
            (4, 5),
            color=MUTED,
            fontsize=9,
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            bbox={"facecolor": SURFACE, "edgecolor": "none", "pad": 1.5},
            zorder=4,
        )
        set_log_axis(
            axes,
            [step.rate_rps for search in searches for step in search.steps],
            padding=1.2,
        )
        set_log_axis(axes, [*bounds_ms, slo_ms, infinite_at_ms], "y", padding=1.15)
        axes.set_xlabel("offered requests per second, log scale")
        axes.set_ylabel("p95, ms, log scale")
        add_legend(axes)

    rate_texts = [f"{one.title} {formatting.per_second(one.max_rps)}" for one in searches if one.max_rps]
    label = (
        "95th percentile of latency over the offered rate, per target. Highest rates that held: "
        f"{_join_or_none(rate_texts)}."
    )
    return render_plot("rate", draw, label)


def _draw_rate_search(axes: Axes, search: RateSearch, infinite_at_ms: float, dodge: float) -> None:
    """Beside the marks of others at the same rate: `dodge` is a factor of the rate."""
    colour, marker = SERIES_COLOURS[search.style % COLOUR_COUNT], MARKERS[search.style % COLOUR_COUNT]
    rates, heights_ms = [s.rate_rps * dodge for s in search.steps], [s.p95_ms or infinite_at_ms for s in search.steps]
    axes.plot(rates, heights_ms, label=legend_label(search.title), **line_style(search.style, linewidth=1.2))
    for step, rate_rps, height_ms in zip(search.steps, rates, heights_ms, strict=True):
        interval_ms = [step.low_ms or height_ms, step.high_ms or infinite_at_ms]
        axes.plot(
            [rate_rps] * 2,
            interval_ms,
            color=colour,
            linewidth=4,
            alpha=FAINT_ALPHA,
            gid=target_group_id(search.style),
        )
        shape = "x" if step.p95_ms is None else marker
        face = colour if step.passed else "none"
        axes.plot(
            rate_rps,
            height_ms,
            shape,
            markersize=7,
            markerfacecolor=face,
            markeredgecolor=colour,
            zorder=3,
            gid=target_group_id(search.style),
        )
    if search.max_rps:
        axes.axvline(search.max_rps * dodge, **line_style(search.style, linewidth=0.9, alpha=0.7), zorder=1)


def latency_over_time(series: Sequence[LatencyOverTime], scenario: str) -> Markup:
    """The median of every block over the time of the run."""
    max_time_s = max((t for one in series for t in one.time_s), default=0.0)
    unit_s, unit = (1, "seconds") if max_time_s < 180 else (60, "minutes") if max_time_s < 3 * 3600 else (3600, "hours")

    def draw(axes: Axes) -> None:
        for target_series in series:
            times = [time_s / unit_s for time_s in target_series.time_s]
            axes.plot(
                times,
                target_series.median_ms,
                label=legend_label(target_series.title),
                **line_style(target_series.style, linewidth=1.6),
                marker=MARKERS[target_series.style % COLOUR_COUNT],
                markersize=4 if len(times) < 60 else 0,
                **marker_face(target_series.style),
            )
        medians = [median for target_series in series for median in target_series.median_ms if median > 0]
        set_log_axis(axes, medians, "y", padding=1.08)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axes.set_xlabel(f"{unit} since the run began")
        axes.set_ylabel("median of a block, ms, log scale")
        add_legend(axes)

    return render_plot(
        f"course-{scenario}", draw, f"Median latency of every block over the {unit} of the run, per target."
    )


def cost_latency(marks: Sequence[CostLatencyPoint], traffic: str, scenario_title: str) -> Markup:
    """p95 over the monthly cost."""

    def draw(axes: Axes) -> None:
        _set_cost_axis(axes, [bound for mark in marks for bound in mark.usd_per_month])
        p95_bounds = [bound for mark in marks for bound in mark.p95_ms]
        if max(p95_bounds) > LOG_SCALE_RATIO * min(p95_bounds):
            set_log_axis(axes, p95_bounds, "y", padding=1.2)
        else:
            axes.set_ylim(0, max(p95_bounds) * 1.15)
        places = axes.transData.transform([(mark.usd_per_month[0], mark.p95_ms[0]) for mark in marks])[:, 0]
        gap = MARK_GAP_POINTS * axes.figure.dpi / 72
        for mark, place, shown_at in zip(marks, places, spread(places.tolist(), gap), strict=True):
            _draw_mark(axes, mark, axes.transData + Affine2D().translate(shown_at - place, 0))
        axes.set_xlabel(f"$ a month at {traffic} requests")
        axes.set_ylabel(f"p95, ms, {scenario_title}")
        add_legend(axes, columns=2)

    mark_texts = "; ".join(
        f"{one.title} {formatting.usd(one.usd_per_month[0])}, {formatting.ms(one.p95_ms[0])}" for one in marks
    )
    return render_plot("pareto", draw, f"95th percentile of latency over cost a month, per target. {mark_texts}.")


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The places moved apart until no two are nearer than the gap; those of one crowd keep its middle."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    crowds: list[tuple[float, list[int]]] = []  # the middle of each, and whose places are in it
    for index in order:
        middle, members = places[index], [index]
        while crowds and middle - crowds[-1][0] < gap * (len(members) + len(crowds[-1][1])) / 2:
            _, before = crowds.pop()
            members = before + members
            middle = sum(places[member] for member in members) / len(members)
        crowds.append((middle, members))
    moved = list(places)
    for middle, members in crowds:
        for number, member in enumerate(members):
            moved[member] = middle + gap * (number - (len(members) - 1) / 2)
    return moved


def _draw_mark(axes: Axes, mark: CostLatencyPoint, transform: Transform) -> None:
    """A mark with the bounds of both its figures."""
    (usd, *usd_bounds), (p95, *p95_bounds) = mark.usd_per_month, mark.p95_ms
    bounds_style: dict[str, Any] = {
        "color": SERIES_COLOURS[mark.style % COLOUR_COUNT],
        "linewidth": 2,
        "alpha": 0.6,
        "gid": target_group_id(mark.style),
        "transform": transform,
    }
    axes.plot(usd_bounds, [p95, p95], **bounds_style)
    axes.plot([usd, usd], p95_bounds, **bounds_style)
    mark_style = marker_style(mark.style) | {"markersize": 8, "zorder": 3, "transform": transform}
    axes.plot(usd, p95, label=legend_label(mark.title), **mark_style)


def _set_cost_axis(axes: Axes, amounts: Sequence[float]) -> None:
    min_usd = min(amounts)
    if min_usd > 0 and max(amounts) > LOG_SCALE_RATIO * min_usd:
        set_log_axis(axes, amounts, padding=1.3)
    else:
        padding = max(amounts) * 0.08 or 1.0
        axes.set_xlim(-padding, max(amounts) + padding)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda usd, _: "" if usd < 0 else f"${usd:,g}"))


def _join_or_none(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "none"
