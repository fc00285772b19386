"""The plot of the trend page: one figure of every target, run after run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eval.report.plots.style import MARKERS, entry, gid, legend, line_style
from eval.report.plots.svg import COLOURS, SERIES, SURFACE, render

APART = 0.06  # of the room between two runs: how far targets stand from one another, so that none hides another
LABELS, LABELS_NARROW = 7, 3  # runs that are named below the plot, at most


@dataclass(frozen=True)
class Point:
    """The figure of one run, with its interval where it has one."""

    place: int  # of the run, from 0
    value: float
    low: float | None
    high: float | None
    alike: bool  # the run can be held against the newest one


@dataclass(frozen=True)
class Series:
    """The figure of one target."""

    title: str
    colour: int
    points: Sequence[Point]


def trend(
    name: str, heading: str, series: Sequence[Series], labels: Sequence[str], axis: str, unit: Callable[[float], str]
) -> Markup:
    """A line through the runs that are alike; the others as hollow marks. `labels` name the runs."""

    def draw(axes: Axes, narrow: bool) -> None:
        for number, one in enumerate(series):
            _series(axes, one, APART * (number - (len(series) - 1) / 2))
        places = _spread(len(labels), LABELS_NARROW if narrow else LABELS)
        axes.set_xticks(places, [labels[place].replace(" ", "\n") for place in places])
        axes.set_xlim(-0.35, len(labels) - 0.65)
        axes.margins(y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: unit(y) if y >= 0 else ""))
        axes.set_ylabel(axis)
        legend(axes, narrow)

    last = ", ".join(f"{one.title} {unit(one.points[-1].value)}" for one in series)
    return render(f"trend-{name}", draw, f"{heading} of every target over {len(labels)} runs. Last known: {last}.")


def _series(axes: Axes, one: Series, aside: float) -> None:
    colour, marker, group = SERIES[one.colour % COLOURS], MARKERS[one.colour % COLOURS], gid(one.colour)
    alike = [point for point in one.points if point.alike]
    axes.plot([p.place + aside for p in alike], [p.value for p in alike], label=entry(one.title),
              **line_style(one.colour, linewidth=1.4))  # fmt: skip
    for point in one.points:
        x = point.place + aside
        if point.low is not None and point.high is not None:
            axes.plot([x, x], [point.low, point.high], color=colour, linewidth=3.5, alpha=0.35, gid=group)
        axes.plot(x, point.value, marker, markersize=6, markerfacecolor=colour if point.alike else SURFACE,
                  markeredgecolor=colour, zorder=3, gid=group)  # fmt: skip


def _spread(n: int, most: int) -> list[int]:
    """Evenly spread places, the last one among them."""
    step = -(-n // most)
    return sorted(range(n - 1, -1, -step))
