"""Several runs to one page: how latency, accuracy and cost of every target moved from run to run.

Each run is read from its samples and priced by its own price list, so nothing on the page is newer than its run. A run
is *unlike* when something was different from the newest one (images, model, load, machine): its figures are shown, but
no line leads through them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from eval.analysis.comparability import common_targets, models, processor_notes, unlike
from eval.analysis.summary import summarise
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.cost.price_list import load_prices
from eval.errors import EvalError
from eval.formatting import moment, ms, percent, usd, value_of
from eval.plan.config import MAX_RATE, SCENARIOS
from eval.report.plots.style import numbers
from eval.report.plots.trend import Point, Series, trend
from eval.report.render import REPORT_HTML, environment
from eval.samples.model import Run
from eval.samples.processors import client_of
from eval.samples.store import read_run, read_samples, writing

TREND_HTML, TREND_JSON = "trend.html", "trend.json"
TREND_SCHEMA_VERSION = 1
FIGURES = {  # key in trend.json -> heading, unit, and what its plot's axis says
    "p50_ms": ("Median latency", ms, "p50"),
    "p95_ms": ("95th percentile of latency", ms, "p95"),
    "accuracy": ("Accuracy", percent, "top-1 accuracy"),
    "usd_per_month": ("Cost", usd, "a month"),
}

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """A run and what came of it."""

    folder: Path
    run: Run
    summary: Facts
    models: Mapping[str, str]  # target -> versions that answered


def write_trend(folders: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write trend.html and trend.json into `out`, by default beside the first folder. Gives their paths."""
    entries = _entries(folders)
    out = out or folders[0].resolve().parent
    facts = trend_json(entries, out)
    page = environment(escape_html=True).get_template("trend.html.j2").render({"trend": facts, "view": view(facts)})
    texts = {
        TREND_HTML: page,
        TREND_JSON: json.dumps(facts, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n",
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def _entries(folders: Sequence[Path]) -> list[Entry]:
    """By the time at which they began; a run that is named twice, as by a link, counts once."""
    found: dict[str, Entry] = {}
    for folder in folders:
        run = read_run(folder)
        if run.id not in found:
            samples = list(read_samples(folder))
            summary = summarise(run, samples, load_prices(sha256=run.prices_sha256))
            found[run.id] = Entry(folder.resolve(), run, summary, models(samples))
    if len(found) < 2:
        raise EvalError(f"a trend needs two runs at least; {', '.join(map(str, folders))} is one")
    return sorted(found.values(), key=lambda entry: (entry.run.started_at, entry.run.id))


def trend_json(entries: Sequence[Entry], out: Path) -> dict[str, Any]:
    """The contents of trend.json, oldest run first. Links are relative to `out`."""
    scenario = common_scenario(entries)
    newest = entries[-1]
    titles = {name: f["title"] for entry in entries for name, f in entry.summary["targets"].items()}
    order = dict.fromkeys([*newest.summary["targets"], *titles])
    return {
        "schema_version": TREND_SCHEMA_VERSION,
        "scenario": scenario,
        "requests_per_month": REQUESTS_PER_MONTH,
        "titles": {name: titles[name] for name in order},
        "order": list(order),
        "partners": {one["b"]: one["a"] for entry in entries for one in entry.summary["engines"]},
        "runs": [_run_json(entry, newest, scenario, out.resolve()) for entry in entries],
    }


def common_scenario(entries: Sequence[Entry]) -> str:
    """The first that every run tried; where there is none, the newest run's first."""
    tried = [name for name in SCENARIOS if name != MAX_RATE and any(name in e.run.scenarios for e in entries)]
    shared = [name for name in tried if all(name in e.run.scenarios for e in entries)]
    return next(iter([*shared, *[name for name in tried if name in entries[-1].run.scenarios]]), SCENARIOS[0])


def _run_json(entry: Entry, newest: Entry, scenario: str, out: Path) -> dict[str, Any]:
    report = entry.folder / REPORT_HTML
    return {
        "id": entry.run.id,
        "started_at": entry.run.started_at,
        "folder": _relative(entry.folder, out),
        "report": quote(_relative(report, out)) if report.exists() else None,
        "complete": entry.run.complete,
        "valid": entry.summary["verdict"]["valid"],
        "git_sha": entry.run.versions.get("git_sha"),
        "images": {"n": len(entry.run.images), "source": entry.run.images_source, "sha256": entry.run.images_sha256},
        "prices": entry.summary["run"]["prices"]["date"],
        "processor": client_of(entry.run).with_cores,
        "unlike": differences(entry, newest, scenario),
        "notes": [] if entry is newest else processor_notes(entry.run, newest.run),
        "targets": {name: _figures(facts, scenario) for name, facts in entry.summary["targets"].items()},
    }


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path, out)).as_posix()


def differences(entry: Entry, newest: Entry, scenario: str) -> list[str]:
    """Why the run cannot be held against the newest one, in the scenario and for the targets that both have."""
    names = common_targets(newest.run, entry.run)

    def alone(run: Run) -> Run:
        targets = [t for t in run.targets if t.name in names] or run.targets
        return dataclasses.replace(run, targets=targets, scenarios=[scenario])

    return unlike(alone(entry.run), alone(newest.run), entry.models, newest.models)


def _figures(facts: Facts, scenario: str) -> dict[str, Any]:
    """One target in one run: each figure with its interval, or why there is none."""
    of = facts["scenarios"].get(scenario)
    untried = {"value": None, "reason": f"scenario {scenario} was not tried"}
    bill = facts["cost"]["monthly_usd"][str(REQUESTS_PER_MONTH)]
    cost = bill["net"]
    if value_of(cost) is not None:
        cost = {"value": cost, "low": bill["net_low"], "high": bill["net_high"]}
    return {
        "p50_ms": of["latency_ms"]["p50"] if of else untried,
        "p95_ms": of["latency_ms"]["p95"] if of else untried,
        "accuracy": facts["accuracy"],
        "usd_per_month": cost,
    }


def view(facts: Facts) -> dict[str, Any]:
    """What the page draws beside the numbers."""
    colours = numbers(facts["order"], facts["partners"])
    return {
        "colours": colours,
        "titles": facts["titles"],
        "plots": {key: plot for key in FIGURES if (plot := _plot(key, facts, colours))},
        "headings": {key: heading for key, (heading, _, _) in FIGURES.items()},
        "units": {key: unit for key, (_, unit, _) in FIGURES.items()},
    }


def _plot(key: str, facts: Facts, colours: Mapping[str, int]) -> Markup | None:
    series = []
    for name, colour in colours.items():
        points = []
        for place, run in enumerate(facts["runs"]):
            found: Facts = run["targets"].get(name, {}).get(key) or {"value": None}
            if found["value"] is not None:
                points.append(Point(place, found["value"], found["low"], found["high"], not run["unlike"]))
        if points:
            series.append(Series(facts["titles"][name], colour, points))
    labels = [moment(run["started_at"]).removesuffix(" UTC") for run in facts["runs"]]
    heading, unit, axis = FIGURES[key]
    return trend(key, heading, series, labels, axis, unit) if series else None
