"""What a run says, in one sentence and in warnings. Deterministic, from the numbers of report.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.cost import MONTH_S
from eval.formatting import count, listing, ms, percent, plural, usd
from eval.objective import ERROR_RATE, REQUESTS_PER_MONTH, SLO_MS, Contest, Facts, contest
from eval.stats import overlap

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

    def disputes(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Pairs that answered some image differently. Who differs from the reference is not held against others too."""
        pairs = [(*pair.rsplit("|", 1), both) for pair, both in self.parity.items() if both["disagreements"]]
        wrong = {a for a, b, _ in pairs if b == REFERENCE}
        return [(a, b, both) for a, b, both in pairs if b == REFERENCE or not {a, b} & wrong]

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
        parts = (_speed(found), _price(found), _left_out(found), _rightness(found), _missing(found))
        said = "; ".join(part for part in parts if part)
        if found.twins:
            said = f"on local twins, {said}"
    else:
        said = "no target answered, so there is nothing to compare"
    text = ": ".join([*doubts, said])
    is_name = any(text.startswith(facts["title"]) for facts in found.targets.values())
    return f"{text if is_name else text[0].upper() + text[1:]}."


def differing(both: Mapping[str, Any]) -> str:
    """ "2 of 400 images"."""
    return f"{count(both['disagreements'])} of {plural(both['n'], 'image')}"


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


def _price(found: Findings) -> str:
    costs = found.contest
    traffic = f"at {count(found.requests)} requests a month"
    if not costs.order:
        return f"no target can be named cheapest {traffic} with p95 within {ms(found.slo_ms)}" if costs.left_out else ""
    first, *others = costs.order
    surely = "probably " if first in costs.unsure else ""
    within = f"with p95 {surely}within {ms(found.slo_ms)}, " if costs.meets[first] else ""
    if not others:
        one = "only " if costs.left_out else ""
        return f"{within}{one}{found.title(first)} costs {_bill(found, first)} {traffic}"
    unknown = "" if within else f" (whether p95 is within {ms(found.slo_ms)} is not known)"
    cheapest = f"{within}{found.title(first)} is cheapest {traffic} ({_bill(found, first)})"
    return f"{cheapest}, {_runner_up(found, first, others[0], costs.close)}{unknown}"


def _runner_up(found: Findings, first: str, second: str, close: bool) -> str:
    text = f"{found.title(second)} ({_bill(found, second)})"
    if close:
        return f"though {text} may be as cheap (how billed time is rounded is not documented)"
    return f"as is {found.title(second)}" if _bill(found, first) == _bill(found, second) else f"ahead of {text}"


def _left_out(found: Findings) -> str:
    """Who is not in the comparison of costs, and why."""
    reasons = [f"{found.title(name)} ({why})" for name, why in found.contest.left_out.items()]
    return f"left out: {listing(reasons)}" if reasons else ""


def _bill(found: Findings, name: str) -> str:
    bill = found.targets[name]["cost"]["monthly_usd"][str(found.requests)]
    net, gross = usd(round(bill["net"], 2)), usd(round(bill["gross"], 2))
    return net if net == gross else f"{net} after the free tier, list price {gross}"


def _rightness(found: Findings) -> str:
    disputes = found.disputes()
    if disputes:
        words = [f"{found.title(a)} and {found.title(b)} differ on {differing(both)}" for a, b, both in disputes]
        return f"not all answers are right: {', '.join(words)}"
    if not any(both["n"] for both in found.parity.values()):
        return f"whether the answers are those of the model was not checked ({_accuracies(found)})"
    numbers = {both["n"] for both in found.parity.values()}
    images = f"all {plural(numbers.pop(), 'image')}" if len(numbers) == 1 else "every image answered"
    alone = len(found.answered) == 1
    who = f"{found.title(found.answered[0])} gives" if alone else f"all {len(found.answered)} targets give"
    if len(found.answered) < len(found.targets):
        who = who.replace("all ", "the other ", 1)
    same = "the reference's answers" if found.has_reference else "the same answers, not checked against a reference,"
    return f"{who} {same} on {images} ({_accuracies(found)})"


def _accuracies(found: Findings) -> str:
    values = sorted({percent(found.targets[name]["accuracy"]["value"]) for name in found.answered}, key=_number)
    return f"accuracy {values[0]}" if len(values) == 1 else f"accuracy {values[0]} to {values[-1]}"


def _number(text: str) -> float:
    return float(text.strip("<>% "))


def _missing(found: Findings) -> str:
    """Who failed, so that nobody reads the rest as the whole."""
    parts = [f"{found.title(name)} was not measured" for name in found.targets if name not in found.answered]
    for name in found.answered:
        failed, sent = sum(found.targets[name]["errors"].values()), found.targets[name]["sent"]
        if failed > ERROR_RATE * sent:
            parts.append(f"{found.title(name)} failed {count(failed)} of {plural(sent, 'request')}")
    return listing(parts)
