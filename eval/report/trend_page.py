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

from eval.analysis.comparability import common_targets, incompatibilities, models_by_target, processor_notices
from eval.analysis.findings import Finding
from eval.codes import ReasonCode, unavailable
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.cost.price_list import load_price_list
from eval.errors import EvalError
from eval.formatting import ms, percent, timestamp, usd, value_of
from eval.plan.config import MAX_RATE, SCENARIOS
from eval.report.plots.style import assign_styles
from eval.report.plots.trend import TrendPoint, TrendSeries, trend_plot
from eval.report.render import REPORT_HTML, template_environment
from eval.report.report_json import build_report, to_jsonable
from eval.report.tables import html_without_empty_columns
from eval.samples.model import Run
from eval.samples.processors import client_processor
from eval.samples.store import os_errors_as_eval_error, read_run, read_samples
from eval.validation import printable, write_files

TREND_HTML, TREND_JSON = "trend.html", "trend.json"
TREND_SCHEMA_VERSION = 2
METRICS = {  # key in trend.json -> heading, unit, and what its plot's axis says
    "p50_ms": ("Median latency", ms, "p50"),
    "p95_ms": ("95th percentile of latency", ms, "p95"),
    "accuracy": ("Accuracy", percent, "top-1 accuracy"),
    "usd_per_month": ("Cost", usd, "a month"),
}

Report = Mapping[str, Any]


@dataclass(frozen=True)
class TrendRun:
    """A run and what came of it."""

    folder: Path
    run: Run
    summary: Report
    model_versions: Mapping[str, str]  # target -> versions in its responses


