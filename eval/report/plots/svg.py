"""Matplotlib figures as SVG that belongs to a page: its colours, its font, its width.

Each plot comes out twice, wide and narrow; the style sheet shows the one that suits the screen. Colours leave as CSS
variables and text stays text, so that one SVG serves the light and the dark scheme. The same figures give the same
bytes.

What is drawn of a target is a group of its own, found by `data-target`: the numbers of its targets. Of a plot that can
be read, `data-read` says which place stands for which value.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Sizes = Mapping[str, tuple[float, float]]  # inches; a narrow one fills a phone of 390 px
SIZES: Sizes = {"wide": (10.0, 4.1), "narrow": (3.75, 3.9)}
SQUARE: Sizes = {"wide": (6.6, 4.6), "narrow": (3.75, 3.9)}
TARGET_GID, CURVE_GID = "target-", "curve-"  # begin the name of a target's group; of the line that is read off
POINTS_PER_INCH = 72  # an inch, in SVG as matplotlib writes it
COLOUR_COUNT = 8  # that the style sheet has; see plot_parts.numbers for who gets which

# Stand-ins that matplotlib can draw with; each leaves as a variable of the style sheet.
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


def render_svg(
    name: str,
    draw: Callable[[Axes, bool], None],
    label: str,
    sizes: Sizes = SIZES,
    axis_units: tuple[str, str] | None = None,
) -> Markup:
    """Draw a plot wide and narrow, as inline SVG with a text alternative.

    read: what the axes count (a key of UNITS in report.js, each), where the values of the lines can be read off.
    """
    return Markup("").join(
        _render_size(f"{name}-{width_class}", draw, label, size, width_class, axis_units)
        for width_class, size in sizes.items()
    )


def _render_size(
    name: str,
    draw: Callable[[Axes, bool], None],
    label: str,
    size: tuple[float, float],
    width_class: str,
    axis_units: tuple[str, str] | None,
) -> Markup:
    with mpl.rc_context({**RC_PARAMS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes, width_class == "narrow")
        if axis_units:
            _name_curves(axes)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return _inline_svg(
        buffer.getvalue(), name, label, width_class, _axis_scales(axes, size, axis_units) if axis_units else None
    )


def _name_curves(axes: Axes) -> None:
    """Those lines are read that the legend names."""
    for line in axes.get_lines():
        group_id = line.get_gid()
        if group_id and not str(line.get_label()).startswith("_"):
            line.set_gid(group_id.replace(TARGET_GID, CURVE_GID, 1))


def _axis_scales(axes: Axes, size: tuple[float, float], axis_units: tuple[str, str]) -> str:
    """Where the axes begin and end, in the drawing's points from its upper left, and which values stand there."""
    width, height = (inches * POINTS_PER_INCH for inches in size)
    plot_box = axes.get_position()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = _axis_scale(plot_box.x0 * width, plot_box.x1 * width, left, right, axes.get_xscale(), axis_units[0])
    y = _axis_scale(
        (1 - plot_box.y0) * height, (1 - plot_box.y1) * height, bottom, top, axes.get_yscale(), axis_units[1]
    )
    return json.dumps({"x": x, "y": y}, separators=(",", ":"))


def _axis_scale(start: float, end: float, low: float, high: float, scale_type: str, unit: str) -> dict[str, Any]:
    """From place to value; `low` and `high` are logarithms where `log` is true."""
    is_log = scale_type == "log"
    values = (math.log10(low), math.log10(high)) if is_log else (low, high)
    ends = dict(zip(("start", "end", "low", "high"), (round(v, 5) for v in (start, end, *values)), strict=True))
    return ends | {"log": is_log, "unit": unit}


def _inline_svg(svg: str, name: str, label: str, width_class: str, scales_json: str | None) -> Markup:
    """A stand-alone SVG file as an element of the page: own ids, the page's colours and font, no outside names."""
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
        f'<svg class="plot {width_class}" {view_box[0]}{scales_attribute} role="img" '
        f'aria-label="{escape(label)}">{children}'
    )


def _target_attribute(match: re.Match[str]) -> str:
    """The name of a target's group as an attribute: unlike a name, it may stand in many places."""
    curve_attribute = ' data-curve="1"' if match[1] == CURVE_GID else ""
    return f'data-target="{match[2].replace("-", " ")}"{curve_attribute}'
