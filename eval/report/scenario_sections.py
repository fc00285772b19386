"""What the report says of each scenario: its name in plain words, what it measures, what is compared over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eval.analysis.cold_starts import FORCED_START, IDLE_START, PLATFORM_OVERHEAD, TIME_TO_FIRST_PREDICTION_MS
from eval.analysis.latency import CACHE_ALPHA, CAPACITY_SCENARIOS
from eval.formatting import as_sentence, count, ms, per_second, plural, significant, value_of
from eval.plan.config import (
    BURST,
    COLD,
    IDLE,
    MAX_RATE,
    POISSON,
    RAMP,
    REPEAT,
    SCENARIOS,
    SINGLE,
    Config,
    config_from_json,
)
from eval.report.wording import instances_line
from eval.samples.model import OPEN_LOOPS, Run

SHORT_TITLES = {  # in a column's head
    SINGLE: "One at a time",
    POISSON: "Steady stream",
    RAMP: "Growing stream",
    BURST: "All at once",
    REPEAT: "Same request",
    COLD: "After a start",
    IDLE: "After a gap",
    MAX_RATE: "Highest rate",
}
PHASE_TITLES = {  # of a start, as the page calls them
    "process": "until the process runs",
    "import": "imports",
    "load": "loading the model",
    "first_prediction": "first prediction",
    PLATFORM_OVERHEAD: "request and platform",
}
SCENARIO_OF_KIND = {FORCED_START: COLD, IDLE_START: IDLE}
DISCARD_REASONS = {
    "missing_headers": "without a mark",
    "not_first_request": "by an instance that was warm",
    "instance_seen_before": "by a known instance",
}

JsonObject = Mapping[str, Any]  # one entry of report.json's `targets`


@dataclass(frozen=True)
class ScenarioSection:
    """A scenario as a reader meets it."""

    name: str  # in report.json and on the command line
    short_title: str
    heading: str
    description: str

    @property
    def has_throughput(self) -> bool:
        return self.name in CAPACITY_SCENARIOS

    @property
    def is_open_loop(self) -> bool:
        return self.name in OPEN_LOOPS


@dataclass(frozen=True)
class PhaseBar:
    """One stretch of a start's bar."""

    title: str
    colour_index: int  # of its colour
    duration_ms: float


@dataclass(frozen=True)
class ColdStartBar:
    """The median start of one target, as a bar."""

    target: str
    scope: str  # what the bar is the whole of, in words
    total_ms: float
    phases: list[PhaseBar]


@dataclass(frozen=True)
class CacheCheck:
    """The result of a cache test."""

    target: str
    result: JsonObject
    conclusion: str


def scenario_sections(run: Run, target_reports: Mapping[str, JsonObject]) -> list[ScenarioSection]:
    """Every scenario that was run, in the order of the schedule."""
    tried_names = {name for target_report in target_reports.values() for name in target_report["scenarios"]}
    config = config_from_json(run.config)
    return [
        ScenarioSection(name, SHORT_TITLES[name], *_describe(name, config)) for name in SCENARIOS if name in tried_names
    ]


def _describe(name: str, config: Config) -> tuple[str, str]:
    """A heading and an explanation for somebody who knows no load test."""
    rate_text, gap_text = per_second(config.rate_rps), f"{significant(config.gap_s)} s"
    return {
        SINGLE: (
            "One request at a time",
            "The next request leaves when the answer before it has come: what one user "
            "alone would wait, without any queue.",
        ),
        POISSON: (
            f"A steady stream, {rate_text} at random times",
            "Requests leave at times that were drawn before (a "
            "Poisson process), whether the ones before are answered or not: what many independent users would "
            "wait, queues included.",
        ),
        RAMP: (
            f"A stream that grows to {rate_text}",
            "Requests leave at random times, and ever more of them: how the "
            "target copes with growing traffic, and whether more instances come in time. Failures are of the load.",
        ),
        BURST: (
            f"{config.burst} requests at once",
            "All leave in the same moment, and all but the first have to queue "
            "or find another instance. The last to be answered waits longest. Failures are of the load.",
        ),
        REPEAT: (
            "The same request again and again",
            "Asked like single requests, but always with the same content: a "
            "cache in between would answer it faster than new ones.",
        ),
        COLD: (
            "The first request after a forced start",
            "Each follows a restart or a new revision. All answers are "
            "in this plot, proven starts or not; what is proven stands in the section of the starts.",
        ),
        IDLE: (
            f"The first request after {gap_text} without one",
            "The target was left alone, and may have stopped its "
            "instance. All answers are in this plot; which of them were cold starts stands in the section of the "
            "starts.",
        ),
        MAX_RATE: (
            "The highest rate that keeps the objective",
            f"The rate doubles from {rate_text} until p95, failures "
            f"counting as endless, is over {ms(config.slo_ms)} or more than 1% fail; then the gap is halved.",
        ),
    }[name]


def cold_start_bars(target_reports: Mapping[str, JsonObject]) -> dict[str, list[ColdStartBar]]:
    """The bars of forced starts and of natural ones; targets whose phases are not known have none."""
    return {
        kind: [
            bar
            for name, target_report in target_reports.items()
            if (bar := _cold_start_bar(name, target_report["cold_starts"].get(kind)))
        ]
        for kind in SCENARIO_OF_KIND
    }


