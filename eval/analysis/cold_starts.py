"""Cold starts: which first requests were proven to be such, and what they cost a user. Pure.

    proven    the answer says that it was its instance's first prediction (X-Request-Ordinal is 1), and that instance
              had answered nothing in the run before. Never guessed: a slow request is no cold start for being slow,
              and a fast one can be a cold start. What is not proven is in no figure, and counted by reason.
    forced    a twin was restarted, or a new revision was made; scenario "cold"
    natural   the target was left alone for a while; scenario "idle"

Two times are given, because platforms differ in which of them a user feels. `create_ms` runs from the start command
to the first correct prediction. `latency_ms` is the first request alone: where a platform holds requests while an
instance starts, the start is in it; a twin has no platform, so there it begins when the twin says that it is ready.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.plan.config import COLD, IDLE, SINGLE
from eval.samples.model import CREATE, PROCESS, Sample, TargetRun
from eval.stats.intervals import Estimate, percentile, proportion
from infra.targets import TARGETS
from service.classifier import PHASES as LOADING

FORCED, NATURAL = "forced", "idle"  # keys of report.json
SCENARIO = {FORCED: COLD, NATURAL: IDLE}
NOT_TRIED = {FORCED: "no start was forced (scenario cold)", NATURAL: "it was never left alone (scenario idle)"}
PHASES = (PROCESS, *LOADING)
CREATE_MS, LATENCY_MS = "create_ms", "latency_ms"  # the two times
OUTSIDE = "outside"  # what is left of a start: the way of the request there and back, the platform, the prediction
DISCARDED = {
    "unmarked": "the answer does not say which instance gave it, or how many it had given",
    "not_first": "the instance had answered predictions before",
    "known_instance": "the instance had answered in this run before",
}
FELT = {
    "virtual machine": (
        LATENCY_MS,
        "nothing holds a request while the service starts: until then users are refused, and only then is one answered",
    ),
    "dyno": (CREATE_MS, "Heroku's router holds requests while the dyno starts"),
    "container": (CREATE_MS, "Cloud Run holds requests while an instance starts"),
    "function": (CREATE_MS, "Cloud Functions holds requests while an instance starts"),
}
FELT_ELSEWHERE = (LATENCY_MS, "measured at the client: what the platform made it wait is in it")
UNSEEN = "when the platform gave the start command cannot be seen"

Moment = tuple[float, int, int]  # started_s, block, place: an order of all requests to one target


@dataclass(frozen=True)
class Starts:
    """The requests of one target that were meant to meet a new instance."""

    proven: tuple[Sample, ...]
    failed: int  # without a right-shaped answer
    discarded: Mapping[str, int]  # key of DISCARDED -> answers that prove nothing

    @property
    def asked(self) -> int:
        return len(self.proven) + self.failed + sum(self.discarded.values())


def starts(samples: Sequence[Sample], scenario: str) -> Starts:
    """The proven cold starts of a scenario. `samples` are all of one target, warm-up and no-ops included."""
    met = first_met(samples)
    proven, failed, discarded = [], 0, Counter[str]()
    for sample in (s for s in samples if s.scenario == scenario):
        if sample.error is not None:
            failed += 1
        elif why := _unproven(sample, met):
            discarded[why] += 1
        else:
            proven.append(sample)
    return Starts(tuple(proven), failed, {why: discarded[why] for why in DISCARDED})


def first_met(samples: Iterable[Sample]) -> dict[str, Moment]:
    """When each instance answered for the first time in the run, a failure included."""
    met: dict[str, Moment] = {}
    for sample in samples:
        if sample.instance_id is not None:
            met[sample.instance_id] = min(_moment(sample), met.get(sample.instance_id, _moment(sample)))
    return met


def _unproven(sample: Sample, met: Mapping[str, Moment]) -> str | None:
    """Why the answer proves no cold start, a key of DISCARDED; None when it does."""
    if sample.instance_id is None or sample.ordinal is None:
        return "unmarked"
    if sample.ordinal != 1:
        return "not_first"
    return None if met[sample.instance_id] == _moment(sample) else "known_instance"


def _moment(sample: Sample) -> Moment:
    return sample.started_s, sample.block, sample.place


def known_answers(labels: Sequence[int], samples: Iterable[Sample], reference: Iterable[Sample]) -> dict[int, int]:
    """What a correct prediction of each picture is: the model's own, whether it is right about the picture or not.

    From the reference; without one from the target's answers once it was warm; else from the picture's true class.
    """
    warm = {s.image: s.label for s in samples if s.scenario not in (COLD, IDLE) and s.label is not None}
    said = {s.image: s.label for s in reference if s.label is not None}
    return dict(enumerate(labels)) | warm | said


def cold_start_json(it: TargetRun, samples: Sequence[Sample], known: Mapping[int, int]) -> dict[str, Any]:
    """The `cold_start_ms` of report.json for one target.

    samples: all of the target, warm-up and no-ops included. known: picture -> its correct prediction.
    """
    warm = percentile([s.latency_ms for s in samples if s.scenario == SINGLE and _measured(s)], 0.5)
    found: dict[str, Any] = {"warm_ms": warm.to_json()}
    for kind, scenario in SCENARIO.items():
        them = starts(samples, scenario)
        found[kind] = _figures(it, kind, them, warm, known) if them.asked else _none(NOT_TRIED[kind])
    return found


def boot_s(cold_start: Mapping[str, Any]) -> float | None:
    """Seconds from nothing to the first answer, for the bill: the natural median if there is one, else the forced one.

    Neither where instances had been started before they were asked.
    """
    for kind in (NATURAL, FORCED):
        found = cold_start[kind]
        if "phases_ms" in found and not found["phases_ms"]["in_advance"]:
            value = found[found["phases_ms"]["of"]]["p50"]["value"]
            if value is not None:
                return value / 1000
    return None


def felt_figure(it: TargetRun, kind: str) -> tuple[str, str]:
    """Which of the two times a user of that platform waits, and why."""
    target = TARGETS.get(it.target or "")
    if target is None or kind == NATURAL or not (it.twin or target.kind == "virtual machine"):
        return FELT_ELSEWHERE
    return FELT[target.kind]


def _figures(it: TargetRun, kind: str, them: Starts, warm: Estimate, known: Mapping[int, int]) -> dict[str, Any]:
    """One way to start: how many were asked and proven, the two times, what is felt, the phases."""
    correct = [s for s in them.proven if s.label == known.get(s.image)]
    seen = [s for s in correct if CREATE in s.startup_ms]
    created, latency = [s.startup_ms[CREATE] for s in seen], [s.latency_ms for s in them.proven]
    figure, why = felt_figure(it, kind)
    gaps_s = [s.gap_s for s in them.proven if s.gap_s is not None]
    return {
        "asked": them.asked,
        "proven": len(them.proven),
        "failed": them.failed,
        "discarded": dict(them.discarded),
        "incorrect": len(them.proven) - len(correct),
        "proven_share": proportion(len(them.proven), them.asked - them.failed, "answers").to_json(),
        "latency_ms": _estimates(latency),
        "latency_with_failures_ms": _estimates([*latency, *[math.inf] * them.failed]),
        "create_ms": _estimates(created) if kind == FORCED else dict.fromkeys(("p50", "p95"), _none(UNSEEN)),
        "felt": {"figure": figure, "why": why},
        "overhead_ms": _above(percentile(created if figure == CREATE_MS else latency, 0.5), warm).to_json(),
        "phases_ms": phases_json(seen, PHASES, CREATE_MS)
        if it.twin and kind == FORCED
        else phases_json(them.proven, LOADING, LATENCY_MS),
        "gap_s": {"least": min(gaps_s), "most": max(gaps_s)} if gaps_s else None,
    }


def phases_json(starts: Sequence[Sample], names: Sequence[str], of: str) -> dict[str, Any]:
    """The phases of a start as medians, and the rest that makes them add up to the median of the whole.

    An instance may have been started before the request that it answered first, as when a platform tries a new
    revision. Such a request did not wait for the phases; it is left out of them, and counted.
    """
    told = [s for s in starts if all(name in s.startup_ms for name in names)]
    wholes = [s.startup_ms[CREATE] if of == CREATE_MS else s.latency_ms for s in told]
    waited = [(s, w) for s, w in zip(told, wholes, strict=True) if sum(s.startup_ms[name] for name in names) <= w]
    whole = percentile([w for _, w in waited], 0.5)
    counts = {"n": len(waited), "in_advance": len(told) - len(waited)}
    found: dict[str, Any] = {"of": of, **counts, "whole": whole.to_json(), "parts": {}}
    if whole.value is None:
        return found
    parts = {name: percentile([s.startup_ms[name] for s, _ in waited], 0.5).to_json() for name in names}
    rest = round(whole.value - sum(part["value"] for part in parts.values()), 3)
    return found | {"parts": parts | {OUTSIDE: {"value": rest, "low": None, "high": None, "n": len(waited)}}}


def _measured(sample: Sample) -> bool:
    return sample.phase == "measure" and sample.error is None


def _estimates(values: Sequence[float]) -> dict[str, Any]:
    return {"p50": percentile(values, 0.5).to_json(), "p95": percentile(values, 0.95).to_json()}


def _above(estimate: Estimate, warm: Estimate) -> Estimate:
    """By how much it is more than the warm median, whose own interval is small beside that of a start."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    if warm.value is None:
        return Estimate(None, reason=f"no warm median of the {SINGLE} scenario: {warm.reason}")
    base = warm.value
    return replace(estimate, value=estimate.value - base, low=estimate.low - base, high=estimate.high - base)


def _none(reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason}
