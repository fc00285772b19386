"""What the report's plots have in common: how a target is drawn, the legend, axes with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.report.plots.svg import COLOURS, MUTED, SERIES, SURFACE, TARGET_GID

DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))  # a second sign beside the colour
ENGINE_DASHES = ("-", (0, (4.5, 1.8)))  # where two targets have one colour, for they differ in the engine alone
ROWS = 1 + len(ENGINE_DASHES)
MARKERS = "osD^vPX*"
SIGN_EVERY = 0.13  # of the plot's diagonal
LEGEND_MARK = 7  # points; on the plot marks may be larger
TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.5).tolist()))


def numbers(names: Iterable[str], partners: Mapping[str, str]) -> dict[str, int]:
    """A number for every target: a colour of COLOURS, and in the row above it how its lines look.

    `partners` names those that run another engine than a target beside them: both have one colour, and the engines are
    told apart by solid and dashed lines, filled and hollow marks. Where there are none, every target has a dash of its
    own as a second sign.
    """
    names, found = list(names), dict[str, int]()
    partners = {name: plain for name, plain in partners.items() if plain in names and plain not in partners}
    hues = {name: hue for hue, name in enumerate(name for name in names if name not in partners)}
    for name in names:
        row = (2 if name in partners else 1) if partners else 0
        number = hues[partners.get(name, name)] % COLOURS + row * COLOURS
        while number in found.values():
            number += ROWS * COLOURS
        found[name] = number
    return found


def row_of(number: int) -> int:
    """0: no other target has this colour. 1: it runs the plain engine. 2: another one."""
    return number // COLOURS % ROWS


def gid(*targets: int) -> str:
    """The group of everything that is drawn of these targets, by which the page finds it."""
    return TARGET_GID + "-".join(map(str, targets))


def line_style(colour: int, **more: Any) -> dict[str, Any]:
    """How the lines of a target look."""
    row, hue = row_of(colour), colour % COLOURS
    dash = ENGINE_DASHES[row - 1] if row else DASHES[hue % len(DASHES)]
    return {"color": SERIES[hue], "linestyle": dash, "gid": gid(colour)} | more


def signs(colour: int) -> dict[str, Any]:
    """Marks along a line whose dash stands for the engine: the second sign of the target."""
    if not row_of(colour):
        return {}
    return {"marker": MARKERS[colour % COLOURS], "markevery": SIGN_EVERY, "markersize": 4.5, **face(colour)}


def marker_style(colour: int) -> dict[str, Any]:
    """How the points of a target look."""
    hue = colour % COLOURS
    return {"color": SERIES[hue], "marker": MARKERS[hue], "linestyle": "", "gid": gid(colour), **face(colour)}


def face(colour: int) -> dict[str, Any]:
    """A mark's inside: none where it stands for another engine."""
    return {"markerfacecolor": SURFACE if row_of(colour) == 2 else SERIES[colour % COLOURS]}


def entry(title: str) -> str:
    """The title as a legend takes it: matplotlib leaves out labels that begin with an underscore."""
    return "\u200b" + title if title.startswith("_") else title


def legend(axes: Axes, narrow: bool, columns: tuple[int, int] = (4, 2)) -> None:
    """Above the plot, on as many lines as the width asks for. `columns`: where it is wide, and narrow."""
    handles, titles, groups = _entries(axes)
    if not handles:
        return
    ncols = columns[narrow] + (not narrow and None in groups)  # a column more for how another engine's lines look
    made = axes.figure.legend(handles, titles, loc="outside upper left", ncols=ncols, borderaxespad=0,
                              fontsize=9 if narrow else 10, handlelength=2.4, columnspacing=1.2)  # fmt: skip
    for group, shown, text in zip(groups, made.legend_handles, made.get_texts(), strict=True):
        for part in (shown, text):
            if part is not None:
                part.set_gid(group)
        if isinstance(shown, Line2D):
            shown.set_markersize(min(shown.get_markersize(), LEGEND_MARK))


def _entries(axes: Axes) -> tuple[list[Any], list[str], list[str | None]]:
    """Handle, title and group of every entry.

    Of two targets that differ in the engine alone, the plain one stands for both, and how the other's lines look is
    told once for all of them: eight long titles would leave no room for the plot.
    """
    handles, titles = axes.get_legend_handles_labels()
    kept: dict[str, tuple[Any, str | None]] = {}
    others: dict[str, Any] = {}
    for handle, title in zip(handles, titles, strict=True):
        plain, group = title.partition(" (")[0], handle.get_gid()
        while title in kept:
            title += "\u200b"  # one of the same title
        if group and _row(group) == 2 and plain in kept and _row(kept[plain][1]) == 1:
            kept[plain] = kept[plain][0], f"{kept[plain][1]}-{group.removeprefix(TARGET_GID)}"
            others.setdefault(title.removeprefix(plain).strip(" ()"), handle)
        else:
            kept[title] = handle, group
    for title, handle in others.items():
        kept[title] = Line2D([], [], color=MUTED, linestyle=ENGINE_DASHES[1], linewidth=handle.get_linewidth()), None
    return [handle for handle, _ in kept.values()], list(kept), [group for _, group in kept.values()]


def _row(group: str | None) -> int:
    """Of a group of a single target; 0 for others."""
    number = (group or "").removeprefix(TARGET_GID)
    return row_of(int(number)) if number.isdigit() else 0


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
