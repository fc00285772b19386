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
from eval.cost.cost_model import BOOT_S, HEADER_BYTES, IMAGE_GIB
from eval.cost.estimate import ANSWER_BYTES, SERVICE_MS
from eval.cost.price_list import Prices
from eval.errors import PriceError
from eval.formatting import listing, usd
from eval.plan.config import COLD, IDLE, MAX_RATE, Config
from eval.plan.schedule import SEARCH_ARRIVALS, SEARCH_STEP_S, SEARCH_STEPS, Block
from eval.samples.model import Sample
from infra.targets import TARGETS

DYNO_MONTH_H = 720  # by which Heroku makes hours of its monthly prices
HANDSHAKE_BYTES = 5000  # out, of a new TLS connection
TWIN = "a twin on this machine, which costs nothing"
FOREIGN = "a foreign endpoint, whose price is not known"
UNSOLD = "its price is not known: {}"


@dataclass(frozen=True)
class Tariff:
    """What is paid for one target. All zero for a twin; not `known` for an endpoint without a price."""

    hour_usd: float = 0.0  # while an instance stands, asked or not
    second_usd: float = 0.0  # of an instance at work
    request_usd: float = 0.0
    byte_usd: float = 0.0  # sent to the client
    known: bool = True
    note: str | None = None  # why it is nothing, or not known


@dataclass(frozen=True)
class Spending:
    """Dollars by target, at most."""

    usd: dict[str, float | None]  # None: not known
    notes: dict[str, str]  # target -> why it is nothing, or not known

    @property
    def total_usd(self) -> float:
        """Of all that is known."""
        return sum(amount for amount in self.usd.values() if amount is not None)

    def to_json(self) -> dict[str, Any]:
        targets = {
            name: amount if amount is not None else {"value": None, "reason": self.notes[name]}
            for name, amount in self.usd.items()
        }
        return {"usd": self.total_usd, "targets": targets}

    def line(self, what: str) -> str:
        """For people; `what` is such as "The run will cost"."""
        paid = [f"{name} {usd(amount)}" for name, amount in self.usd.items() if amount]
        text = f"{what} at most {usd(self.total_usd)}" + (f" ({', '.join(paid)})" if paid else "")
        for note in dict.fromkeys(self.notes.values()):
            text += f"; {listing([name for name, of in self.notes.items() if of == note])}: {note}"
        return text


def tariff(target_name: str | None, twin: bool, prices: Prices) -> Tariff:
    """What is paid for a target of this kind: a key of TARGETS, or None for a foreign endpoint."""
    if twin:
        return Tariff(note=TWIN)
    if target_name not in TARGETS:
        return Tariff(known=False, note=FOREIGN)
    target = TARGETS[target_name]
    try:
        rates = {role: price.amount for role, price in billing.used_prices(target, prices).items()}
    except PriceError as error:
        return Tariff(known=False, note=UNSOLD.format(error))
    if target.billing == "hourly":
        surplus = max(0.0, target.vcpus - target.baseline_vcpus) * rates.get("surplus", 0.0)
        disk = target.disk_gb * rates["disk"] / billing.HOURS_PER_MONTH
        return Tariff(hour_usd=rates["hour"] + rates["ipv4"] + disk + surplus, byte_usd=rates["egress"] / 1e9)
    if target.billing == "dyno":
        return Tariff(hour_usd=rates["month"] / DYNO_MONTH_H)
    return Tariff(
        hour_usd=IMAGE_GIB * rates["image"] / billing.HOURS_PER_MONTH,
        second_usd=target.vcpus * rates["vcpu_s"] + target.memory_mib / 1024 * rates["gib_s"],
        request_usd=rates["million"] / 1e6,
        byte_usd=rates["egress"] / 2**30,
    )


def predicted(
    requests: Mapping[str, int], tariffs: Mapping[str, Tariff], duration_s: float,
    service_s: float = SERVICE_MS / 1000, starts: Mapping[str, int] | None = None,
) -> Spending:  # fmt: skip
    """What a run of so many requests to each target will cost, if they take `service_s` each and it `duration_s`.

    starts: of instances, for each target; default: one, as after a long rest.
    """
    sent = ANSWER_BYTES + HEADER_BYTES + HANDSHAKE_BYTES
    of_requests = {}
    for name, paid in tariffs.items():
        busy_s = requests.get(name, 0) * billing.rounded_up(service_s) + (starts or {}).get(name, 1) * BOOT_S
        each = paid.request_usd + sent * paid.byte_usd
        of_requests[name] = busy_s * paid.second_usd + requests.get(name, 0) * each
    return _spending(tariffs, of_requests, dict.fromkeys(tariffs, 1), duration_s)


