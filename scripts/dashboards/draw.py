"""Draw a dashboard from a running Prometheus as one SVG: Grafana's panels and queries, in a plain drawing of our own.

    python -m scripts.dashboards.draw cloudtrial-drift --minutes 10 --out drift.svg
    python -m scripts.dashboards.draw cloudtrial-service --prometheus http://127.0.0.1:9091 --out service.svg

`./cloudtrial watch --local` starts a Prometheus. This is no picture of Grafana, which draws the same files its own way.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.formatting import short
from scripts.paths import ROOT

DASHBOARDS = ROOT / "ops" / "grafana" / "dashboards"
POINTS = 60  # of each line
TIMEOUT_S = 30
MAX_LINES = 12  # of a panel that are drawn, and of them in its legend
MAX_LEGEND = 6
WIDTH_INCHES = 16
ROW_INCHES = 0.36  # a unit of the height of Grafana's grid
HEAD_INCHES = 0.6
STATE_COLOURS = {"firing": "#e8939a", "pending": "#f3d9a4"}
RC_PARAMS: Any = {"svg.fonttype": "none", "svg.hashsalt": "dashboard", "font.size": 7, "text.parse_math": False,
                  "font.sans-serif": ["DejaVu Sans"], "xtick.major.size": 0, "ytick.major.size": 0}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    at_s: tuple[float, ...]  # before now: -600 to 0
    values: tuple[float, ...]


def substitute(expression: str, span_s: float, step_s: float) -> str:
    """The expression with what Grafana puts in place of its variables, all deployments and versions chosen."""
    rate_s = max(4 * 15, 4 * step_s)  # as Grafana: four scrape intervals at least
    chosen = {"$job": ".+", "$version": ".+", "$__rate_interval": f"{rate_s:.0f}s", "$__range": f"{span_s:.0f}s"}
    for variable, value in chosen.items():
        expression = expression.replace(variable, value)
    return expression


def legend(template: str, labels: Mapping[str, str]) -> str:
    """`{{job}} p95` with the label's value; a version by its first six characters."""
    short = {name: value[:6] if name == "version" else value for name, value in labels.items()}
    return " ".join(re.sub(r"{{(\w+)}}", lambda match: short.get(match[1], ""), template).split())


def format_value(value: float, unit: str) -> str:
    """A number with its unit, as people read it."""
    if not math.isfinite(value):
        return "n/a"
    match unit:
        case "s":
            return f"{short(value)} s" if value >= 1 else f"{short(value * 1000)} ms"
        case "percentunit":
            return short(value) if value > 1 else f"{short(value * 100)}%"
        case "bytes":
            return f"{short(value / 2**20, 4)} MiB"
        case "currencyUSD":
            return f"${short(value)}"
        case "reqps" | "ops":
            return f"{short(value)}/s"
    return f"{value:,.0f}" if value >= 1000 else short(value)


def ask(prometheus: str, expression: str, now_s: float, span_s: float) -> list[dict[str, Any]]:
    """The series of a range of time. Raises OSError where Prometheus does not answer."""
    step_s = span_s / POINTS
    query = {"query": substitute(expression, span_s, step_s), "start": now_s - span_s, "end": now_s, "step": step_s}
    url = f"{prometheus.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return json.load(answer)["data"]["result"]


def lines_of(panel: Mapping[str, Any], prometheus: str, now_s: float, span_s: float) -> list[Line]:
    """Every series of a panel."""
    found = []
    for target in panel["targets"]:
        for series in ask(prometheus, target["expr"], now_s, span_s):
            at, values = zip(*((float(t) - now_s, float(v)) for t, v in series["values"]), strict=True)
            found.append(Line(legend(target["legendFormat"], series["metric"]), at, values))
    return found


