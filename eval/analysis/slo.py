"""Who may be called the cheapest: targets that keep the latency objective, answer, and can serve the traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.formatting import ms

SLO_MS = 200.0  # that p95 is held against
ERROR_RATE = 0.01  # of the requests sent; a target above it gets a warning, and is not called cheapest
JUDGED_BY = ("poisson", "single")  # scenarios, the first that a target has: many users tell more than one
TAIL = 0.05  # of all requests; as many failures make p95 endless

Facts = Mapping[str, Any]  # one entry of report.json's `targets`


@dataclass(frozen=True)
class Contest:
    """How the targets with a price stand at one traffic."""

    order: list[str]  # those that may win, the cheapest first
    left_out: dict[str, str]  # the others, with the reason
    meets: dict[str, bool | None]  # of every target: whether p95 is within the objective; None: not known
    unsure: list[str]  # within it as measured, while the interval reaches past it
    close: bool  # the first two have no order: their bills differ by less than is known of the billing rules


def contest(targets: Mapping[str, Facts], slo_ms: float, requests: int) -> Contest:
    """Hold every target against the objective, then the bills of those that are left against each other."""
    meets = {name: _meets(facts, slo_ms) for name, facts in targets.items()}
    bills = {
        name: bill
        for name, facts in targets.items()
        if (bill := facts["cost"]["monthly_usd"].get(str(requests))) and not isinstance(bill["net"], Mapping)
    }
    known = any(meets[name] is not None for name in bills)
    left_out = {n: why for n, bill in bills.items() if (why := _left_out(targets[n], bill, meets[n], known))}
    order = sorted(
        (n for n in bills if n not in left_out), key=lambda n: (round(bills[n]["net"], 2), bills[n]["gross"])
    )
    unsure = [name for name, within in meets.items() if within and _p95(targets[name])["high"] > slo_ms]
    return Contest(order, left_out, meets, unsure, len(order) > 1 and close_bills(bills[order[0]], bills[order[1]]))


def judged(facts: Facts) -> Facts | None:
    """The scenario that the objective is held against."""
    return next((of for name in JUDGED_BY if (of := facts["scenarios"].get(name)) and of["sent"]), None)


def _p95(facts: Facts) -> Mapping[str, Any]:
    """With failures as endless latency."""
    of = judged(facts)
    return of["latency_with_failures_ms"]["p95"] if of else {"value": None}


def _meets(facts: Facts, slo_ms: float) -> bool | None:
    of = judged(facts)
    if of and of["sent"] - of["n"] > TAIL * of["sent"]:
        return False
    value = _p95(facts)["value"]
    return None if value is None else value <= slo_ms


def _left_out(facts: Facts, bill: Mapping[str, Any], meets: bool | None, known: bool) -> str | None:
    """Why a target cannot win; None when it can. `known`: whether p95 is known of any target."""
    of = judged(facts)
    if of and of["sent"] - of["n"] > ERROR_RATE * of["sent"]:
        return "too many failures"
    if meets is False:
        return f"p95 {ms(_p95(facts)['value'])}"
    if bill["beyond_limit"]:
        return f"needs {bill['instances']} instances, more than it may have"
    return "p95 not known" if known and meets is None else None


def close_bills(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the bounds of the bills by which the two are ordered touch; a bill without bounds is known exactly."""
    kind = "gross" if round(first["net"], 2) == round(second["net"], 2) else "net"
    low, high = f"{kind}_low", f"{kind}_high"
    return any(bill[low] < bill[high] for bill in (first, second)) and first[high] >= second[low]
