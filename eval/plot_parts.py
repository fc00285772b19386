"""What the report's plots have in common: how a target is drawn, the legend, axes with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.plot_svg import COLOURS, SERIES, TARGET_GID

DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))  # a second sign beside the colour
MARKERS = "osD^vPX*"
LEGEND_MARK = 7  # points; on the plot marks may be larger
TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.5).tolist()))


def gid(*targets: int) -> str:
    """The group of everything that is drawn of these targets, by which the page finds it."""
    return TARGET_GID + "-".join(map(str, targets))


def line_style(colour: int, **more: Any) -> dict[str, Any]:
    """How the lines of a target look."""
    style = {"color": SERIES[colour % COLOURS], "linestyle": DASHES[colour % len(DASHES)], "gid": gid(colour)}
    return style | more


def marker_style(colour: int) -> dict[str, Any]:
    """How the points of a target look."""
    return {"color": SERIES[colour % COLOURS], "marker": MARKERS[colour % COLOURS], "linestyle": "", "gid": gid(colour)}


def entry(title: str) -> str:
    """The title as a legend takes it: matplotlib leaves out labels that begin with an underscore."""
    return "\u200b" + title if title.startswith("_") else title


def legend(axes: Axes, narrow: bool, columns: tuple[int, int] = (4, 2)) -> None:
    """Above the plot, on as many lines as the width asks for. `columns`: where it is wide, and narrow."""
    handles, titles = axes.get_legend_handles_labels()
    if not handles:
        return
    made = axes.figure.legend(handles, titles, loc="outside upper left", ncols=columns[narrow], borderaxespad=0,
                              fontsize=9 if narrow else 10, handlelength=2.4, columnspacing=1.2)  # fmt: skip
    for drawn, shown, text in zip(handles, made.legend_handles, made.get_texts(), strict=True):
        for part in (shown, text):
            if part is not None:
                part.set_gid(drawn.get_gid())
        if isinstance(shown, Line2D):
            shown.set_markersize(min(shown.get_markersize(), LEGEND_MARK))


def log_ticks(
    axes: Axes, values: Sequence[float], which: Literal["x", "y"] = "x", *, room: float = 1.05, least: int = 4
) -> None:
    """A logarithmic axis with 1, 2, 5, 10, ... as plain numbers; closer ones where the range is short.

    room: how much further than the values it reaches, as a factor on either side. least: numbers that it should have.
    """
    low, high = min(values) / room, max(values) * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in TICKS:
        ticks = [t for decade in decades for step in steps if low <= (t := step * 10.0**decade) <= high]
        if len(ticks) >= least:
            break
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
