"""What the report's templates need beside the summary: plots, groups of targets, wrong predictions, latency parts.

Pure: from a run, its samples and its report to plain records.
"""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from eval.analysis.latency import normal_load
from eval.formatting import value_of
from eval.plan.config import BASELINE_RTT, MAX_RATE
from eval.report import figures, scenario_sections
from eval.report.answer_groups import AgreementRow, AnswerGroup, agreement_rows, answer_groups
from eval.report.engine_table import EngineRow, engine_rows, engines_compared, group_titles, split_break_evens
from eval.report.plots.style import assign_styles
from eval.report.scenario_sections import SHORT_TITLES, CacheCheck, ColdStartBar, ScenarioSection
from eval.samples.columns import Samples
from eval.samples.model import REFERENCE, Run, Sample
from eval.samples.processors import client_processor, target_processor
from eval.samples.rounds import split_after_pause
from eval.targets.engines import REFERENCE_ENGINE
from service.engines.names import engine_title

MAX_MISCLASSIFICATIONS = 12
MAX_DRAWN_TARGETS = 12  # in a plot; of more, the fastest are drawn
SERVER_PARTS = ("decode", "queue", "inference")
LATE_SEND = "lateness"  # the part of open loops alone
LATENCY_PARTS = (  # of a request's time, in the order in which it is spent
    (LATE_SEND, "late send"),
    ("decode", "decode"),
    ("queue", "queue"),
    ("inference", "inference"),
    ("server", "rest of the service"),
    ("outside", "server, proxy, network"),
)
IMAGE_SIGNATURES = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"RIFF", "webp"))

SummaryReport = Mapping[str, Any]
ImageReader = Callable[[int], bytes | None]


@dataclass(frozen=True)
class WrongPrediction:
    """A wrong label and the targets that predicted it."""

    label: str
    max_probability: float | None  # the largest among those who gave it
    titles: list[str]


@dataclass(frozen=True)
class Misclassification:
    """An image that at least one target predicted wrongly."""

    image_index: int
    image_name: str
    true_label: str
    predictions: list[WrongPrediction]
    image_uri: str | None  # data URI


@dataclass(frozen=True)
class ReportContext:
    """Everything the templates draw that is not in the summary."""

    drawn_targets: list[str]  # in the plots
    many_targets: bool  # more than the plots draw
    styles: dict[str, int]  # target -> its number, of which colour and lines follow
    scenario: str  # of every latency in the results; empty where nothing was answered
    scenario_title: str  # in lower case
    scenarios: list[ScenarioSection]  # the scenarios that were tried, in their order
    latency_plots: dict[str, Markup]  # by scenario
    rate_plot: Markup | None
    latency_over_time_plots: dict[str, Markup]  # by scenario
    pareto_plot: Markup | None
    cost_plot: Markup | None
    calibration_plot: Markup | None
    latency_breakdown: dict[str, dict[str, float]]  # target -> part -> mean ms
    after_pause: dict[str, dict[str, Mapping[str, Any]]]  # scenario -> target -> median of first requests after a pause
    latency_parts: list[tuple[str, str]]  # of it, with their titles
    answer_groups: list[AnswerGroup]
    agreement_rows: list[AgreementRow]
    has_reference: bool
    misclassifications: list[Misclassification]
    misclassified_total: int
    error_kinds: list[str]
    titles: dict[str, str]  # target -> how people write it
    descriptions: dict[str, str]  # target -> kind, size and region in a line
    main_latency: dict[str, Mapping[str, Any] | None]  # target -> percentiles of the main scenario
    max_mean_ms: float  # the longest bar
    startup_phases: list[str]  # of the start-up, in the order in which they come
    measured_figures: list[str]  # of the figures behind the costs
    shared_assumptions: list[str]
    assumptions: dict[str, list[str]]  # target -> what is assumed for it beside that
    cold_start_bars: dict[str, list[ColdStartBar]]  # forced and natural cold starts, as bars
    cold_start_phases: dict[str, list[str]]  # of the kinds of start that were tried
    cache_checks: list[CacheCheck]  # for a response cache
    engine_rows: list[EngineRow]
    engines_compared: str
    what_if: list[tuple[str, str]]  # target and another assumption of its costs, where that changes a bill
    break_even: tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]  # between targets of one engine; the others
    engines: list[str]  # of the targets
    filter_buttons: list[tuple[str, list[int], bool]]  # title, numbers of its targets, and whether it is of one colour
    connection_stats: dict[str, tuple[str, Mapping[str, Any]] | None]  # target -> scenario that opened most connections
    requests_sent: int  # measured requests, failures included
    normal_load_requests: int  # those of them that were not sent to overload a target
    command: str
    client_processor: str  # the processor of whoever sent the requests
    target_processors: dict[str, str]  # target -> its own, where it did not run on the client's machine


