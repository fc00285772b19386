"""Matplotlib figures as SVG that belongs to a page: its colours, its font, its width.

A plot scales with the page as far as its text stays readable; on a narrower screen it scrolls sideways in its box.
Colours are CSS variables and text stays text, so that one SVG serves the light and the dark scheme. The same figures
give the same bytes.

Everything drawn for a target is in groups with the attribute `data-target`: the style numbers of its targets.
`data-read` maps coordinates of the drawing to values of the axes, for plots whose curves can be read off.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH_INCHES = 7.7
SIZE, SQUARE = (WIDTH_INCHES, 3.8), (5.2, 4.1)  # inches: width and height of a drawing
TARGET_GID, CURVE_GID = "target-", "curve-"  # prefixes of group ids: of a target, and of a curve that can be read off
POINTS_PER_INCH = 72  # matplotlib's SVG unit is the point
COLOUR_COUNT = 8  # in the style sheet; plots.style.assign_styles says who gets which

# Placeholder colours that matplotlib can draw with; each is replaced by a variable of the style sheet.
INK, MUTED, GRID, SURFACE = "#010101", "#010102", "#010103", "#010104"
SERIES_COLOURS = tuple(f"#0201{i:02d}" for i in range(COLOUR_COUNT))
CSS_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"}
CSS_VARIABLES |= {colour: f"--t{i}" for i, colour in enumerate(SERIES_COLOURS)}

RC_PARAMS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}


def render_plot(
    name: str,
    draw: Callable[[Axes], None],
    label: str,
    size: tuple[float, float] = SIZE,
    axis_units: tuple[str, str] | None = None,
) -> Markup:
    """A plot of the page: the SVG of `render_svg` in a box that scrolls sideways if the screen is narrow."""
    svg = render_svg(name, draw, label, size, axis_units)
    title = escape(label.partition(".")[0])
    return Markup(f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{svg}</div>')


def render_svg(
    name: str,
    draw: Callable[[Axes], None],
    label: str,
    size: tuple[float, float] = SIZE,
    axis_units: tuple[str, str] | None = None,
) -> Markup:
    """Draw a plot as inline SVG with a text alternative.

    size: width and height in inches. axis_units: keys of UNITS in report.js, for plots whose curves can be read off.
    """
    with mpl.rc_context({**RC_PARAMS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # dozens of long names leave no room
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if axis_units:
            _name_curves(axes)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    scales_json = _axis_scales(axes, size, axis_units) if axis_units else None
    return _inline_svg(buffer.getvalue(), name, label, size, scales_json)


def _name_curves(axes: Axes) -> None:
    """Mark the lines that the legend names as curves that can be read off."""
    for line in axes.get_lines():
        group_id = line.get_gid()
        if group_id and not str(line.get_label()).startswith("_"):
            line.set_gid(group_id.replace(TARGET_GID, CURVE_GID, 1))


def _axis_scales(axes: Axes, size: tuple[float, float], axis_units: tuple[str, str]) -> str:
    """Where the axes start and end, in points from the drawing's upper left, and the values there, as JSON."""
    width, height = (inches * POINTS_PER_INCH for inches in size)
    plot_box = axes.get_position()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = _axis_scale(plot_box.x0 * width, plot_box.x1 * width, left, right, axes.get_xscale(), axis_units[0])
    y = _axis_scale(
        (1 - plot_box.y0) * height, (1 - plot_box.y1) * height, bottom, top, axes.get_yscale(), axis_units[1]
    )
    return json.dumps({"x": x, "y": y}, separators=(",", ":"))


def _axis_scale(start: float, end: float, low: float, high: float, scale_type: str, unit: str) -> dict[str, Any]:
    """Maps a coordinate to a value; `low` and `high` are logarithms if `log` is true."""
    is_log = scale_type == "log"
    values = (math.log10(low), math.log10(high)) if is_log else (low, high)
    ends = dict(zip(("start", "end", "low", "high"), (round(v, 5) for v in (start, end, *values)), strict=True))
    return ends | {"log": is_log, "unit": unit}


def _inline_svg(svg: str, name: str, label: str, size: tuple[float, float], scales_json: str | None) -> Markup:
    """Turn a stand-alone SVG file into an element of the page: unique ids, the page's colours and font."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(rf'\bid="({TARGET_GID}|{CURVE_GID})([\d-]+)"', _target_attribute, body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"#0[12]01\d\d", lambda match: f"var({CSS_VARIABLES[match[0]]})", body)
    body = re.sub(r"font-family:[^;\"]*;?\s*", "", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    view_box = re.search(r'viewBox="[^"]*"', body)
    assert view_box, "matplotlib wrote an SVG without a viewBox"
    children = body[body.index(">") + 1 :]
    scales_attribute = f' data-read="{escape(scales_json)}"' if scales_json else ""
    return Markup(
        f'<svg class="plot" style="--width:{size[0] * POINTS_PER_INCH:g}px" {view_box[0]}{scales_attribute} role="img" '
        f'aria-label="{escape(label)}">{children}'
    )


def _target_attribute(match: re.Match[str]) -> str:
    """Replace the id of a target's group by an attribute, which may occur more than once."""
    curve_attribute = ' data-curve="1"' if match[1] == CURVE_GID else ""
    return f'data-target="{match[2].replace("-", " ")}"{curve_attribute}'
