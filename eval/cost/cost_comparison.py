"""What a target costs in two runs, the difference split into what prices did, the machine, and the target's own speed.

Each run is priced by the price list that it was made with. Between the two bills stand two others: the first run's work
at the second run's prices, and the second run's work as it would be if its machine were as fast as the first run's.

How uncertain a bill is follows from how uncertain the work is: it is made again for the ends of that interval. What was
measured once, and so has no interval, is held: start-up times are those of run A, and so is a highest rate under load,
faster or slower as the work is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.codes import Reason
from eval.cost import billing
from eval.cost.cost_model import (
    CostModel,
    build_cost_model,
    samples_with_service_time,
    service_times_s,
    slowed_demand,
)
from eval.cost.price_list import PriceList
from eval.samples.model import Sample, TargetRun
from eval.stats.comparison import MAX_LOG_RATIO, Ratio, relative_change

BISECTIONS = 20
UNKNOWN_MACHINE = 4.0  # so many times slower or faster it may be in the second run, where that is not known
EQUAL_BILLS = 0.001  # so near, relative to each other, two bills are equal


@dataclass(frozen=True)
class PricedRun:
    """A target of a run with its work."""

    cost_model: CostModel
    times_s: np.ndarray  # of each request, in the service

    def gross_usd(self, requests_per_month: int, slowdown: float = 1.0) -> float:
        """A month's bill, if the work took so many times as long."""
        demand = self.cost_model.demand
        slower = replace(slowed_demand(demand, self.times_s, slowdown), startup_s=demand.startup_s)
        return replace(self.cost_model, demand=slower).bill(requests_per_month).gross_usd


@dataclass(frozen=True)
class CostChange:
    """Dollars a month at one traffic, by list price unless the name says otherwise."""

    a: float
    b: float
    price_effect: float  # adds up with the two others to b - a
    machine_effect: float
    speed_effect: float
    net_a: float  # after the free allowances
    net_b: float
    instances_a: int
    instances_b: int
    change: float  # as a fraction of a
    own_change: float  # the same without what the machine did
    low: float  # 95% interval of it
    high: float
    p: float


def price_run(
    target_run: TargetRun,
    succeeded: Sequence[Sample],
    prices: PriceList,
    max_rate_rps: float | None = None,
    peak: float = billing.DEFAULT_PEAK,
    network_ms: float = 0.0,
) -> PricedRun | Reason:
    """What is needed to compare costs, or the reason why there is no cost. The rate is that of one instance.

    network_ms: of the client's time, what is no work of the instance, for a service that does not tell its own.
    """
    cost_model = build_cost_model(target_run, succeeded, prices, max_rate_rps, peak=peak, network_ms=network_ms)
    if isinstance(cost_model, Reason):
        return cost_model
    return PricedRun(cost_model, service_times_s(samples_with_service_time(succeeded, network_ms)))


def cost_change(
    a: PricedRun, b: PricedRun, requests_per_month: int, machine: float | None, own: Ratio | None
) -> CostChange:
    """From run a to run b, at so many requests a month.

    machine: how many times slower it was in b; None where it is not known. own: of the mean work, b's over a's, without
    the machine; None of the target that the machine is seen in.
    """
    b = _with_what_has_no_interval_of(a, b)
    bill_a, bill_b = (side.cost_model.bill(requests_per_month) for side in (a, b))
    usd_a, usd_b = bill_a.gross_usd, bill_b.gross_usd
    at_prices_b = replace(a, cost_model=replace(a.cost_model, prices=b.cost_model.prices)).gross_usd(requests_per_month)

    def own_usd(factor: float) -> float:
        """Of run b's own work, if that were so many times what it was."""
        return b.gross_usd(requests_per_month, factor / (machine or 1.0))

    if machine is None:  # it explains no change of a bill that such a factor leaves as it is
        own_b, low_usd, high_usd = (own_usd(factor) for factor in (1.0, 1 / UNKNOWN_MACHINE, UNKNOWN_MACHINE))
        p = float(low_usd <= usd_a <= high_usd or _are_equal(low_usd, usd_a))
    elif own is None:
        own_b = low_usd = high_usd = at_prices_b
        p = float(_are_equal(own_b, usd_a))
    else:
        own_b = own_usd(1.0)
        low_usd, high_usd = (own_usd(_bounded(end / own.ratio)) for end in (own.low, own.high))
        p = _p_of_equal_bills(own, own_usd, usd_a)
    return CostChange(
        a=usd_a,
        b=usd_b,
        price_effect=at_prices_b - usd_a,
        machine_effect=usd_b - own_b,
        speed_effect=own_b - at_prices_b,
        net_a=bill_a.net_usd,
        net_b=bill_b.net_usd,
        instances_a=bill_a.instances,
        instances_b=bill_b.instances,
        change=relative_change(usd_a, usd_b),
        own_change=relative_change(usd_a, own_b),
        low=relative_change(usd_a, low_usd),
        high=relative_change(usd_a, high_usd),
        p=p,
    )


def _with_what_has_no_interval_of(a: PricedRun, b: PricedRun) -> PricedRun:
    demand_a, demand_b = a.cost_model.demand, b.cost_model.demand
    instance_rps = demand_b.instance_rps
    if demand_a.rate_measured:
        instance_rps = demand_a.instance_rps * demand_a.service_s / demand_b.service_s
    demand = replace(demand_b, startup_s=demand_a.startup_s, instance_rps=instance_rps)
    return replace(b, cost_model=replace(b.cost_model, demand=demand))


def _are_equal(a_usd: float, b_usd: float) -> bool:
    return math.isclose(a_usd, b_usd, rel_tol=EQUAL_BILLS)


def _bounded(factor: float) -> float:
    return max(math.exp(-MAX_LOG_RATIO), min(math.exp(MAX_LOG_RATIO), factor))


def _p_of_equal_bills(own: Ratio, own_usd: Callable[[float], float], usd_a: float) -> float:
    """The p-value of the nearest work with which run b's bill would be a's."""
    if _are_equal(own_usd(1.0), usd_a):
        return 1.0
    dearer = own_usd(1.0) > usd_a
    unequal, equal = 0.0, -MAX_LOG_RATIO if dearer else MAX_LOG_RATIO  # logarithms of factors

    def reaches(log_factor: float) -> bool:
        usd = own_usd(math.exp(log_factor))
        return _are_equal(usd, usd_a) or (usd < usd_a) == dearer

    if not reaches(equal):
        return 0.0
    for _ in range(BISECTIONS):
        middle = (unequal + equal) / 2
        unequal, equal = (unequal, middle) if reaches(middle) else (middle, equal)
    return own.p_of(own.ratio * math.exp(equal))