class Tally:
    """What a run has cost so far."""

    def __init__(self, tariffs: Mapping[str, Tariff]):
        self._tariffs = dict(tariffs)
        self._of_requests: dict[str, float] = defaultdict(float)
        self._instances: dict[str, set[str]] = defaultdict(set)

    def add(self, sample: Sample) -> None:
        """Count a request, the failed ones too: they may have been at work when the client gave up."""
        paid = self._tariffs.get(sample.target)
        if paid is None or sample.error == "not_sent":
            return
        sent = sample.answer_bytes + HEADER_BYTES + HANDSHAKE_BYTES * sample.new_connection
        busy_s = billing.rounded_up(sample.service_ms / 1000)
        if sample.instance_id and sample.instance_id not in self._instances[sample.target]:
            self._instances[sample.target].add(sample.instance_id)
            busy_s += BOOT_S
        self._of_requests[sample.target] += busy_s * paid.second_usd + paid.request_usd + sent * paid.byte_usd

    def spent(self, elapsed_s: float) -> Spending:
        """By target, `elapsed_s` seconds after the run began."""
        return _spending(self._tariffs, self._of_requests, {n: len(i) for n, i in self._instances.items()}, elapsed_s)

    def usd(self, elapsed_s: float) -> float:
        """All together."""
        return self.spent(elapsed_s).total_usd

    def over(self, cap_usd: float, elapsed_s: float) -> bool:
        """Whether the run has reached what it may cost."""
        return self.usd(elapsed_s) >= cap_usd


def _spending(
    tariffs: Mapping[str, Tariff], of_requests: Mapping[str, float], instances: Mapping[str, int], duration_s: float
) -> Spending:
    dollars = {
        name: of_requests.get(name, 0.0) + max(1, instances.get(name, 1)) * paid.hour_usd * duration_s / 3600
        if paid.known
        else None
        for name, paid in tariffs.items()
    }
    return Spending(dollars, {name: paid.note for name, paid in tariffs.items() if paid.note})


@dataclass
class Plan:
    """How much a schedule asks for, as far as that is known before it runs."""

    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # of each target
    starts: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))  # of each target's instances
    duration_s: float = 0.0


def planned(blocks: Iterable[Block], config: Config, service_s: float = SERVICE_MS / 1000) -> Plan:
    """What `predicted` wants to know of a schedule. The search for the highest rate is taken to use all its steps.

    A search ends where a target breaks, which nobody knows before: its steps are counted at twice the rate that all
    processors of the instances allowed could serve, for a target without a known size at the rate it starts from.
    """
    plan, gaps = Plan(), Counter[str]()
    for block in blocks:
        plan.requests[block.target] += len(block.images)
        if block.scenario == MAX_RATE:
            rate_rps = max(config.rate_rps, _most_rps(block.target, service_s))
            length_s = min(max(config.step_s, SEARCH_ARRIVALS / config.rate_rps), SEARCH_STEP_S)
            plan.requests[block.target] += round(SEARCH_STEPS * rate_rps * length_s)
            plan.duration_s += SEARCH_STEPS * length_s
        elif block.offsets_s is not None:
            plan.duration_s += max(block.offsets_s, default=0.0) + service_s
        else:
            plan.duration_s += len(block.images) * service_s
        if block.scenario in (COLD, IDLE):
            plan.starts[block.target] += 1
            plan.duration_s += BOOT_S
        gaps[block.target] += block.scenario == IDLE
    plan.duration_s += config.gap_s * max(gaps.values(), default=0)  # those of all targets run at the same time
    return plan


def _most_rps(name: str, service_s: float) -> float:
    """That is tried of a target: the search doubles, so it may try twice what the target could serve at best."""
    target = TARGETS.get(name.partition("-")[0])
    return 2 * target.max_instances * math.ceil(target.vcpus) / service_s if target else 0.0
