"""What a run itself costs: predicted before it, counted while it goes, stated after it. Pure.

Always too much rather than too little: free allowances are not counted, requests that overlap in an instance are billed
each on its own, all of a request's time at the client counts as time in an instance, a machine's whole CPU is busy. A
machine or a dyno is charged for as long as the run lasts, although it is paid for without the run too. Building and
deploying are not counted, and a target is taken to have the size in infra/targets.py and one instance, or as many as
answered.

    tariffs = {t.name: tariff(t.target, t.twin, prices) for t in run.targets}
    ahead = predicted(requests, tariffs, duration_s, starts=starts)     # ahead.total_usd, ahead.line("...")
    tally = Tally(tariffs)
    tally.add(sample)                                                  # each sample of each phase, as it is kept
    if tally.over(max_usd, elapsed_s): ...
    tally.spent(elapsed_s)                                             # a Spending, as `predicted` gives
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eval.cost import billing
from eval.cost.cost_model import CONTAINER_IMAGE_GIB, DEFAULT_STARTUP_S, RESPONSE_HEADER_BYTES
from eval.cost.estimate import DEFAULT_SERVICE_MS, RESPONSE_BODY_BYTES
from eval.cost.price_list import PriceList
from eval.errors import PriceError
from eval.formatting import join_words, usd
from eval.plan.config import COLD, IDLE, MAX_RATE, Config
from eval.plan.schedule import MAX_SEARCH_STEPS, MAX_STEP_DURATION_S, MIN_STEP_ARRIVALS, Block
from eval.samples.model import Sample
from infra.targets import TARGETS

HEROKU_HOURS_PER_MONTH = 720  # by which Heroku makes hours of its monthly prices
TLS_HANDSHAKE_BYTES = 5000  # out, of a new TLS connection
TWIN_NOTE = "a twin on this machine, which costs nothing"
CUSTOM_ENDPOINT_NOTE = "a foreign endpoint, whose price is not known"
UNKNOWN_PRICE_NOTE = "its price is not known: {}"


@dataclass(frozen=True)
class RateCard:
    """What is paid for one target. All zero for a twin; not `known` for an endpoint without a price."""

    instance_hour_usd: float = 0.0  # while an instance stands, asked or not
    busy_second_usd: float = 0.0  # of an instance at work
    request_usd: float = 0.0
    egress_byte_usd: float = 0.0  # sent to the client
    price_known: bool = True
    note: str | None = None  # why it is nothing, or not known


@dataclass(frozen=True)
class RunCost:
    """Dollars by target, at most."""

    usd_by_target: dict[str, float | None]  # None: not known
    notes_by_target: dict[str, str]  # target -> why it is nothing, or not known

    @property
    def total_usd(self) -> float:
        """Of all that is known."""
        return sum(amount for amount in self.usd_by_target.values() if amount is not None)

    def to_report(self) -> dict[str, Any]:
        targets = {
            name: amount if amount is not None else {"value": None, "reason": self.notes_by_target[name]}
            for name, amount in self.usd_by_target.items()
        }
        return {"usd": self.total_usd, "targets": targets}

    def summary_line(self, prefix: str) -> str:
        """For people; `prefix` is such as "The run will cost"."""
        paid_targets = [f"{name} {usd(amount)}" for name, amount in self.usd_by_target.items() if amount]
        text = f"{prefix} at most {usd(self.total_usd)}" + (f" ({', '.join(paid_targets)})" if paid_targets else "")
        for note in dict.fromkeys(self.notes_by_target.values()):
            names = [name for name, other_note in self.notes_by_target.items() if other_note == note]
            text += f"; {join_words(names)}: {note}"
        return text


def rate_card_for(target_name: str | None, is_twin: bool, prices: PriceList) -> RateCard:
    """What is paid for a target of this kind: a key of TARGETS, or None for a foreign endpoint."""
    if is_twin:
        return RateCard(note=TWIN_NOTE)
    if target_name not in TARGETS:
        return RateCard(price_known=False, note=CUSTOM_ENDPOINT_NOTE)
    target = TARGETS[target_name]
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
    return RateCard(
        instance_hour_usd=CONTAINER_IMAGE_GIB * unit_prices["image"] / billing.HOURS_PER_MONTH,
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
    """What a run of so many requests to each target will cost, if they take `service_s` each and it `duration_s`.

    starts: of instances, for each target; default: one, as after a long rest.
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
    """What a run has cost so far."""

    def __init__(self, rate_cards: Mapping[str, RateCard]):
        self.rate_cards = dict(rate_cards)
        self._request_usd: dict[str, float] = defaultdict(float)
        self._instance_ids: dict[str, set[str]] = defaultdict(set)

    def record(self, sample: Sample) -> None:
        """Count a request, the failed ones too: they may have been at work when the client gave up."""
        rate_card = self.rate_cards.get(sample.target)
        if rate_card is None or sample.error == "not_sent":
            return
        egress_bytes = sample.answer_bytes + RESPONSE_HEADER_BYTES + TLS_HANDSHAKE_BYTES * sample.new_connection
        busy_s = billing.round_up_billed_s(sample.service_ms / 1000)
        if sample.instance_id and sample.instance_id not in self._instance_ids[sample.target]:
            self._instance_ids[sample.target].add(sample.instance_id)
            busy_s += DEFAULT_STARTUP_S
        self._request_usd[sample.target] += (
            busy_s * rate_card.busy_second_usd + rate_card.request_usd + egress_bytes * rate_card.egress_byte_usd
        )

    def run_cost(self, elapsed_s: float) -> RunCost:
        """By target, `elapsed_s` seconds after the run began."""
        return _run_cost(
            self.rate_cards, self._request_usd, {name: len(ids) for name, ids in self._instance_ids.items()}, elapsed_s
        )

    def total_usd(self, elapsed_s: float) -> float:
        """All together."""
        return self.run_cost(elapsed_s).total_usd

    def exceeds(self, max_usd: float, elapsed_s: float) -> bool:
        """Whether the run has reached what it may cost."""
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
    """How much a schedule asks for, as far as that is known before it runs."""

    requests_by_target: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # of each target
    starts_by_target: dict[str, int] = field(
        default_factory=lambda: defaultdict(lambda: 1)
    )  # of each target's instances
    duration_s: float = 0.0


def demand_of_schedule(
    blocks: Iterable[Block], config: Config, service_s: float = DEFAULT_SERVICE_MS / 1000
) -> ScheduleDemand:
    """What `predicted` wants to know of a schedule. The search for the highest rate is taken to use all its steps.

    A search ends where a target breaks, which nobody knows before: its steps are counted at twice the rate that all
    processors of the instances allowed could serve, for a target without a known size at the rate it starts from.
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
        if block.scenario in (COLD, IDLE):
            demand.starts_by_target[block.target] += 1
            demand.duration_s += DEFAULT_STARTUP_S
        idle_gaps[block.target] += block.scenario == IDLE
    demand.duration_s += config.gap_s * max(idle_gaps.values(), default=0)  # those of all targets run at the same time
    return demand


def _max_search_rps(target_name: str, service_s: float) -> float:
    """That is tried of a target: the search doubles, so it may try twice what the target could serve at best."""
    target = TARGETS.get(target_name.partition("-")[0])
    return 2 * target.max_instances * math.ceil(target.vcpus) / service_s if target else 0.0
