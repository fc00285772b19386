"""Matplotlib figures as SVG that belongs to a page: its colours, its font, its width.

Each plot comes out twice, wide and narrow; the style sheet shows the one that suits the screen. Colours leave as CSS
variables and text stays text, so that one SVG serves the light and the dark scheme. The same figures give the same
bytes.
"""

from __future__ import annotations

import io
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
COLOURS = 8  # targets with a colour of their own; the style sheet has as many

# Stand-ins that matplotlib can draw with; each leaves as a variable of the style sheet.
INK, MUTED, GRID, SURFACE = "#010101", "#010102", "#010103", "#010104"
SERIES = tuple(f"#0201{i:02d}" for i in range(COLOURS))
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"}
VARIABLES |= {colour: f"--t{i}" for i, colour in enumerate(SERIES)}

STYLE: dict[Any, Any] = {
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


def render(name: str, draw: Callable[[Axes, bool], None], label: str, sizes: Sizes = SIZES) -> Markup:
    """Draw a plot wide and narrow, as inline SVG with a text alternative."""
    return Markup("").join(_svg(f"{name}-{kind}", draw, label, size, kind) for kind, size in sizes.items())


def _svg(name: str, draw: Callable[[Axes, bool], None], label: str, size: tuple[float, float], kind: str) -> Markup:
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), kind == "narrow")
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue(), name, label, kind)


def _inline(svg: str, name: str, label: str, kind: str) -> Markup:
    """A stand-alone SVG file as an element of the page: own ids, the page's colours and font, no outside names."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"#0[12]01\d\d", lambda found: f"var({VARIABLES[found[0]]})", body)
    body = re.sub(r"font-family:[^;\"]*;?\s*", "", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    view_box = re.search(r'viewBox="[^"]*"', body)
    assert view_box, "matplotlib wrote an SVG without a viewBox"
    rest = body[body.index(">") + 1 :]
    return Markup(f'<svg class="plot {kind}" {view_box[0]} role="img" aria-label="{escape(label)}">{rest}')
