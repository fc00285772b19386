"""The plot of the trend page: one figure of every target, run after run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eval.report.plots.style import MARKERS, add_legend, legend_label, line_style, target_group_id
from eval.report.plots.svg import COLOUR_COUNT, SERIES_COLOURS, SURFACE, render_plot

TARGET_OFFSET = 0.06  # of the room between two runs: how far targets stand from one another, so that none hides another
MAX_LABELS = 6  # runs that are named below the plot


@dataclass(frozen=True)
class TrendPoint:
    """The figure of one run, with its interval where it has one."""

    run_index: int  # of the run, from 0
    value: float
    low: float | None
    high: float | None
    comparable: bool  # the run can be held against the newest one


@dataclass(frozen=True)
class TrendSeries:
    """The figure of one target."""

    title: str
    style: int
    points: Sequence[TrendPoint]


def trend_plot(
    name: str,
    heading: str,
    series: Sequence[TrendSeries],
    labels: Sequence[str],
    axis: str,
    formatter: Callable[[float], str],
) -> Markup:
    """A line through the runs that are alike; the others as hollow marks. `labels` name the runs."""

    def draw(axes: Axes) -> None:
        for index, target_series in enumerate(series):
            _draw_series(axes, target_series, TARGET_OFFSET * (index - (len(series) - 1) / 2))
        label_indices = _spread_indices(len(labels), MAX_LABELS)
        axes.set_xticks(label_indices, [labels[label_index].replace(" ", "\n") for label_index in label_indices])
        axes.set_xlim(-0.35, len(labels) - 0.65)
        axes.margins(y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: formatter(y) if y >= 0 else ""))
        axes.set_ylabel(axis)
        add_legend(axes)

    last_values = ", ".join(f"{one.title} {formatter(one.points[-1].value)}" for one in series)
    return render_plot(
        f"trend-{name}", draw, f"{heading} of every target over {len(labels)} runs. Last known: {last_values}."
    )


def _draw_series(axes: Axes, target_series: TrendSeries, offset: float) -> None:
    colour, marker, group_id = (
        SERIES_COLOURS[target_series.style % COLOUR_COUNT],
        MARKERS[target_series.style % COLOUR_COUNT],
        target_group_id(target_series.style),
    )
    comparable = [point for point in target_series.points if point.comparable]
    axes.plot(
        [p.run_index + offset for p in comparable],
        [p.value for p in comparable],
        label=legend_label(target_series.title),
        **line_style(target_series.style, linewidth=1.4),
    )
    for point in target_series.points:
        x = point.run_index + offset
        if point.low is not None and point.high is not None:
            axes.plot([x, x], [point.low, point.high], color=colour, linewidth=3.5, alpha=0.35, gid=group_id)
        axes.plot(
            x,
            point.value,
            marker,
            markersize=6,
            markerfacecolor=colour if point.comparable else SURFACE,
            markeredgecolor=colour,
            zorder=3,
            gid=group_id,
        )


def _spread_indices(count: int, max_count: int) -> list[int]:
    """Evenly spread places, the last one among them."""
    step = -(-count // max_count)
    return sorted(range(count - 1, -1, -step))
