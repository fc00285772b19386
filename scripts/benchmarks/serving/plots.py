"""The plots of a run as SVG files that stand alone and read well on light and on dark pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from eval.report.plots.style import MARKERS, add_legend, line_style, set_log_axis
from eval.report.plots.svg import MUTED, POINTS_PER_INCH, render_svg
from scripts.benchmarks.serving.record import Record
from scripts.paths import ROOT

STYLE_SHEET = ROOT / "eval" / "report" / "templates" / "report.css"
SIZE = (8.4, 5.2)  # inches
Figure = Callable[[str, int], float | None]  # server, concurrency -> value


def write_plots(record: Record, folder: Path) -> None:
    """throughput.svg and latency.svg."""
    plots: dict[str, tuple[str, Figure, dict[str, float]]] = {
        "throughput": ("requests a second", record.rate_rps, _engine_rates(record)),
        "latency": ("median latency, ms", lambda server, c: record.latency_ms(server, c, "p50_ms"), {}),
    }
    for name, (label, figure, levels) in plots.items():
        if any(figure(server.name, c) for server in record.measured_servers() for c in record.concurrencies()):
            draw = partial(_draw, record=record, label=label, figure=figure, levels=levels)
            drawn = str(render_svg(name, draw, f"{label} over requests at once, by server", SIZE))
            (folder / f"{name}.svg").write_text(standalone_svg(drawn), encoding="utf-8")


def _engine_rates(record: Record) -> dict[str, float]:
    """Each engine's mean rate alone."""
    rates_rps: dict[str, list[float]] = {}
    for sample in record.engine_samples:
        rates_rps.setdefault(f"{sample.engine} alone", []).append(sample.batch_rps)
    return {name: sum(rates) / len(rates) for name, rates in rates_rps.items()}


def _draw(axes: Axes, *, record: Record, label: str, figure: Figure, levels: dict[str, float]) -> None:
    concurrencies, drawn = record.concurrencies(), list(levels.values())
    for number, server in enumerate(record.servers):
        points = [(c, value) for c in concurrencies if (value := figure(server.name, c))]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, label=server.title, marker=MARKERS[number % len(MARKERS)], **line_style(number))
            drawn += y
    for name, level in levels.items():
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.annotate(
            name, (concurrencies[-1], level), (0, 3), textcoords="offset points", ha="right", color=MUTED, fontsize=9
        )
    set_log_axis(axes, drawn, "y", padding=1.25)
    axes.set_xscale("log", base=4)
    axes.xaxis.set_major_locator(FixedLocator(concurrencies))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("requests at once")
    axes.set_ylabel(label)
    add_legend(axes, columns=2)


def standalone_svg(svg: str) -> str:
    """A plot of the report as a file of its own: the report's colours for light and dark, with a background."""
    light, dark = (_variables(text, svg) for text in STYLE_SHEET.read_text(encoding="utf-8").split("@media", 2)[:2])
    style = f"svg{{font-family:system-ui,sans-serif;{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    ground = '<rect width="100%" height="100%" rx="6" style="fill: var(--surface)"/>'
    width, height = (round(inches * POINTS_PER_INCH) for inches in SIZE)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head, rest = svg.replace("<svg ", f'<svg {names} width="{width}" height="{height}" ', 1).split(">", 1)
    return f"{head}><style>{style}</style>{ground}{rest}"


def _variables(style_sheet: str, svg: str) -> str:
    """The first definition of each colour that the plot uses, and of its background."""
    used = {"--surface", *re.findall(r"var\((--\w+)\)", svg)}
    colours: dict[str, str] = {}
    for name, colour in re.findall(r"(--\w+): (#[0-9a-f]{6})", style_sheet):
        if name in used:
            colours.setdefault(name, colour)
    return "".join(f"{name}:{colour};" for name, colour in sorted(colours.items()))
