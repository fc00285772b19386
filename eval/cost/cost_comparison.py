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

from eval.codes import Reason
from eval.cost import billing
from eval.cost.billing import ResourceDemand
from eval.cost.cost_model import CostModel, build_cost_model
from eval.cost.price_list import PriceList
from eval.samples.model import Sample, TargetRun
from eval.stats.bootstrap import REPLICATES, bootstrap_p, percentile_interval, relative_change, relative_changes

MEAN_FIELDS = (
    "service_s",
    "billed_s",
    "cpu_s",
    "egress_bytes",
)  # fields of ResourceDemand that are means over requests


@dataclass(frozen=True)
class CostChange:
    """Dollars a month at one traffic, by list price unless the name says otherwise."""

    a: float
    b: float
    price_effect: float  # adds up with speed_effect to b - a
    speed_effect: float
    net_a: float  # after the free allowances
    net_b: float
    change: float  # as a fraction of a
    low: float  # 95% interval of it
    high: float
    p: float


@dataclass(frozen=True)
class PricedRun:
    """A target of a run with its work, whole and by block."""

    cost_model: CostModel
    blocks: tuple[tuple[int, ResourceDemand], ...]  # requests, and the work of those alone


def price_run(
    target_run: TargetRun,
    succeeded: Sequence[Sample],
    prices: PriceList,
    max_rate_rps: float | None = None,
    peak: float = billing.DEFAULT_PEAK,
) -> PricedRun | Reason:
    """What is needed to compare costs, or the reason why there is no cost. The rate is that of one instance."""
    run_model = build_cost_model(target_run, succeeded, prices, max_rate_rps, peak=peak)
    if isinstance(run_model, Reason):
        return run_model
    samples_by_block: Mapping[int, list[Sample]] = defaultdict(list)
    for sample in succeeded:
        samples_by_block[sample.block].append(sample)
    block_models = [
        (len(block_samples), build_cost_model(target_run, block_samples, prices))
        for block_samples in samples_by_block.values()
    ]
    return PricedRun(run_model, tuple((n, model.demand) for n, model in block_models if isinstance(model, CostModel)))


def cost_change(
    a: PricedRun, b: PricedRun, requests_per_month: int, seed: int, n_replicates: int = REPLICATES
) -> CostChange:
    """From run a to run b, at so many requests a month. The interval is that of the work; prices are not uncertain."""
    rng = np.random.default_rng(seed)
    bill_a, bill_b = a.cost_model.bill(requests_per_month), b.cost_model.bill(requests_per_month)
    bill_a_at_prices_b = dataclasses.replace(a.cost_model, prices=b.cost_model.prices).bill(requests_per_month)
    resampled_a, resampled_b = (_resampled_bills(side, requests_per_month, rng, n_replicates) for side in (a, b))
    replicates = relative_changes(resampled_a, resampled_b)
    low, high = percentile_interval(replicates)
    return CostChange(
        a=bill_a.gross_usd,
        b=bill_b.gross_usd,
        price_effect=bill_a_at_prices_b.gross_usd - bill_a.gross_usd,
        speed_effect=bill_b.gross_usd - bill_a_at_prices_b.gross_usd,
        net_a=bill_a.net_usd,
        net_b=bill_b.net_usd,
        change=relative_change(bill_a.gross_usd, bill_b.gross_usd),
        low=low,
        high=high,
        p=bootstrap_p(replicates),
    )


def _resampled_bills(
    side: PricedRun, requests_per_month: int, rng: np.random.Generator, n_replicates: int
) -> np.ndarray:
    """The bill again and again, each time for blocks drawn anew."""
    sizes = np.array([n for n, _ in side.blocks], dtype=float)
    means = np.array([[getattr(resampled_demand, name) for name in MEAN_FIELDS] for _, resampled_demand in side.blocks])
    weights = rng.multinomial(len(sizes), [1 / len(sizes)] * len(sizes), size=n_replicates) * sizes
    resampled_means = weights @ means / weights.sum(axis=1, keepdims=True)
    demand = side.cost_model.demand
    bills = []
    for row in resampled_means.tolist():
        resampled = dict(zip(MEAN_FIELDS, row, strict=True))
        speedup = 1.0 if demand.rate_measured else demand.service_s / resampled["service_s"]
        resampled_demand = dataclasses.replace(demand, **resampled, instance_rps=demand.instance_rps * speedup)
        bills.append(dataclasses.replace(side.cost_model, demand=resampled_demand).bill(requests_per_month).gross_usd)
    return np.array(bills)
