"""What a run says, in one sentence and in warnings. Deterministic, from the numbers of report.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.analysis.slo import ERROR_RATE, REQUESTS_PER_MONTH, SLO_MS, Contest, Facts, close_bills, contest
from eval.cost.billing import MONTH_S
from eval.formatting import count, listing, ms, plural, times, usd
from eval.report.accuracy_text import rightness
from eval.stats.intervals import overlap
from eval.targets.engines import REFERENCE_ENGINE, surely_apart
from infra.local.names import engine_title

REFERENCE = "reference"


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


def verdict(found: Findings) -> dict[str, Any]:
    """The `verdict` of report.json."""
    speed, order = by_latency(found.targets)
    costs = found.contest
    return {
        "sentence": sentence(found),
        "fastest": order[0] if order else None,
        "as_fast": alike(found.targets, speed, order),
        "cheapest": costs.order[0] if costs.order else None,
        "runner_up": costs.order[1] if len(costs.order) > 1 else None,
        "too_close": costs.close,
        "right": found.right(),
        "valid": not found.invalid,
        "slo": {
            "p95_ms": found.slo_ms,
            "meets": costs.meets,
            "unsure": costs.unsure,
            "left_out": costs.left_out,
        },
        "traffic": {"requests_per_month": found.requests, "rps": round(found.requests / MONTH_S, 4)},
    }


def sentence(found: Findings) -> str:
    """One sentence for someone who reads no other."""
    doubts = [f"incomplete run ({found.note})"] if found.note else []
    doubts += [f"not a valid comparison, as {'; '.join(found.invalid)}"] if found.invalid else []
    if found.answered:
        parts = (_speed(found), _switch(found), _price(found), _left_out(found), rightness(found), _missing(found))
        said = "; ".join(part for part in parts if part)
        if found.twins:
            said = f"on local twins, {said}"
    else:
        said = "no target answered, so there is nothing to compare"
    text = ": ".join([*doubts, said])
    is_name = any(text.startswith(facts["title"]) for facts in found.targets.values())
    return f"{text if is_name else text[0].upper() + text[1:]}."


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


def _speed(found: Findings) -> str:
    name, order = by_latency(found.targets)
    if not order:
        return "too few requests were answered to say which is fastest"
    value = ms(_latency(found.targets[order[0]])[name]["value"])
    first = found.title(order[0])
    if len(found.answered) == 1:
        return f"{first} answers within {value} ({name})"
    if close := alike(found.targets, name, order):
        return f"{first} is fastest ({name} {value}), with {listing([found.title(n) for n in close])} about as fast"
    return f"{first} is fastest ({name} {value})"


def _switch(found: Findings) -> str:
    """By how much each other engine is faster, over all targets that have both."""
    factors: dict[str, list[float]] = {}
    for one in found.switches:
        value = one["latency_ms"]["p50"]["times_as_fast"]["value"]
        if value is not None:
            factors.setdefault(one["engines"]["b"], []).append(value)
    told = []
    for engine, of in factors.items():
        least, most = times(min(of)), times(max(of))
        factor = least if least == most else f"{least} to {most}"
        told.append(f"{engine_title(engine)} is {factor} as fast as {engine_title(REFERENCE_ENGINE)} (p50)")
    return ", ".join(told)


def _price(found: Findings) -> str:
    costs = found.contest
    traffic = f"at {count(found.requests)} requests a month"
    if not costs.order:
        return f"no target can be named cheapest {traffic} with p95 within {ms(found.slo_ms)}" if costs.left_out else ""
    first, *others = costs.order
    title, close = found.title(first), costs.close
    if others and (either := found.either_engine(first, others[0])):
        title, others = f"{either}, with either engine,", others[1:]
        close = bool(others) and close_bills(_month(found, first), _month(found, others[0]))
    surely = "probably " if first in costs.unsure else ""
    within = f"with p95 {surely}within {ms(found.slo_ms)}, " if costs.meets[first] else ""
    if not others:
        one = "only " if costs.left_out else ""
        return f"{within}{one}{title} costs {_bill(found, first)} {traffic}"
    unknown = "" if within else f" (whether p95 is within {ms(found.slo_ms)} is not known)"
    cheapest = f"{within}{title} is cheapest {traffic} ({_bill(found, first)})"
    return f"{cheapest}, {_runner_up(found, first, others[0], close)}{unknown}"


def _runner_up(found: Findings, first: str, second: str, close: bool) -> str:
    text = f"{found.title(second)} ({_bill(found, second)})"
    if close:
        return f"though {text} may be as cheap (how billed time is rounded is not documented)"
    return f"as is {found.title(second)}" if _bill(found, first) == _bill(found, second) else f"ahead of {text}"


def _left_out(found: Findings) -> str:
    """Who is not in the comparison of costs, and why."""
    reasons = [f"{found.title(name)} ({why})" for name, why in found.contest.left_out.items()]
    return f"left out: {listing(reasons)}" if reasons else ""


def _month(found: Findings, name: str) -> Mapping[str, Any]:
    return found.targets[name]["cost"]["monthly_usd"][str(found.requests)]


def _bill(found: Findings, name: str) -> str:
    bill = _month(found, name)
    net, gross = usd(round(bill["net"], 2)), usd(round(bill["gross"], 2))
    return net if net == gross else f"{net} after the free tier, list price {gross}"


def _missing(found: Findings) -> str:
    """Who failed, so that nobody reads the rest as the whole."""
    parts = [f"{found.title(name)} was not measured" for name in found.targets if name not in found.answered]
    for name in found.answered:
        failed, sent = sum(found.targets[name]["errors"].values()), found.targets[name]["sent"]
        if failed > ERROR_RATE * sent:
            parts.append(f"{found.title(name)} failed {count(failed)} of {plural(sent, 'request')}")
    return listing(parts)
