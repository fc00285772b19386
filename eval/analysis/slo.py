"""Which targets may be called the cheapest: those that meet the latency objective and can serve the traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eval.analysis.latency import ScenarioReport
from eval.analysis.report_model import TargetReport
from eval.codes import Reason, ReasonCode, reason
from eval.cost.billing import Bill
from eval.stats.intervals import Estimate

DEFAULT_SLO_MS = 200.0  # latency objective for p95, in ms
MAX_ERROR_RATE = 0.01  # of the requests sent; a target above it gets a warning, and is not called cheapest
SLO_SCENARIOS = ("poisson", "single")  # scenarios, the first that a target has: many users say more than one
P95_TAIL = 0.05  # of all requests; as many failures make p95 infinite


@dataclass(frozen=True)
class CostRanking:
    """How the targets with a price stand at one traffic."""

    ranked: list[str]  # those that may win, the cheapest first
    excluded: dict[str, Reason]  # the others, with the reason
    meets_slo: dict[str, bool | None]  # of every target: whether p95 is within the objective; None: not known
    slo_uncertain: list[str]  # within it as measured, while the interval reaches past it
    tied: bool  # the first two have no order: their bills differ by less than is known of the billing rules


def rank_by_cost(targets: Mapping[str, TargetReport], slo_ms: float, requests_per_month: int) -> CostRanking:
    """Compare every target with the objective, then the bills of those that are left with each other."""
    meets_by_target = {name: _meets_slo(target_report, slo_ms) for name, target_report in targets.items()}
    bills = {
        name: bill
        for name, target_report in targets.items()
        if isinstance(bill := target_report.cost.monthly_usd.get(str(requests_per_month)), Bill)
    }
    any_p95_known = any(meets_by_target[name] is not None for name in bills)
    excluded = {
        name: exclusion
        for name, bill in bills.items()
        if (exclusion := _exclusion_reason(targets[name], bill, meets_by_target[name], any_p95_known))
    }
    ranked = sorted(
        (name for name in bills if name not in excluded),
        key=lambda name: (round(bills[name].net_usd, 2), bills[name].gross_usd),
    )
    slo_uncertain = [
        name for name, meets_slo in meets_by_target.items() if meets_slo and (_p95(targets[name]).high or 0.0) > slo_ms
    ]
    tied = len(ranked) > 1 and bills_tied(bills[ranked[0]], bills[ranked[1]])
    return CostRanking(ranked, excluded, meets_by_target, slo_uncertain, tied)


def slo_scenario(sent_by_scenario: Mapping[str, int]) -> str | None:
    """The scenario whose p95 is compared with the objective."""
    return next((name for name in SLO_SCENARIOS if sent_by_scenario.get(name)), None)


def _slo_report(target_report: TargetReport) -> ScenarioReport | None:
    name = slo_scenario({name: report.sent for name, report in target_report.scenarios.items()})
    return target_report.scenarios[name] if name else None


def _p95(target_report: TargetReport) -> Estimate:
    """With failures as infinite latency."""
    scenario = _slo_report(target_report)
    return scenario.latency_with_failures_ms["p95"] if scenario else Estimate(None)


def _fails_more_than(target_report: TargetReport, fraction: float) -> bool:
    scenario = _slo_report(target_report)
    return scenario is not None and scenario.sent - scenario.succeeded > fraction * scenario.sent


def _meets_slo(target_report: TargetReport, slo_ms: float) -> bool | None:
    if _fails_more_than(target_report, P95_TAIL):
        return False
    value = _p95(target_report).value
    return None if value is None else value <= slo_ms


def _exclusion_reason(
    target_report: TargetReport, bill: Bill, meets_slo: bool | None, any_p95_known: bool
) -> Reason | None:
    """Why a target cannot be the cheapest; None when it can."""
    if _fails_more_than(target_report, MAX_ERROR_RATE):
        return reason(ReasonCode.TOO_MANY_FAILURES)
    if meets_slo is False:
        return reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=_p95(target_report).value)
    if bill.exceeds_max_instances:
        return reason(ReasonCode.TOO_MANY_INSTANCES, instances=bill.instances)
    return reason(ReasonCode.P95_UNKNOWN) if any_p95_known and meets_slo is None else None


def bills_tied(first: Bill, second: Bill) -> bool:
    """Whether the ranges of the two net bills touch, in cents; a bill without a range is known exactly."""
    ranges = [(round(bill.net_low_usd, 2), round(bill.net_high_usd, 2)) for bill in (first, second)]
    return any(low < high for low, high in ranges) and ranges[0][1] >= ranges[1][0]
