"""What the report's plots have in common: how a target is drawn, the legend, axes with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.report.plots.svg import COLOUR_COUNT, MUTED, SERIES_COLOURS, SURFACE, TARGET_GID

DASH_PATTERNS = (  # a second sign beside the colour
    *("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2))),
    (0, (9, 1.6, 1.2, 1.6, 1.2, 1.6)),
)
ENGINE_DASH_PATTERNS = ("-", (0, (4.5, 1.8)))  # where two targets have one colour, for they differ in the engine alone
ENGINE_ROWS = 1 + len(ENGINE_DASH_PATTERNS)
MARKERS = "osD^vPX*"
MARKER_SPACING = 0.13  # of the plot's diagonal
MAX_LEGEND_MARKER_PT = 7  # points; on the plot marks may be larger
MAX_LEGEND_LINE_PT = 2
MAX_LABEL_CHARS = 40  # of a title in a plot
MAX_LEGEND_CHARS = 116  # of all columns of a legend
LEGEND_LINE_CHARS = 8  # as wide as a line and the space around it
MIN_LOG_VALUE = 1e-6  # a logarithmic axis has no 0
MIN_TICKS = 4  # on a logarithmic axis, if there are so many
TICK_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.5).tolist()))


def assign_styles(names: Iterable[str], partner_of: Mapping[str, str]) -> dict[str, int]:
    """A number for every target: a colour of COLOURS, and in the row above it how its lines look.

    `partners` names those that run another engine than a target beside them: both have one colour, and the engines are
    told apart by solid and dashed lines, filled and hollow marks. Where there are none, every target has a dash of its
    own as a second sign.
    """
    names, styles = list(names), dict[str, int]()
    partner_of = {
        name: partner for name, partner in partner_of.items() if partner in names and partner not in partner_of
    }
    colour_indices = {
        name: colour_index for colour_index, name in enumerate(name for name in names if name not in partner_of)
    }
    for name in names:
        style_row = (2 if name in partner_of else 1) if partner_of else 0
        style = colour_indices[partner_of.get(name, name)] % COLOUR_COUNT + style_row * COLOUR_COUNT
        while style in styles.values():
            style += ENGINE_ROWS * COLOUR_COUNT
        styles[name] = style
    return styles


def engine_row(style: int) -> int:
    """0: no other target has this colour. 1: it runs the plain engine. 2: another one."""
    return style // COLOUR_COUNT % ENGINE_ROWS


def target_group_id(*styles: int) -> str:
    """The group of everything that is drawn of these targets, by which the page finds it."""
    return TARGET_GID + "-".join(map(str, styles))


def line_style(style: int, **overrides: Any) -> dict[str, Any]:
    """How the lines of a target look."""
    row_index, colour_index = engine_row(style), style % COLOUR_COUNT
    dash_pattern = (
        ENGINE_DASH_PATTERNS[row_index - 1] if row_index else DASH_PATTERNS[colour_index % len(DASH_PATTERNS)]
    )
    return {"color": SERIES_COLOURS[colour_index], "linestyle": dash_pattern, "gid": target_group_id(style)} | overrides


def line_markers(style: int) -> dict[str, Any]:
    """Marks along a line whose dash stands for the engine: the second sign of the target."""
    if not engine_row(style):
        return {}
    return {
        "marker": MARKERS[style % COLOUR_COUNT],
        "markevery": MARKER_SPACING,
        "markersize": 4.5,
        **marker_face(style),
    }


def marker_style(style: int) -> dict[str, Any]:
    """How the points of a target look."""
    colour_index = style % COLOUR_COUNT
    return {
        "color": SERIES_COLOURS[colour_index],
        "marker": MARKERS[colour_index],
        "linestyle": "",
        "gid": target_group_id(style),
        **marker_face(style),
    }


def marker_face(style: int) -> dict[str, Any]:
    """A mark's inside: none where it stands for another engine."""
    return {"markerfacecolor": SURFACE if engine_row(style) == 2 else SERIES_COLOURS[style % COLOUR_COUNT]}