def build_context(
    run: Run, samples: Sequence[Sample], summary: SummaryReport, read_image: ImageReader
) -> ReportContext:
    """Draw and group what the page shows."""
    measured = Samples.of(samples).with_("phase", "measure")
    measured_samples = measured.where(~(measured.equal("target", REFERENCE) | measured.equal("scenario", BASELINE_RTT)))
    normal_load_samples = normal_load(measured_samples)
    target_reports = summary["targets"]
    drawn_targets = _drawn_targets(summary)
    drawn_reports = {name: report for name, report in target_reports.items() if name in drawn_targets}
    drawn_summary = {**summary, "targets": drawn_reports}
    scenario = summary["verdict"]["scenario"] or ""
    scenario_title = SHORT_TITLES.get(scenario, "").lower()
    groups = answer_groups(summary)
    drawn_groups = [group for group in groups if group.names[0] in drawn_targets]
    styles = assign_styles(
        drawn_reports | target_reports, {pair["b"]: pair["a"] for pair in summary["engine_comparisons"]}
    )
    misclassifications = _misclassifications(run, normal_load_samples, target_reports)
    latency_breakdown = _mean_latency_breakdown(_timed(measured_samples, scenario))
    shared_assumptions = _shared_assumptions(target_reports)
    return ReportContext(
        drawn_targets=list(drawn_reports),
        many_targets=len(drawn_reports) < len(target_reports),
        styles=styles,
        scenario=scenario,
        scenario_title=scenario_title,
        scenarios=scenario_sections.scenario_sections(run, target_reports),
        latency_plots=figures.latency_plots(measured_samples, drawn_reports, styles),
        rate_plot=figures.rate_plot(drawn_reports, styles, summary["verdict"]["slo_ms"]),
        latency_over_time_plots=figures.latency_over_time_plots(measured_samples, drawn_reports, styles),
        pareto_plot=figures.cost_latency_plot(drawn_summary, styles, scenario_title),
        cost_plot=figures.cost_plot(drawn_summary, styles),
        calibration_plot=None
        if summary["run"]["images"]["golden"]
        else figures.calibration_plot(run, normal_load_samples, drawn_groups, styles),
        latency_breakdown=latency_breakdown,
        after_pause=_after_pause(target_reports),
        latency_parts=[
            (part, title)
            for part, title in LATENCY_PARTS
            if part != LATE_SEND or any(parts[part] for parts in latency_breakdown.values())
        ],
        answer_groups=groups,
        agreement_rows=agreement_rows(summary, groups, run.reference_engine),
        has_reference=any(pair.endswith(f"|{REFERENCE}") for pair in summary["agreement"]),
        misclassifications=[
            _with_image(run, misclassification, read_image)
            for misclassification in misclassifications[:MAX_MISCLASSIFICATIONS]
        ],
        misclassified_total=len(misclassifications),
        error_kinds=sorted({kind for target_report in target_reports.values() for kind in target_report["errors"]}),
        titles={name: target_report["title"] for name, target_report in target_reports.items()},
        descriptions={name: _describe_target(target_report) for name, target_report in target_reports.items()},
        main_latency={name: _main_latency(target_report, scenario) for name, target_report in target_reports.items()},
        max_mean_ms=max((sum(pair.values()) for pair in latency_breakdown.values()), default=0.0),
        startup_phases=_unique_in_order(
            target_report["startup_phases_ms"] for target_report in target_reports.values()
        ),
        measured_figures=_unique_in_order(
            target_report["cost"]["measured"] for target_report in target_reports.values()
        ),
        shared_assumptions=shared_assumptions,
        assumptions={
            n: [line for line in _assumptions(f) if line not in shared_assumptions] for n, f in target_reports.items()
        },
        cold_start_bars=scenario_sections.cold_start_bars(target_reports),
        cold_start_phases=scenario_sections.cold_start_phases(target_reports),
        cache_checks=scenario_sections.cache_checks(target_reports),
        engine_rows=engine_rows(summary["engine_comparisons"]),
        engines_compared=engines_compared(summary["engine_comparisons"]),
        what_if=[
            (name, variant)
            for name, target_report in target_reports.items()
            for variant, bills in target_report["cost"]["what_if"].items()
            if any(bill["net_usd"] != target_report["cost"]["monthly_usd"][n]["net_usd"] for n, bill in bills.items())
        ],
        break_even=split_break_evens(summary),
        filter_buttons=_filter_buttons(summary, styles),
        engines=list(dict.fromkeys(group.engine for group in groups)),
        connection_stats=scenario_sections.connection_stats(target_reports),
        requests_sent=len(measured_samples),
        normal_load_requests=len(normal_load_samples),
        command=shlex.join(current_command_line(run.command)),
        client_processor=client_processor(run).with_cores,
        target_processors=_remote_processors(run),
    )


