"""What a run has found, without words: who answered, who agrees with whom, who is fastest and cheapest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.analysis.slo import SLO_MS, Contest, Facts, contest
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.samples.model import REFERENCE
from eval.stats.intervals import overlap
from eval.targets.engines import REFERENCE_ENGINE, surely_apart


@dataclass(frozen=True)
class Findings:
    """What the verdict is made of."""

    targets: Mapping[str, Facts]
    parity: Mapping[str, Mapping[str, Any]]
    note: str | None  # why the run is not complete; None when it is
    invalid: list[str]  # why its targets cannot be compared
    twins: bool
    slo_ms: float = SLO_MS  # that p95 is held against
    requests: int = REQUESTS_PER_MONTH  # at which costs are compared
    switches: Sequence[Mapping[str, Any]] = ()  # the `engines` of report.json

    @property
    def contest(self) -> Contest:
        """Who is cheapest of those that keep the objective."""
        return contest(self.targets, self.slo_ms, self.requests)

    def title(self, name: str) -> str:
        return self.targets[name]["title"] if name in self.targets else f"the {name}"

    @property
    def answered(self) -> list[str]:
        """Targets that answered anything."""
        return [name for name, facts in self.targets.items() if facts["n"]]

    @property
    def has_reference(self) -> bool:
        return any(pair.endswith(f"|{REFERENCE}") for pair in self.parity)

    def engine(self, name: str) -> str:
        """That a target or the reference answers with; one that is not known counts as the reference's."""
        return (self.targets.get(name, {}).get("engine") if name != REFERENCE else None) or REFERENCE_ENGINE

    def engines_differ(self, a: str, b: str) -> bool:
        return self.engine(a) != self.engine(b)

    def disputes(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Pairs that answered some image differently. Who differs from the reference is not held against others too.

        Another engine may answer some images otherwise, but not so many that it cannot be the same model.
        """
        pairs = [(*pair.rsplit("|", 1), both) for pair, both in self.parity.items() if both["disagreements"]]
        pairs = [(a, b, both) for a, b, both in pairs if not self.engines_differ(a, b) or surely_apart(both)]
        wrong = {a for a, b, _ in pairs if b == REFERENCE}
        return [(a, b, both) for a, b, both in pairs if b == REFERENCE or not {a, b} & wrong]

    def beside(self, names: Sequence[str]) -> Mapping[str, Any] | None:
        """How targets of another engine compare with the reference, or else with the reference's engine; the worst."""
        plain = [REFERENCE] if self.has_reference else [n for n in self.answered if self.engine(n) == REFERENCE_ENGINE]
        pairs = [both for a in names for b in plain for both in (self.pair(a, b),) if both and both["n"]]
        return max(pairs, key=lambda both: both["disagreements"], default=None)

    def pair(self, a: str, b: str) -> Mapping[str, Any] | None:
        return self.parity.get(f"{a}|{b}") or self.parity.get(f"{b}|{a}")

    def either_engine(self, a: str, b: str) -> str | None:
        """The one title of two that differ in the engine and cost the same to the cent; None for any other two."""
        one = next((one for one in self.switches if {one["a"], one["b"]} == {a, b}), None)
        if one is None:
            return None
        bills = [one["monthly_usd"][str(self.requests)][side] for side in "ab"]
        same = len({(round(bill["net"], 2), round(bill["gross"], 2)) for bill in bills}) == 1
        return one["title"] if same else None

    def right(self) -> bool:
        """Whether every target answered, and every answer is that of the one model."""
        compared = [both for pair, both in self.parity.items() if both["n"]]
        return bool(compared) and len(self.answered) == len(self.targets) and not self.disputes() and not self.invalid


def by_latency(targets: Mapping[str, Facts]) -> tuple[str, list[str]]:
    """The percentile that can be compared, and the targets that have it, the fastest first.

    Failures count as infinite, so a target that was quick while it lived does not win. The 95th percentile, or the
    median where the run is too short for it.
    """
    for name in ("p95", "p50"):
        values = {target: latency[name]["value"] for target, facts in targets.items() if (latency := _latency(facts))}
        known = {target: value for target, value in values.items() if value is not None}
        if known:
            return name, sorted(known, key=lambda target: known[target])
    return "p50", []


def alike(targets: Mapping[str, Facts], percentile: str, order: list[str]) -> list[str]:
    """Those whose interval overlaps that of the fastest."""
    if not order:
        return []
    first = _latency(targets[order[0]])[percentile]
    return [name for name in order[1:] if overlap(_latency(targets[name])[percentile], first)]


def _latency(facts: Facts) -> Mapping[str, Any]:
    """With failures, of the first scenario."""
    return next(iter(facts["scenarios"].values()))["latency_with_failures_ms"] if facts["scenarios"] else {}