def draw(page: Mapping[str, Any], prometheus: str, span_s: float, out: Path) -> None:
    """Write the SVG. Raises OSError."""
    import matplotlib as mpl  # here, as help needs none of it
    from matplotlib.figure import Figure

    now_s, panels = time.time(), page["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * ROW_INCHES + HEAD_INCHES
    with mpl.rc_context(RC_PARAMS):
        figure = Figure(figsize=(WIDTH_INCHES, height), facecolor="white")
        title = f"{page['title']}: the last {span_s / 60:g} minutes"
        figure.text(0.01, 1 - 0.25 / height, title, size=12, weight="bold", va="center")
        for number, panel in enumerate(panels, 1):
            print(f"\r{number}/{len(panels)} {panel['title']:<40.40}", end="", file=sys.stderr, flush=True)
            place = panel["gridPos"]
            top = 1 - (place["y"] * ROW_INCHES + HEAD_INCHES) / height
            if panel["type"] == "row":
                figure.text(0.01, top, panel["title"], size=9.5, weight="bold", va="center")
                continue
            bottom = top - (place["h"] * ROW_INCHES - 0.75) / height  # below it the legend
            box = (place["x"] / 24 + 0.035, bottom, place["w"] / 24 - 0.05, top - 0.35 / height - bottom)
            _draw_panel(figure.add_axes(box), panel, lines_of(panel, prometheus, now_s, span_s), span_s)
        print(file=sys.stderr)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    out.write_text(_compact(text.getvalue()), encoding="utf-8")


def _compact(svg: str) -> str:
    """The SVG with the coordinates of its paths to a hundredth of a point, and without indents: half the size."""
    svg = re.sub(r"^ +", "", svg.replace("font-family: 'DejaVu Sans'", "font-family: sans-serif"), flags=re.MULTILINE)
    return re.sub(r"(?<=[ \"ML])-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", svg)


def _draw_panel(axes: Any, panel: Mapping[str, Any], lines: Sequence[Line], span_s: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    axes.set_title(panel["title"], size=8, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if not lines or panel["type"] == "stat":
        axes.axis("off")
        texts = [f"{format_value(line.values[-1], unit)}  {line.name}" for line in lines[:MAX_LEGEND]]
        for i, text in enumerate(texts or ["no data"]):
            axes.text(0, 0.85 - i * 0.17, text, size=9, color="black" if lines else "grey", transform=axes.transAxes)
        return
    axes.set_xlim(-span_s / 60, 0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.tick_params(labelsize=6)
    axes.grid(color="#e4e4e4", linewidth=0.5)
    if panel["type"] == "state-timeline":
        _draw_states(axes, lines, span_s)
        return
    chosen = sorted(lines, key=lambda line: line.values[-1])[-MAX_LINES:]
    for line in sorted(chosen, key=lambda line: line.name):
        style = "--" if line.name.endswith(("limit", "reference")) else "-"
        axes.plot([at / 60 for at in line.at_s], line.values, style, linewidth=1.1, label=line.name)
    for step in defaults["thresholds"]["steps"][1:]:
        axes.axhline(step["value"], color="red", linestyle=":", linewidth=0.8)
    highest = max((value for line in chosen for value in line.values if math.isfinite(value)), default=0)
    axes.set_ylim(bottom=0, top=defaults.get("max") or 1.05 * highest or 1)
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, unit))
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[:MAX_LEGEND], names[:MAX_LEGEND], loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3,
                frameon=False, fontsize=5.5, borderpad=0, handlelength=1.4, columnspacing=1)  # fmt: skip


def _draw_states(axes: Any, lines: Sequence[Line], span_s: float) -> None:
    """A bar for as long as a series is above 0."""
    names = sorted({line.name for line in lines}, reverse=True)
    step_min = span_s / POINTS / 60
    for line in lines:
        bars = [(at / 60 - step_min, step_min) for at, value in zip(line.at_s, line.values, strict=True) if value > 0]
        colour = STATE_COLOURS.get(line.name.split()[-1], "grey")
        axes.broken_barh(bars, (names.index(line.name) - 0.3, 0.6), color=colour)
    axes.set_yticks(range(len(names)), names, size=5.5)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", direction="in", pad=-4)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")


def main(argv: list[str] | None = None) -> int:
    """0, or 1 where Prometheus does not answer."""
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboards.draw", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
    parser.add_argument("dashboard", choices=names)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=60, help="how far back (default: 60)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG to write")
    options = parser.parse_args(argv)
    page = json.loads((DASHBOARDS / f"{options.dashboard}.json").read_text(encoding="utf-8"))
    try:
        draw(page, options.prometheus, options.minutes * 60, options.out)
    except OSError as error:
        print(f"\n{options.prometheus}: {error}; ./cloudtrial watch --local starts a Prometheus", file=sys.stderr)
        return 1
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
