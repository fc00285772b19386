"""What the report says of each scenario: its name in plain words, what it tells, what is compared over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.analysis.cold_starts import CREATE_MS, FORCED, NATURAL, OUTSIDE
from eval.analysis.latency import CACHE_LEVEL
from eval.formatting import count, ms, per_second, plural, sentence, significant, value_of
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
from eval.samples.model import Run, Sample

NAMES = {  # in a column's head
    SINGLE: "One at a time", POISSON: "Steady stream", RAMP: "Growing stream", BURST: "All at once",
    REPEAT: "Same picture", COLD: "After a start", IDLE: "After a gap", MAX_RATE: "Highest rate",
}  # fmt: skip
PHASES = {  # of a start, as the page calls them
    "process": "until the process runs", "import": "imports", "load": "loading the model",
    "first_prediction": "first prediction", OUTSIDE: "request and platform",
}  # fmt: skip
KINDS = {FORCED: COLD, NATURAL: IDLE}
DISCARDED = {
    "unmarked": "without a mark", "not_first": "by an instance that was warm", "known_instance": "by a known instance",
}  # fmt: skip

Facts = Mapping[str, Any]  # one entry of report.json's `targets`


@dataclass(frozen=True)
class Scene:
    """A scenario as a reader meets it."""

    name: str  # in report.json and on the command line
    short: str
    heading: str
    words: str


@dataclass(frozen=True)
class Phase:
    """One stretch of a start's bar."""

    title: str
    number: int  # of its colour
    ms: float


@dataclass(frozen=True)
class Start:
    """The median start of one target, as a bar."""

    name: str
    of: str  # what the bar is the whole of, in words
    whole_ms: float
    phases: list[Phase]


@dataclass(frozen=True)
class Audit:
    """What the search for a cache in between found."""

    name: str
    facts: Facts
    words: str


def scenes(run: Run, targets: Mapping[str, Facts]) -> list[Scene]:
    """Every scenario that some target was asked in, in the order of the schedule."""
    tried = {name for facts in targets.values() for name in facts["scenarios"]}
    config = config_from_json(run.config)
    return [Scene(name, NAMES[name], *_told(name, config)) for name in SCENARIOS if name in tried]


def _told(name: str, config: Config) -> tuple[str, str]:
    """A heading and an explanation for somebody who knows no load test."""
    rate, gap = per_second(config.rate_rps), f"{significant(config.gap_s)} s"
    return {
        SINGLE: ("One request at a time", "The next request leaves when the answer before it has come: what one user "
                 "alone would wait, without any queue."),
        POISSON: (f"A steady stream, {rate} at random times", "Requests leave at times that were drawn before (a "
                  "Poisson process), whether the ones before are answered or not: what many independent users would "
                  "wait, queues included."),
        RAMP: (f"A stream that grows to {rate}", "Requests leave at random times, and ever more of them: how the "
               "target copes with growing traffic, and whether more instances come in time. Failures are of the load."),
        BURST: (f"{config.burst} requests at once", "All leave in the same moment, and all but the first have to queue "
                "or find another instance. The last to be answered waits longest. Failures are of the load."),
        REPEAT: ("The same picture again and again", "Asked like single requests, but always with one picture: a "
                 "cache in between would answer it faster than new ones."),
        COLD: ("The first request after a forced start", "Each follows a restart or a new revision. All answers are "
               "in this plot, proven cold starts or not; what is proven is under Cold starts."),
        IDLE: (f"The first request after {gap} without one", "The target was left alone, and may have stopped its "
               "instance. All answers are in this plot; which of them were cold starts is under Cold starts."),
        MAX_RATE: ("The highest rate that keeps the objective", f"The rate doubles from {rate} until p95, failures "
                   f"counting as endless, is over {ms(config.slo_ms)} or more than 1% fail; then the gap is halved."),
    }[name]  # fmt: skip