def legend_label(title: str) -> str:
    """The title as a plot has room for it. matplotlib leaves out of legends what begins with an underscore."""
    short = title if len(title) <= MAX_LABEL_CHARS else title[: MAX_LABEL_CHARS - 1] + "…"
    return "\u200b" + short if short.startswith("_") else short


def add_legend(axes: Axes, columns: int = 4) -> None:
    """Above the plot, in so many columns, and one more for how the lines of another engine look."""
    handles, titles, group_ids = _legend_entries(axes)
    if not handles:
        return
    figure_legend = axes.figure.legend(
        handles, titles, loc="outside upper left", ncols=_fitting_columns(titles, columns + (None in group_ids)),
        borderaxespad=0,
        handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip
    for group_id, handle, text in zip(group_ids, figure_legend.legend_handles, figure_legend.get_texts(), strict=True):
        for artist in (handle, text):
            if artist is not None:
                artist.set_gid(group_id)
        if isinstance(handle, Line2D):
            handle.set_markersize(min(handle.get_markersize(), MAX_LEGEND_MARKER_PT))
            handle.set_linewidth(min(handle.get_linewidth(), MAX_LEGEND_LINE_PT))


def _fitting_columns(titles: Sequence[str], max_columns: int) -> int:
    """The largest number of columns, filled one after the other, that a legend of these titles has room for."""
    for columns in range(max_columns, 1, -1):
        rows = math.ceil(len(titles) / columns)
        widths = [max(map(len, titles[i : i + rows])) + LEGEND_LINE_CHARS for i in range(0, len(titles), rows)]
        if sum(widths) <= MAX_LEGEND_CHARS:
            return columns
    return 1


def _legend_entries(axes: Axes) -> tuple[list[Any], list[str], list[str | None]]:
    """Handle, title and group of every entry.

    Of two targets that differ in the engine alone, the plain one stands for both, and how the other's lines look is
    told once for all of them: eight long titles would leave no room for the plot.
    """
    handles, titles = axes.get_legend_handles_labels()
    entries: dict[str, tuple[Any, str | None]] = {}
    other_engines: dict[str, Any] = {}
    for handle, title in zip(handles, titles, strict=True):
        plain_title, group_id = title.partition(" (")[0], handle.get_gid()
        while title in entries:
            title += "\u200b"  # one of the same title
        if (
            group_id
            and _group_engine_row(group_id) == 2
            and plain_title in entries
            and _group_engine_row(entries[plain_title][1]) == 1
        ):
            entries[plain_title] = (
                entries[plain_title][0],
                f"{entries[plain_title][1]}-{group_id.removeprefix(TARGET_GID)}",
            )
            other_engines.setdefault(title.removeprefix(plain_title).strip(" ()"), handle)
        else:
            entries[title] = handle, group_id
    for title, handle in other_engines.items():
        entries[title] = (
            Line2D([], [], color=MUTED, linestyle=ENGINE_DASH_PATTERNS[1], linewidth=handle.get_linewidth()),
            None,
        )
    return [handle for handle, _ in entries.values()], list(entries), [group_id for _, group_id in entries.values()]


def _group_engine_row(group_id: str | None) -> int:
    """Of a group of a single target; 0 for others."""
    style_text = (group_id or "").removeprefix(TARGET_GID)
    return engine_row(int(style_text)) if style_text.isdigit() else 0


def set_log_axis(
    axes: Axes,
    values: Sequence[float],
    axis_name: Literal["x", "y"] = "x",
    *,
    padding: float = 1.05,
) -> None:
    """A logarithmic axis with 1, 2, 5, 10, ... as plain numbers; closer ones if the range is short.

    padding: the factor by which the axis extends beyond the values on either side.
    """
    low, high = max(MIN_LOG_VALUE, min(values)) / padding, max(MIN_LOG_VALUE, *values) * padding
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in TICK_STEPS:
        ticks = [tick for decade in decades for step in steps if low <= (tick := step * 10.0**decade) <= high]
        if len(ticks) >= MIN_TICKS:
            break
    axes.set(**{f"{axis_name}scale": "log", f"{axis_name}lim": (low, high)})
    axis = axes.xaxis if axis_name == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
