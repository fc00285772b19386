"""What a target costs in two runs, the difference split into what prices did and what speed did.

Each run is priced by the price list that it was made with. Between the two bills stands a third: the first run's work
at the second run's prices. From the first bill to it prices changed and nothing else; from it to the last the work.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.cost.billing import Work
from eval.cost.cost_model import Costing, costing
from eval.cost.price_list import Prices
from eval.samples.model import Sample, TargetRun
from eval.stats.bootstrap import REPLICATES, interval, relative, relative_all, two_sided

MEANS = ("service_s", "window_s", "cpu_s", "sent_bytes")  # fields of Work that are means over requests


@dataclass(frozen=True)
class CostChange:
    """Dollars a month at one traffic, by list price unless the name says otherwise."""

    a: float
    b: float
    by_price: float  # adds up with by_speed to b - a
    by_speed: float
    net_a: float  # after the free allowances
    net_b: float
    change: float  # as a share of a
    low: float  # 95% interval of it
    high: float
    p: float


@dataclass(frozen=True)
class Priced:
    """A target of a run with its work, whole and by block."""

    whole: Costing
    blocks: tuple[tuple[int, Work], ...]  # requests, and the work of those alone


def priced(
    run: TargetRun, answered: Sequence[Sample], prices: Prices, max_rate_rps: float | None = None
) -> Priced | str:
    """What is needed to compare costs, or the reason why there is no cost. The rate is that of one instance."""
    whole = costing(run, answered, prices, max_rate_rps)
    if isinstance(whole, str):
        return whole
    grouped: Mapping[int, list[Sample]] = defaultdict(list)
    for sample in answered:
        grouped[sample.block].append(sample)
    each = [(len(of), costing(run, of, prices)) for of in grouped.values()]
    return Priced(whole, tuple((n, found.work) for n, found in each if isinstance(found, Costing)))


def cost_change(a: Priced, b: Priced, requests: int, seed: int, replicates: int = REPLICATES) -> CostChange:
    """From run a to run b, at so many requests a month. The interval is that of the work; prices are not uncertain."""
    dice = np.random.default_rng(seed)
    bill_a, bill_b = a.whole.bill(requests), b.whole.bill(requests)
    between = dataclasses.replace(a.whole, prices=b.whole.prices).bill(requests)
    drawn_a, drawn_b = (_drawn_bills(side, requests, dice, replicates) for side in (a, b))
    drawn = relative_all(drawn_a, drawn_b)
    low, high = interval(drawn)
    return CostChange(
        a=bill_a.gross,
        b=bill_b.gross,
        by_price=between.gross - bill_a.gross,
        by_speed=bill_b.gross - between.gross,
        net_a=bill_a.net,
        net_b=bill_b.net,
        change=relative(bill_a.gross, bill_b.gross),
        low=low,
        high=high,
        p=two_sided(drawn),
    )


def _drawn_bills(side: Priced, requests: int, dice: np.random.Generator, replicates: int) -> np.ndarray:
    """The bill again and again, each time for blocks drawn anew."""
    sizes = np.array([n for n, _ in side.blocks], dtype=float)
    means = np.array([[getattr(work, name) for name in MEANS] for _, work in side.blocks])
    weights = dice.multinomial(len(sizes), [1 / len(sizes)] * len(sizes), size=replicates) * sizes
    drawn = weights @ means / weights.sum(axis=1, keepdims=True)
    whole = side.whole.work
    bills = []
    for row in drawn.tolist():
        found = dict(zip(MEANS, row, strict=True))
        faster = 1.0 if whole.rated else whole.service_s / found["service_s"]
        work = dataclasses.replace(whole, **found, instance_rps=whole.instance_rps * faster)
        bills.append(dataclasses.replace(side.whole, work=work).bill(requests).gross)
    return np.array(bills)