def write_trend(folders: Sequence[Path], out_dir: Path | None = None) -> list[Path]:
    """Write trend.html and trend.json into `out_dir`, by default beside the first folder. Returns their paths."""
    runs = _load_runs(folders)
    out_dir = out_dir or folders[0].resolve().parent
    trend_report = build_trend_report(runs, out_dir)
    template = template_environment(escape_html=True).get_template("trend.html.j2")
    html = html_without_empty_columns(
        template.render({"trend": trend_report, "context": template_context(trend_report)})
    )
    contents = {
        TREND_HTML: html,
        TREND_JSON: json.dumps(trend_report, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n",
    }
    with os_errors_as_eval_error(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        write_files(out_dir, contents)
    return [out_dir / name for name in contents]


def _load_runs(folders: Sequence[Path]) -> list[TrendRun]:
    """By start time; a run that is named twice, as by a link, counts once."""
    runs_by_id: dict[str, TrendRun] = {}
    for folder in folders:
        run = read_run(folder)
        if run.id not in runs_by_id:
            samples = list(read_samples(folder, run))
            summary = build_report(run, samples, load_price_list(sha256=run.prices_sha256))
            runs_by_id[run.id] = TrendRun(folder.resolve(), run, summary, models_by_target(samples))
    if len(runs_by_id) < 2:
        raise EvalError(f"a trend needs two runs at least; {', '.join(map(str, folders))} is one")
    return sorted(runs_by_id.values(), key=lambda entry: (entry.run.started_at, entry.run.id))


def build_trend_report(runs: Sequence[TrendRun], out_dir: Path) -> dict[str, Any]:
    """The contents of trend.json, oldest run first. Links are relative to `out_dir`."""
    scenario = common_scenario(runs)
    newest = runs[-1]
    titles = {name: f["title"] for entry in runs for name, f in entry.summary["targets"].items()}
    order = dict.fromkeys([*newest.summary["targets"], *titles])
    return {
        "schema_version": TREND_SCHEMA_VERSION,
        "scenario": scenario,
        "requests_per_month": REQUESTS_PER_MONTH,
        "titles": {name: titles[name] for name in order},
        "order": list(order),
        "engine_pairs": {pair["b"]: pair["a"] for entry in runs for pair in entry.summary["engine_comparisons"]},
        "runs": [_run_report(entry, newest, scenario, out_dir.resolve()) for entry in runs],
    }


def common_scenario(runs: Sequence[TrendRun]) -> str:
    """The first that every run tried; where there is none, the newest run's first."""
    tried = [name for name in SCENARIOS if name != MAX_RATE and any(name in e.run.scenarios for e in runs)]
    common = [name for name in tried if all(name in e.run.scenarios for e in runs)]
    return next(iter([*common, *[name for name in tried if name in runs[-1].run.scenarios]]), SCENARIOS[0])


def _run_report(entry: TrendRun, newest: TrendRun, scenario: str, out_dir: Path) -> dict[str, Any]:
    report_html = entry.folder / REPORT_HTML
    return {
        "id": entry.run.id,
        "started_at": entry.run.started_at,
        "folder": _relative_path(entry.folder, out_dir),
        "report": quote(_relative_path(report_html, out_dir)) if report_html.exists() else None,
        "complete": entry.run.complete,
        "valid": entry.summary["verdict"]["valid"],
        "git_sha": entry.run.versions.get("git_sha"),
        "images": {
            "n": len(entry.run.image_manifest),
            "source": entry.run.images_source,
            "sha256": entry.run.images_sha256,
        },
        "prices": entry.summary["run"]["prices"]["date"],
        "processor": client_processor(entry.run).with_cores,
        "incompatibilities": to_jsonable(incompatible_with_newest(entry, newest, scenario)),
        "notices": [] if entry is newest else to_jsonable(processor_notices(entry.run, newest.run)),
        "targets": {
            name: _target_metrics(target_report, scenario) for name, target_report in entry.summary["targets"].items()
        },
    }


def _relative_path(path: Path, out_dir: Path) -> str:
    return printable(Path(os.path.relpath(path, out_dir)).as_posix())


def incompatible_with_newest(entry: TrendRun, newest: TrendRun, scenario: str) -> list[Finding]:
    """Why the run cannot be compared with the newest one, in the scenario and for the targets that both have."""
    names = common_targets(newest.run, entry.run)

    def restricted(run: Run) -> Run:
        targets = [t for t in run.targets if t.name in names] or run.targets
        return dataclasses.replace(run, targets=targets, scenarios=[scenario])

    return incompatibilities(restricted(entry.run), restricted(newest.run), entry.model_versions, newest.model_versions)


def _target_metrics(target_report: Report, scenario: str) -> dict[str, Any]:
    """One target in one run: each figure with its interval, or why there is none."""
    scenario_report = target_report["scenarios"].get(scenario)
    not_tested = to_jsonable(unavailable(ReasonCode.SCENARIO_NOT_RUN, scenario=scenario))
    bill = target_report["cost"]["monthly_usd"][str(REQUESTS_PER_MONTH)]
    cost = bill["net_usd"]
    if value_of(cost) is not None:
        cost = {"value": cost, "low": bill["net_low_usd"], "high": bill["net_high_usd"]}
    return {
        "p50_ms": scenario_report["latency_with_failures_ms"]["p50"] if scenario_report else not_tested,
        "p95_ms": scenario_report["latency_with_failures_ms"]["p95"] if scenario_report else not_tested,
        "accuracy": target_report["accuracy"],
        "usd_per_month": cost,
    }


def template_context(trend_report: Report) -> dict[str, Any]:
    """What the page draws beside the numbers."""
    colours = assign_styles(trend_report["order"], trend_report["engine_pairs"])
    return {
        "styles": colours,
        "filter_buttons": [(trend_report["titles"][name], [number], True) for name, number in colours.items()],
        "titles": trend_report["titles"],
        "plots": {key: plot for key in METRICS if (plot := _plot(key, trend_report, colours))},
        "headings": {key: heading for key, (heading, _, _) in METRICS.items()},
        "units": {key: unit for key, (_, unit, _) in METRICS.items()},
    }


def _plot(key: str, trend_report: Report, colours: Mapping[str, int]) -> Markup | None:
    series = []
    for name, colour in colours.items():
        points = []
        for index, run in enumerate(trend_report["runs"]):
            estimate: Report = run["targets"].get(name, {}).get(key) or {"value": None}
            if estimate["value"] is not None:
                compatible = not run["incompatibilities"]
                points.append(TrendPoint(index, estimate["value"], estimate["low"], estimate["high"], compatible))
        if points:
            series.append(TrendSeries(trend_report["titles"][name], colour, points))
    labels = [timestamp(run["started_at"]).removesuffix(" UTC") for run in trend_report["runs"]]
    heading, unit, axis = METRICS[key]
    return trend_plot(key, heading, series, labels, axis, unit) if series else None