def _remote_processors(run: Run) -> dict[str, str]:
    """Of the targets that did not run on the client's machine, as their /version reported it."""
    return {
        target_run.name: target_processor(run, target_run).with_cores
        for target_run in run.targets
        if not target_run.twin
    }


def current_command_line(command: list[str]) -> list[str]:
    """A run's command line as it is typed now: runs of before ./cloudtrial hold `python -m eval ...`."""
    return ["./cloudtrial", *command[3:]] if command[:3] == ["python", "-m", "eval"] else command


def _timed(samples: Samples, scenario: str) -> Samples:
    """Those of which the scenario's percentiles are made; the steps of a search are too different to be one."""
    return split_after_pause(samples.with_("scenario", *({scenario} - {MAX_RATE})))[1]


def _mean_latency_breakdown(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Where the mean request's time went. Means, because they add up to the mean latency; percentiles do not."""
    succeeded = Samples.of(samples).succeeded
    timed = succeeded.where(~np.isnan(succeeded.durations("server_timing_ms", "total")))
    breakdowns = {}
    for name, of_target in timed.by("target").items():
        total_ms, *parts = (
            np.nan_to_num(of_target.durations("server_timing_ms", part)) for part in ("total", *SERVER_PARTS)
        )
        columns = {
            LATE_SEND: np.nan_to_num(of_target.array("send_delay_ms")),
            **dict(zip(SERVER_PARTS, parts, strict=True)),
            "server": np.maximum(0.0, total_ms - sum(parts)),
            "outside": np.maximum(0.0, of_target.array("service_time_ms") - total_ms),
        }
        breakdowns[name] = {part: fmean(columns[part].tolist()) for part, _ in LATENCY_PARTS}
    return breakdowns


def _misclassifications(
    run: Run, samples: Iterable[Sample], target_reports: Mapping[str, Any]
) -> list[Misclassification]:
    """Every image that a target predicted wrongly: where targets differ first, then by the highest probability."""
    wrong_by_image: dict[int, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    targets_by_image: dict[int, set[str]] = defaultdict(set)
    for s in samples:
        if s.error is None and s.predicted_class is not None:
            targets_by_image[s.image_index].add(s.target)
            if s.predicted_class != run.image_manifest[s.image_index].label:
                wrong_by_image[s.image_index][s.predicted_class].append(s)

    def sort_key(image_index: int) -> tuple:
        unanimous = (
            len(wrong_by_image[image_index]) == 1
            and {s.target for s in next(iter(wrong_by_image[image_index].values()))} == targets_by_image[image_index]
        )
        return (
            unanimous,
            -max(
                _max_probability(s) or 0
                for label_samples in wrong_by_image[image_index].values()
                for s in label_samples
            ),
            image_index,
        )

    return [
        _misclassification(run, image, wrong_by_image[image], target_reports)
        for image in sorted(wrong_by_image, key=sort_key)
    ]


def _misclassification(
    run: Run, image_index: int, samples_by_label: Mapping[int, list[Sample]], target_reports: Mapping[str, Any]
) -> Misclassification:
    entry = run.image_manifest[image_index]
    predictions = []
    for label, samples in sorted(samples_by_label.items()):
        names = {s.target for s in samples}
        titles = group_titles([name for name in target_reports if name in names], target_reports)
        predictions.append(
            WrongPrediction(run.classes[label], max((_max_probability(s) or 0 for s in samples), default=None), titles)
        )
    return Misclassification(image_index, entry.name, run.classes[entry.label], predictions, image_uri=None)


def _max_probability(sample: Sample) -> float | None:
    return max(sample.probabilities) if sample.probabilities else None


def _with_image(run: Run, misclassification: Misclassification, read_image: ImageReader) -> Misclassification:
    """With the image, if its bytes are available and are the ones that were sent."""
    data = read_image(misclassification.image_index)
    if data is None or hashlib.sha256(data).hexdigest() != run.image_manifest[misclassification.image_index].sha256:
        return misclassification
    subtype = next((subtype for signature, subtype in IMAGE_SIGNATURES if data.startswith(signature)), None)
    if subtype is None:
        return misclassification
    uri = f"data:image/{subtype};base64,{base64.b64encode(data).decode()}"
    return Misclassification(
        misclassification.image_index,
        misclassification.image_name,
        misclassification.true_label,
        misclassification.predictions,
        uri,
    )


def _filter_buttons(summary: SummaryReport, styles: Mapping[str, int]) -> list[tuple[str, list[int], bool]]:
    """A button for each target; of those that have both engines, one for the two, and one for each engine."""
    pairs = summary["engine_comparisons"]
    paired = {name: pair["title"] for pair in pairs for name in (pair["a"], pair["b"])}
    numbers: dict[str, list[int]] = {}
    for name, number in styles.items():
        numbers.setdefault(paired.get(name) or summary["targets"][name]["title"], []).append(number)
    buttons = [(title, group, True) for title, group in numbers.items()]
    if pairs:
        by_engine: dict[str, list[int]] = {}
        for name, number in styles.items():
            engine = summary["targets"][name]["engine"] or REFERENCE_ENGINE
            by_engine.setdefault(engine_title(engine), []).append(number)
        buttons += [(title, group, False) for title, group in by_engine.items()]
    return buttons


def _drawn_targets(summary: SummaryReport) -> set[str]:
    """All targets; of many the cheapest and the fastest."""
    target_reports, verdict = summary["targets"], summary["verdict"]
    if len(target_reports) <= MAX_DRAWN_TARGETS:
        return set(target_reports)

    def p50_ms(name: str) -> float:
        value = value_of((_main_latency(target_reports[name], verdict["scenario"]) or {}).get("p50"))
        return math.inf if value is None else value

    by_latency = sorted(target_reports, key=p50_ms)
    leaders = [name for name in (verdict["fastest"], verdict["recommended"], verdict["runner_up"]) if name]
    return set(list(dict.fromkeys([*leaders, *by_latency]))[:MAX_DRAWN_TARGETS])


def _describe_target(target_report: Mapping[str, Any]) -> str:
    """Kind, size and region, or the address of an endpoint of which no more is known."""
    parts = [str(target_report[key]) for key in ("kind", "size", "region") if target_report.get(key)]
    return ", ".join(parts) or str(target_report["url"])


def _main_latency(target_report: Mapping[str, Any], scenario: str | None) -> Mapping[str, Any] | None:
    report = target_report["scenarios"].get(scenario)
    return report and report["latency_with_failures_ms"]


def _after_pause(target_reports: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Where such medians are known."""
    by_scenario: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for target, target_report in target_reports.items():
        for scenario, scenario_report in target_report["scenarios"].items():
            if value_of(estimate := scenario_report["after_pause_ms"]) is not None:
                by_scenario[scenario][target] = estimate
    return dict(by_scenario)


def _unique_in_order(name_lists: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, in the order in which they first come."""
    return list(dict.fromkeys(name for names in name_lists for name in names))


def _assumptions(target_report: Mapping[str, Any]) -> list[str]:
    return [assumption["message"] for assumption in target_report["cost"]["assumptions"]]


def _shared_assumptions(target_reports: Mapping[str, Any]) -> list[str]:
    """What is assumed for every target that has a price."""
    of_targets = [assumptions for report in target_reports.values() if (assumptions := _assumptions(report))]
    return [line for line in of_targets[0] if all(line in other for other in of_targets)] if len(of_targets) > 1 else []
