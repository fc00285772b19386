"""What the switch from the plain engine to another is worth, target by target: the `engines` of report.json. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.analysis.accuracy import Answers
from eval.analysis.mcnemar import Discordance, discordance, mcnemar
from eval.formatting import value_of
from eval.plan.config import MAX_RATE
from eval.samples.model import Run, Sample
from eval.stats.bootstrap import Blocks, Shift, shifts
from eval.stats.intervals import PERCENTILES
from eval.targets.engines import pairs
from infra.local.names import PLAIN_ENGINE

COMPARED = ("p50", "p95")

Facts = Mapping[str, Any]  # one entry of report.json's `targets`


def engines_json(
    run: Run,
    taken: Mapping[str, Sequence[Sample]],
    said: Mapping[str, Answers],
    targets: Mapping[str, Facts],
    parity: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The `engines` of report.json: an entry for each pair, empty where no target was asked with two engines.

    taken: the measured samples of each target. said: its answers at usual work.
    """
    couples = pairs(run.targets)
    truth = {number: image.label for number, image in enumerate(run.images)}
    splits = {f"{p.a}|{p.b}": discordance(truth, said.get(p.a, {}), said.get(p.b, {})) for p in couples}
    tests = mcnemar(splits)  # adjusted for these pairs alone: no other was meant to differ
    found = []
    for pair in couples:
        key = f"{pair.a}|{pair.b}"
        both = targets[pair.a], targets[pair.b]
        of = [taken.get(name, ()) for name in (pair.a, pair.b)]
        alike = parity.get(key) or parity.get(f"{pair.b}|{pair.a}")
        found.append(
            {
                "a": pair.a,
                "b": pair.b,
                "title": both[0]["title"],
                "engines": {"a": both[0]["engine"] or PLAIN_ENGINE, "b": both[1]["engine"]},
                **_latency(both, of, run.seed),
                **_money(both),
                "start_ms": _start(both),
                "memory_mib": _side_by_side(both, lambda facts: facts["memory"]["peak_mib"]),
                "shipped": _side_by_side(both, lambda facts: facts["shipped"]),
                "accuracy": _accuracy(both, splits[key], tests[key]),
                "parity": {k: v for k, v in (alike or {}).items() if k != "mcnemar"} or _none("one gave no answer"),
            }
        )
    return found


def _side_by_side(both: Sequence[Facts], figure: Callable[[Facts], Any]) -> dict[str, Any]:
    return {side: figure(facts) for side, facts in zip("ab", both, strict=True)}


def _latency(both: Sequence[Facts], taken: Sequence[Sequence[Sample]], seed: int) -> dict[str, Any]:
    """The first scenario that both answered, and by how much the second is faster; the highest rates where known."""
    scenario = next((n for n in both[0]["scenarios"] if n in both[1]["scenarios"] and n != MAX_RATE), None)
    of = [facts["scenarios"][scenario]["latency_ms"] if scenario else {} for facts in both]
    estimates = {p: [one.get(p) or _none("no scenario that both were asked in") for one in of] for p in COMPARED}
    blocks = [_blocks(samples, scenario) for samples in taken]
    changes: dict[str, Shift] = {}
    if all(blocks):
        found = shifts(blocks[0], blocks[1], [PERCENTILES[p] for p in COMPARED], seed)
        changes = dict(zip(COMPARED, found, strict=True))
    rates = [facts["scenarios"].get(MAX_RATE, {}).get("max_rate_rps") for facts in both]
    return {
        "scenario": scenario,
        "latency_ms": {
            p: {"a": a, "b": b, "times_as_fast": _times(changes[p]) if _known(a, b) else _none("not known of both")}
            for p, (a, b) in estimates.items()
        },
        "max_rate_rps": {"a": rates[0], "b": rates[1]} if all(rates) else None,
    }


def _blocks(samples: Sequence[Sample], scenario: str | None) -> Blocks:
    """What each block's answers took."""
    found: dict[int, list[float]] = defaultdict(list)
    for s in samples:
        if s.scenario == scenario and s.error is None:
            found[s.block].append(s.latency_ms)
    return found


def _times(shift: Shift) -> dict[str, Any]:
    """As a factor: half the latency is 2 times as fast."""
    value, high, low = (1 / (1 + change) if change > -1 else None for change in (shift.change, shift.low, shift.high))
    return _none("it took no time") if value is None else {"value": value, "low": low, "high": high}


def _money(both: Sequence[Facts]) -> dict[str, Any]:
    """Dollars by the same meters; only the work differs."""
    a, b = (facts["cost"] for facts in both)
    return {
        kind: {at: {"a": a[kind][at], "b": b[kind][at]} for at in a[kind]}  # a month's requests, or requests a second
        for kind in ("monthly_usd", "usd_per_million")
    }


STARTS: dict[str, Callable[[Facts], Any]] = {  # what a start was seen to take, the most telling first
    "create": lambda facts: facts["cold_start_ms"]["forced"].get("create_ms", {}).get("p50"),
    "natural": lambda facts: facts["cold_start_ms"]["idle"].get("latency_ms", {}).get("p50"),
    "forced": lambda facts: facts["cold_start_ms"]["forced"].get("latency_ms", {}).get("p50"),
    "ready": lambda facts: facts["startup_ms"],
}


def _start(both: Sequence[Facts]) -> dict[str, Any]:
    """`of` says which: start command to the first correct prediction, the first request of a natural or of a forced
    start, or a twin's start-up until it was ready, which happened once."""
    for of, figure in STARTS.items():
        a, b = map(figure, both)
        if _known(a, b):
            return {"of": of, "a": a, "b": b}
    none = _none("no start of both was measured")
    return {"of": None, "a": none, "b": none}


def _accuracy(both: Sequence[Facts], split: Discordance, test: Mapping[str, Any]) -> dict[str, Any]:
    """Of each, and the difference on the images that both answered."""
    return {
        **_side_by_side(both, lambda facts: facts["accuracy"]),
        "difference": split.difference() if split.n else _none("no image that both answered"),
        "mcnemar": test,
    }


def _known(a: Any, b: Any) -> bool:
    return value_of(a) is not None and value_of(b) is not None


def _none(reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason}
