"""The cost of a run itself: estimated before it, metered while it runs, reported after it. Pure.

Before the run each request counts with DEFAULT_SERVICE_MS. What is metered is an upper bound: free allowances are not
counted, concurrent requests in an instance are billed each on its own, all of a request's time at the client counts as
time in an instance, and all of a machine's CPU counts as busy. A machine or a dyno is charged for the duration of the
run, although it is paid for without the run too. Not counted are building and deploying, and the idle time of instances
that Google keeps warm (`minInstances`). A target has the size by which it is priced, and one instance or as many as
responded.

    rate_cards = {t.name: rate_card_for(t, prices) for t in run.targets}
    estimate = estimate_run_cost(requests, rate_cards, duration_s)      # a RunCost: estimate.total_usd
    meter = CostMeter(rate_cards)
    meter.record(sample)                                                # each sample of each phase, as it is written
    if meter.exceeds(max_usd, elapsed_s): ...
    meter.run_cost(elapsed_s)                                           # a RunCost, as `estimate_run_cost` returns
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eval.cost import billing
from eval.cost.cost_model import DEFAULT_STARTUP_S, RESPONSE_HEADER_BYTES, TLS_HANDSHAKE_BYTES
from eval.cost.estimate import DEFAULT_SERVICE_MS, RESPONSE_BODY_BYTES
from eval.cost.price_list import PriceList
from eval.errors import PriceError
from eval.formatting import join_words, usd
from eval.plan.config import COLD, IDLE, MAX_RATE, Config
from eval.plan.schedule import MAX_SEARCH_STEPS, MAX_STEP_DURATION_S, MIN_STEP_ARRIVALS, Block
from eval.samples.model import Sample, TargetRun
from eval.samples.sizes import priced_target
from infra.local.artifact_size import stored_image_gib
from infra.targets import TARGETS
from service.engines.names import PLAIN_ENGINE

HEROKU_HOURS_PER_MONTH = 720  # by which Heroku divides its monthly prices
TWIN_NOTE = "a local twin, which costs nothing"
CUSTOM_ENDPOINT_NOTE = "a custom endpoint, whose price is unknown"
UNKNOWN_PRICE_NOTE = "its price is unknown: {}"


@dataclass(frozen=True)
class RateCard:
    """The rates of one target. All zero for a twin; price_known is False for an endpoint without a price."""

    instance_hour_usd: float = 0.0  # of an instance, idle or busy
    busy_second_usd: float = 0.0  # of an instance with a request
    request_usd: float = 0.0
    egress_byte_usd: float = 0.0  # sent to the client
    price_known: bool = True
    note: str | None = None  # why it is zero or unknown


@dataclass(frozen=True)
class RunCost:
    """Dollars by target, as upper bounds."""

    usd_by_target: dict[str, float | None]  # None: unknown
    notes_by_target: dict[str, str]  # target -> why it is zero or unknown

    @property
    def total_usd(self) -> float:
        """The sum of the known amounts."""
        return sum(amount for amount in self.usd_by_target.values() if amount is not None)

    def to_report(self) -> dict[str, Any]:
        targets = {
            name: amount if amount is not None else {"value": None, "reason": self.notes_by_target[name]}
            for name, amount in self.usd_by_target.items()
        }
        return {"usd": self.total_usd, "targets": targets}

    def summary_line(self) -> str:
        """What a run will cost, as a sentence."""
        paid_targets = [f"{name} {usd(amount)}" for name, amount in self.usd_by_target.items() if amount]
        text = f"At {DEFAULT_SERVICE_MS:g} ms a request the run will cost {usd(self.total_usd)}"
        text += f" ({', '.join(paid_targets)})" if paid_targets else ""
        for note in dict.fromkeys(self.notes_by_target.values()):
            names = [name for name, other_note in self.notes_by_target.items() if other_note == note]
            text += f"; {join_words(names)}: {note}"
        return text


def rate_card_for(run: TargetRun, prices: PriceList) -> RateCard:
    """The rates of an endpoint."""
    if run.twin:
        return RateCard(note=TWIN_NOTE)
    target = priced_target(run)
    if target is None:
        return RateCard(price_known=False, note=CUSTOM_ENDPOINT_NOTE)
    try:
        unit_prices = {role: price.amount for role, price in billing.prices_for(target, prices).items()}
    except PriceError as error:
        return RateCard(price_known=False, note=UNKNOWN_PRICE_NOTE.format(error))
    if target.billing == "hourly":
        surplus_usd = max(0.0, target.vcpus - target.baseline_vcpus) * unit_prices.get("surplus", 0.0)
        disk_usd = target.disk_gb * unit_prices["disk"] / billing.HOURS_PER_MONTH
        return RateCard(
            instance_hour_usd=unit_prices["hour"] + unit_prices["ipv4"] + disk_usd + surplus_usd,
            egress_byte_usd=unit_prices["egress"] / 1e9,
        )
    if target.billing == "dyno":
        return RateCard(instance_hour_usd=unit_prices["month"] / HEROKU_HOURS_PER_MONTH)
    image_hour_usd = stored_image_gib(PLAIN_ENGINE) * unit_prices["image"] / billing.HOURS_PER_MONTH
    if target.billing in ("endpoint", "serverless"):
        return RateCard(
            instance_hour_usd=image_hour_usd + unit_prices.get("hour", 0.0),
            busy_second_usd=target.memory_mib / 1024 * unit_prices.get("gb_s", 0.0),
            request_usd=billing.REQUEST_BYTES / 1e9 * unit_prices["processed"],
            egress_byte_usd=(unit_prices["egress"] + unit_prices["processed"]) / 1e9,
        )
    return RateCard(
        instance_hour_usd=image_hour_usd,
        busy_second_usd=target.vcpus * unit_prices["vcpu_s"] + target.memory_mib / 1024 * unit_prices["gib_s"],
        request_usd=unit_prices["million"] / 1e6,
        egress_byte_usd=unit_prices["egress"] / 2**30,
    )


def estimate_run_cost(
    requests_by_target: Mapping[str, int],
    rate_cards: Mapping[str, RateCard],
    duration_s: float,
    service_s: float = DEFAULT_SERVICE_MS / 1000,
    starts_by_target: Mapping[str, int] | None = None,
) -> RunCost:
    """The cost of a run of `duration_s` with so many requests to each target, of `service_s` each.

    starts_by_target: instance starts; default: one per target, as after an idle period.
    """
    egress_bytes = RESPONSE_BODY_BYTES + RESPONSE_HEADER_BYTES + TLS_HANDSHAKE_BYTES
    request_usd = {}
    for name, rate_card in rate_cards.items():
        busy_s = (
            requests_by_target.get(name, 0) * billing.round_up_billed_s(service_s)
            + (starts_by_target or {}).get(name, 1) * DEFAULT_STARTUP_S
        )
        usd_per_request = rate_card.request_usd + egress_bytes * rate_card.egress_byte_usd
        request_usd[name] = busy_s * rate_card.busy_second_usd + requests_by_target.get(name, 0) * usd_per_request
    return _run_cost(rate_cards, request_usd, dict.fromkeys(rate_cards, 1), duration_s)


class CostMeter:
    """Counts what a run has cost so far."""

    def __init__(self, rate_cards: Mapping[str, RateCard]):
        self.rate_cards = dict(rate_cards)
        self._request_usd: dict[str, float] = defaultdict(float)
        self._instance_ids: dict[str, set[str]] = defaultdict(set)

    def record(self, sample: Sample) -> None:
        """Count a request. Failed ones count too: the instance may have worked on them."""
        rate_card = self.rate_cards.get(sample.target)
        if rate_card is None or sample.error == "dropped":
            return
        egress_bytes = sample.response_bytes + RESPONSE_HEADER_BYTES + TLS_HANDSHAKE_BYTES * sample.new_connection
        busy_s = billing.round_up_billed_s(sample.service_time_ms / 1000)
        if sample.instance_id and sample.instance_id not in self._instance_ids[sample.target]:
            self._instance_ids[sample.target].add(sample.instance_id)
            busy_s += DEFAULT_STARTUP_S
        self._request_usd[sample.target] += (
            busy_s * rate_card.busy_second_usd + rate_card.request_usd + egress_bytes * rate_card.egress_byte_usd
        )

    def run_cost(self, elapsed_s: float) -> RunCost:
        """The cost by target, `elapsed_s` seconds after the start of the run."""
        return _run_cost(
            self.rate_cards, self._request_usd, {name: len(ids) for name, ids in self._instance_ids.items()}, elapsed_s
        )

    def total_usd(self, elapsed_s: float) -> float:
        """The cost of all targets."""
        return self.run_cost(elapsed_s).total_usd

    def exceeds(self, max_usd: float, elapsed_s: float) -> bool:
        """Whether the run has reached its cost limit."""
        return self.total_usd(elapsed_s) >= max_usd


def _run_cost(
    rate_cards: Mapping[str, RateCard],
    request_usd: Mapping[str, float],
    instances: Mapping[str, int],
    duration_s: float,
) -> RunCost:
    usd_by_target = {
        name: request_usd.get(name, 0.0)
        + max(1, instances.get(name, 1)) * rate_card.instance_hour_usd * duration_s / 3600
        if rate_card.price_known
        else None
        for name, rate_card in rate_cards.items()
    }
    return RunCost(usd_by_target, {name: rate_card.note for name, rate_card in rate_cards.items() if rate_card.note})


@dataclass
class ScheduleDemand:
    """The requests, starts and duration of a schedule, as far as they are known before it runs."""

    requests_by_target: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    starts_by_target: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))  # instance starts
    duration_s: float = 0.0


def demand_of_schedule(
    blocks: Iterable[Block], config: Config, service_s: float = DEFAULT_SERVICE_MS / 1000
) -> ScheduleDemand:
    """The input of `estimate_run_cost` for a schedule. A rate search counts with its maximum number of steps.

    The rate at which a search ends is unknown before: its steps count with twice the rate that all CPUs of the maximum
    number of instances could serve, and for a target of unknown size with the rate that the search starts at.
    """
    demand, idle_gaps = ScheduleDemand(), Counter[str]()
    for block in blocks:
        demand.requests_by_target[block.target] += len(block.image_indices)
        if block.scenario == MAX_RATE:
            rate_rps = max(config.rate_rps, _max_search_rps(block.target, service_s))
            step_duration_s = min(max(config.step_s, MIN_STEP_ARRIVALS / config.rate_rps), MAX_STEP_DURATION_S)
            demand.requests_by_target[block.target] += round(MAX_SEARCH_STEPS * rate_rps * step_duration_s)
            demand.duration_s += MAX_SEARCH_STEPS * step_duration_s
        elif block.offsets_s is not None:
            demand.duration_s += max(block.offsets_s, default=0.0) + service_s
        else:
            demand.duration_s += len(block.image_indices) * service_s
        if block.scenario in (COLD, IDLE) and block.phase == "measure":
            demand.starts_by_target[block.target] += 1
            demand.duration_s += DEFAULT_STARTUP_S
        idle_gaps[block.target] += block.scenario == IDLE
    demand.duration_s += config.gap_s * max(idle_gaps.values(), default=0)  # at the same time
    return demand


def _max_search_rps(target_name: str, service_s: float) -> float:
    """The highest rate that a search may try: it doubles, so up to twice what the target could serve."""
    target = TARGETS.get(target_name.partition("-")[0])
    return 2 * target.max_instances * math.ceil(target.vcpus) / service_s if target else 0.0