def starts(targets: Mapping[str, Facts]) -> dict[str, list[Start]]:
    """The bars of forced starts and of natural ones; targets whose phases are not known have none."""
    return {
        kind: [bar for name, facts in targets.items() if (bar := _start(name, facts["cold_start_ms"].get(kind)))]
        for kind in KINDS
    }


def cold_phases(targets: Mapping[str, Facts]) -> dict[str, list[str]]:
    """The phases that are known of some target's starts, for each kind of start that was tried."""
    tried = {kind: [f["cold_start_ms"][kind] for f in targets.values() if "asked" in f["cold_start_ms"][kind]]
             for kind in KINDS}  # fmt: skip
    return {
        kind: [phase for phase in PHASES if any(phase in found["phases_ms"]["parts"] for found in of)]
        for kind, of in tried.items()
        if of
    }


def _start(name: str, facts: Facts | None) -> Start | None:
    phases = (facts or {}).get("phases_ms") or {}
    whole = value_of(phases.get("whole"))
    if whole is None or not phases["parts"]:
        return None
    numbers = {phase: number for number, phase in enumerate(PHASES)}
    bars = [
        Phase(str(PHASES.get(phase, phase)), numbers.get(phase, len(numbers)), max(0.0, part["value"]))
        for phase, part in phases["parts"].items()
    ]
    of = (
        "from the start command to the first correct prediction"
        if phases["of"] == CREATE_MS
        else "of the first request"
    )
    return Start(name, of, whole, bars)


def discards(facts: Facts) -> str:
    """Why answers were no proven cold starts, in words; empty when all were."""
    counts = {DISCARDED.get(why, why): n for why, n in facts["discarded"].items() if n}
    counts |= {"failed": facts["failed"]} if facts["failed"] else {}
    return ", ".join(f"{n} {why}" for why, n in counts.items())


def felt(targets: Mapping[str, Facts], kind: str) -> list[tuple[list[str], str]]:
    """What a user waits for at a start, or why there was none: the targets of which it is the same, and a line."""
    lines: dict[str, list[str]] = {}
    for facts in targets.values():
        lines.setdefault(_felt(facts["cold_start_ms"][kind]), []).append(facts["title"])
    return [(titles, line) for line, titles in lines.items()]


def _felt(start: Facts) -> str:
    if "asked" not in start:
        return sentence(start["reason"])
    waits = "the time from the start command" if start["felt"]["figure"] == CREATE_MS else "the first request"
    line = f"a user feels {waits}: {start['felt']['why']}."
    if early := start["phases_ms"]["in_advance"]:
        line += f" {plural(early, 'instance')} had been started before they were asked, and are not in the phases."
    if gap := start["gap_s"]:
        line += f" Left alone for {count(gap['least'])} to {count(gap['most'])} s."
    return line


def audits(targets: Mapping[str, Facts]) -> list[Audit]:
    """What is to be said of a cache, target by target; none where nobody looked."""
    return [Audit(n, f["cache"], _audit(f["cache"])) for n, f in targets.items() if f["cache"]["suspected"] is not None]


def _audit(cache: Facts) -> str:
    if cache["suspected"]:
        return "the repeated picture is answered faster: something in between remembers answers"
    faster = cache["again_ms"] < cache["new_ms"] and cache["p"] < CACHE_LEVEL
    return "a little faster, by too little to be a cache" if faster else "no cache to be seen"


def network(targets: Mapping[str, Facts]) -> dict[str, tuple[str, Facts] | None]:
    """Target -> the scenario with the most new connections, which tells most of the way there."""
    return {name: _most_connections(facts["scenarios"]) for name, facts in targets.items()}


def _most_connections(scenarios: Mapping[str, Facts]) -> tuple[str, Facts] | None:
    opened = {name: of for name, of in scenarios.items() if of["new_connections"] and of["network_ms"]}
    return max(opened.items(), key=lambda item: item[1]["new_connections"], default=None)


def main_scenario(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of the scenario that tells most of a single request: the first of the schedule that was answered."""
    answered = {s.scenario for s in samples if s.error is None}
    first = next((name for name in SCENARIOS if name in answered), None)
    return [s for s in samples if s.scenario == first]
