"""The traffic at which two targets cost the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy

from eval.cost.billing import MAX_RPS, MIN_RPS, SECONDS_PER_MONTH

MIN_REQUESTS, MAX_REQUESTS = MIN_RPS * SECONDS_PER_MONTH, MAX_RPS * SECONDS_PER_MONTH  # range per month
POINTS_PER_DECADE = 100  # as close as the steps of single instances are at 40 of them, more than any target may have
TIE_USD = 0.005  # two bills that differ by less, or by less than TIE_FRACTION, are tied
TIE_FRACTION = 0.005
MIN_SPAN = 2.0  # a new order that lasts for less than this factor of traffic is a step, not a break-even

Cost = Callable[[float], float]  # requests per month -> dollars per month


@dataclass(frozen=True)
class Crossing:
    """The traffic at which the order of two bills changes."""

    requests: float
    first_below: bool  # whether the first of the two is cheaper below it


@dataclass(frozen=True)
class CostOrder:
    """How two bills compare over a range of traffic."""

    crossings: list[Crossing]  # ascending
    first_is_cheaper: bool | None  # below the first crossing; None if the bills never differ
    exceptions: list[tuple[float, float]]  # requests between which the order is another, for too short to be crossings


def compare_bills(first: Cost, second: Cost, low: float = MIN_REQUESTS, high: float = MAX_REQUESTS) -> CostOrder:
    """Scan a logarithmic grid for changes of order, then refine each.

    Costs step up where another instance is needed, so there can be several crossings, and a step can jump across. A
    new order that does not last is no crossing, but an exception; the shortest is taken out first, so that it does not
    matter from which end the traffic is looked at. Where both are free, there is no order.
    """
    n_points = max(2, round(np.log10(high / low) * POINTS_PER_DECADE) + 1)
    signs = [(x, sign) for x in np.geomspace(low, high, n_points).tolist() if (sign := _sign(first(x), second(x)))]
    crossings = [
        Crossing(_root(lambda x: first(x) - second(x), x0, x1), first_below=before < 0)
        for (x0, before), (x1, after) in pairwise(signs)
        if before != after
    ]
    exceptions: list[tuple[float, float]] = []
    while len(crossings) > 1:
        spans = [after.requests / before.requests for before, after in pairwise(crossings)]
        shortest = spans.index(min(spans))
        if spans[shortest] >= MIN_SPAN:
            break
        exceptions.append((crossings[shortest].requests, crossings[shortest + 1].requests))
        del crossings[shortest : shortest + 2]  # the order is back to what it was
    return CostOrder(crossings, signs[0][1] < 0 if signs else None, sorted(exceptions))


@dataclass(frozen=True)
class CrossingRange:
    """A crossing of two bills, and where it lies at the bounds of the bills."""

    crossing: Crossing
    low: float  # requests a month
    high: float
    may_be_absent: bool  # at one of the bounds there is none


def crossing_ranges(order: CostOrder, orders_at_bounds: Sequence[CostOrder]) -> list[CrossingRange]:
    """Each crossing with its range: the nearest of the same direction at each bound."""
    ranges = []
    for crossing in order.crossings:
        at_bounds = [
            min(
                (c.requests for c in bound.crossings if c.first_below == crossing.first_below),
                key=lambda requests, here=crossing.requests: abs(np.log(requests / here)),
                default=None,
            )
            for bound in orders_at_bounds
        ]
        found = [crossing.requests, *(requests for requests in at_bounds if requests is not None)]
        ranges.append(CrossingRange(crossing, min(found), max(found), None in at_bounds))
    return ranges


def _sign(a: float, b: float) -> int:
    """-1 if a is cheaper, 1 if b is, 0 if they are tied."""
    if abs(a - b) <= max(TIE_USD, TIE_FRACTION * max(a, b)):
        return 0
    return -1 if a < b else 1


def _root(difference: Cost, x0: float, x1: float) -> float:
    return float(scipy.optimize.brentq(difference, x0, x1, xtol=0.5, rtol=1e-9))  # type: ignore[arg-type]  # any callable does
