"""Which targets may be called the cheapest: those that meet the latency objective and can serve the traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.statements import ReasonCode, Statement, reason

DEFAULT_SLO_MS = 200.0  # latency objective for p95, in ms
MAX_ERROR_RATE = 0.01  # of the requests sent; a target above it gets a warning, and is not called cheapest
SLO_SCENARIOS = ("poisson", "single")  # scenarios, the first that a target has: many users say more than one
P95_TAIL = 0.05  # of all requests; as many failures make p95 infinite

TargetReport = Mapping[str, Any]  # one entry of report.json's `targets`


@dataclass(frozen=True)
class CostRanking:
    """How the targets with a price stand at one traffic."""

    ranked: list[str]  # those that may win, the cheapest first
    excluded: dict[str, Statement]  # the others, with the reason
    meets_slo: dict[str, bool | None]  # of every target: whether p95 is within the objective; None: not known
    slo_uncertain: list[str]  # within it as measured, while the interval reaches past it
    tied: bool  # the first two have no order: their bills differ by less than is known of the billing rules


def rank_by_cost(targets: Mapping[str, TargetReport], slo_ms: float, requests_per_month: int) -> CostRanking:
    """Compare every target with the objective, then the bills of those that are left with each other."""
    meets_by_target = {name: _meets_slo(target_report, slo_ms) for name, target_report in targets.items()}
    bills = {
        name: bill
        for name, target_report in targets.items()
        if (bill := target_report["cost"]["monthly_usd"].get(str(requests_per_month)))
        and not isinstance(bill["net"], Mapping)
    }
    any_p95_known = any(meets_by_target[name] is not None for name in bills)
    excluded = {
        n: exclusion
        for n, bill in bills.items()
        if (exclusion := _exclusion_reason(targets[n], bill, meets_by_target[n], any_p95_known))
    }
    ranked = sorted(
        (n for n in bills if n not in excluded), key=lambda n: (round(bills[n]["net"], 2), bills[n]["gross"])
    )
    slo_uncertain = [
        name for name, meets_slo in meets_by_target.items() if meets_slo and _p95(targets[name])["high"] > slo_ms
    ]
    return CostRanking(
        ranked,
        excluded,
        meets_by_target,
        slo_uncertain,
        len(ranked) > 1 and bills_tied(bills[ranked[0]], bills[ranked[1]]),
    )


def slo_scenario(target_report: TargetReport) -> TargetReport | None:
    """The scenario whose p95 is compared with the objective."""
    return next(
        (scenario for name in SLO_SCENARIOS if (scenario := target_report["scenarios"].get(name)) and scenario["sent"]),
        None,
    )


def _p95(target_report: TargetReport) -> Mapping[str, Any]:
    """With failures as infinite latency."""
    scenario = slo_scenario(target_report)
    return scenario["latency_with_failures_ms"]["p95"] if scenario else {"value": None}


def _meets_slo(target_report: TargetReport, slo_ms: float) -> bool | None:
    scenario = slo_scenario(target_report)
    if scenario and scenario["sent"] - scenario["n"] > P95_TAIL * scenario["sent"]:
        return False
    value = _p95(target_report)["value"]
    return None if value is None else value <= slo_ms


def _exclusion_reason(
    target_report: TargetReport, bill: Mapping[str, Any], meets_slo: bool | None, any_p95_known: bool
) -> Statement | None:
    """Why a target cannot be the cheapest; None when it can."""
    scenario = slo_scenario(target_report)
    if scenario and scenario["sent"] - scenario["n"] > MAX_ERROR_RATE * scenario["sent"]:
        return reason(ReasonCode.TOO_MANY_FAILURES)
    if meets_slo is False:
        return reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=_p95(target_report)["value"])
    if bill["beyond_limit"]:
        return reason(ReasonCode.TOO_MANY_INSTANCES, instances=bill["instances"])
    return reason(ReasonCode.P95_UNKNOWN) if any_p95_known and meets_slo is None else None


def bills_tied(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the bounds of the bills by which the two are ordered touch; a bill without bounds is known exactly."""
    kind = "gross" if round(first["net"], 2) == round(second["net"], 2) else "net"
    low, high = f"{kind}_low", f"{kind}_high"
    return any(bill[low] < bill[high] for bill in (first, second)) and first[high] >= second[low]