def cold_start_phases(target_reports: Mapping[str, JsonObject]) -> dict[str, list[str]]:
    """The phases that are known of some target's starts, for each kind of start that was tried."""
    starts_by_kind = {
        kind: [
            target_report["cold_starts"][kind]
            for target_report in target_reports.values()
            if "attempted" in target_report["cold_starts"][kind]
        ]
        for kind in SCENARIO_OF_KIND
    }
    return {
        kind: [
            phase
            for phase in PHASE_TITLES
            if any(phase in start_report["phases_ms"]["phases"] for start_report in start_reports)
        ]
        for kind, start_reports in starts_by_kind.items()
        if start_reports
    }


def _cold_start_bar(target: str, start_report: JsonObject | None) -> ColdStartBar | None:
    phases = (start_report or {}).get("phases_ms") or {}
    total_ms = value_of(phases.get("total"))
    if total_ms is None or not phases["phases"]:
        return None
    colour_indices = {phase: index for index, phase in enumerate(PHASE_TITLES)}
    bars = [
        PhaseBar(
            str(PHASE_TITLES.get(phase, phase)), colour_indices.get(phase, len(colour_indices)), max(0.0, part["value"])
        )
        for phase, part in phases["phases"].items()
    ]
    scope = (
        "from the start command to the first correct prediction"
        if phases["total_metric"] == TIME_TO_FIRST_PREDICTION_MS
        else "of the first request"
    )
    return ColdStartBar(target, scope, total_ms, bars)


def discard_reasons(start_report: JsonObject) -> str:
    """Why responses were no confirmed cold starts, in words; empty when all were."""
    counts = {
        DISCARD_REASONS.get(reason, reason): number for reason, number in start_report["discarded"].items() if number
    }
    counts |= {"failed": start_report["failed"]} if start_report["failed"] else {}
    return ", ".join(f"{number} {reason}" for reason, number in counts.items())


def user_visible_waits(target_reports: Mapping[str, JsonObject], kind: str) -> list[tuple[list[str], str]]:
    """What a user waits for at a start, or why there was none: the targets of which it is the same, and a line."""
    return _titles_by_line(target_reports, lambda target_report: _user_visible_wait(target_report["cold_starts"][kind]))


def instance_lines(target_reports: Mapping[str, JsonObject]) -> list[tuple[list[str], str]]:
    """How many instances were measured and how much they differ: the targets of which it is the same, and a line."""
    return _titles_by_line(target_reports, lambda target_report: instances_line(target_report["instances"]))


def _titles_by_line(
    target_reports: Mapping[str, JsonObject], line_of: Callable[[JsonObject], str]
) -> list[tuple[list[str], str]]:
    titles_by_line: dict[str, list[str]] = {}
    for target_report in target_reports.values():
        titles_by_line.setdefault(line_of(target_report), []).append(target_report["title"])
    return [(titles, line) for line, titles in titles_by_line.items()]


def _user_visible_wait(start_report: JsonObject) -> str:
    if "attempted" not in start_report:
        return as_sentence(start_report["reason"]["message"])
    user_wait = (
        "the time from the start command"
        if start_report["user_visible"]["metric"] == TIME_TO_FIRST_PREDICTION_MS
        else "the first request"
    )
    line = f"a user feels {user_wait}: {start_report['user_visible']['reason']['message']}."
    if prewarmed := start_report["phases_ms"]["prewarmed"]:
        line += f" {plural(prewarmed, 'instance')} had been started before they were asked, and are not in the phases."
    if idle_gap_s := start_report["idle_gap_s"]:
        line += f" Left alone for {count(idle_gap_s['min'])} to {count(idle_gap_s['max'])} s."
    return line


def cache_checks(target_reports: Mapping[str, JsonObject]) -> list[CacheCheck]:
    """What the cache tests found, target by target; none where it was not tested."""
    return [
        CacheCheck(name, target_report["cache"], _cache_conclusion(target_report["cache"]))
        for name, target_report in target_reports.items()
        if target_report["cache"]["suspected"] is not None
    ]


def _cache_conclusion(cache: JsonObject) -> str:
    if cache["suspected"]:
        return "the repeated request is answered faster: something in between remembers answers"
    slightly_faster = cache["repeat_ms"] < cache["baseline_ms"] and cache["p"] < CACHE_ALPHA
    return "a little faster, by too little to be a cache" if slightly_faster else "no cache to be seen"


def connection_stats(target_reports: Mapping[str, JsonObject]) -> dict[str, tuple[str, JsonObject] | None]:
    """Target -> the scenario with the most new connections."""
    return {name: _most_new_connections(target_report["scenarios"]) for name, target_report in target_reports.items()}


def _most_new_connections(scenario_reports: Mapping[str, JsonObject]) -> tuple[str, JsonObject] | None:
    with_connections = {
        name: scenario_report
        for name, scenario_report in scenario_reports.items()
        if scenario_report["new_connections"] and scenario_report["connection_ms"]
    }
    return max(with_connections.items(), key=lambda item: item[1]["new_connections"], default=None)
