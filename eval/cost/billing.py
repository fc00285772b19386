"""What a month of traffic costs on each target: the providers' billing rules as pure functions.

A bill is *gross* (every unit at list price) and *net* (after the free allowances, as if nothing else used them).
Traffic is Poisson and even over the month. Each formula takes what one request was measured to need (`Work`).

    hourly    EC2: machines by the hour, their disks and addresses, surplus CPU credits, egress
    dyno      Heroku: dynos by the month; no meter for requests or egress
    request   Cloud Run, Cloud Functions: seconds in which at least one request is served, requests, egress
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eval.cost.price_list import Price, Prices
from infra.targets import ONE_DYNO_SIZES, Target

REQUESTS_PER_MONTH = 1_000_000  # the traffic at which targets are compared
HOURS_PER_MONTH = 730
MONTH_S = HOURS_PER_MONTH * 3600
LOW_RPS, HIGH_RPS = 1e-3, 1e4  # the traffic that is looked at: from one request in a quarter of an hour
UTILISATION = 0.7  # of an instance's highest rate where that was never put to the test; more are started above it
AUTOSCALER_UTILISATION = 0.6  # Cloud Run's target for CPU and concurrency
QUANTUM_S = 0.1  # Cloud Run rounds billed time up to this
IDLE_KEPT_S = 900  # at most; after so long without a request the next one meets a cold start
ECO_SLEEPS_S = 1800  # without a request, then an Eco dyno sleeps
SCALABLE_DYNO = "standard_1x"  # the smallest of which there can be several; as large as a Basic


@dataclass(frozen=True)
class Work:
    """What one request needs, and what its deployment needs besides."""

    service_s: float  # wall time in the instance, mean
    window_s: float  # the same with every request rounded up to QUANTUM_S, mean
    cpu_s: float  # vCPU-seconds, mean
    instance_rps: float  # most that one instance serves in a second
    boot_s: float  # from nothing to the first answer
    sent_bytes: float  # out, per request: body and headers
    image_gib: float = 0.0  # container images that are kept
    rated: bool = False  # whether instance_rps was measured under load, with latency as it should be

    @property
    def room_rps(self) -> float:
        """What an instance is given before another is added. A rate that was measured needs no margin on top."""
        return self.instance_rps * (1.0 if self.rated else UTILISATION)


@dataclass(frozen=True)
class Bill:
    """Dollars for a month."""

    gross: float
    net: float
    instances: int  # needed at that traffic
    beyond_limit: bool  # more than the target's max_instances, so that it would not be served
    low: float  # bounds of `gross` where a billing rule is not documented
    high: float
    net_low: float  # the same of `net`
    net_high: float


def exact(gross: float, net: float, instances: int, target: Target) -> Bill:
    """A bill whose rules are all documented."""
    return Bill(gross, net, instances, instances > target.max_instances, gross, gross, net, net)


Rates = Mapping[str, float]  # dollars per unit, and allowances, by role
Formula = Callable[[float, Work, Target, Rates], Bill]


def skus(target: Target) -> dict[str, str]:
    """Role in the formula -> id in the price list."""
    if target.billing == "hourly":
        burstable = {"surplus": f"aws_ec2_{target.size.split('.')[0]}_surplus_vcpu_hour"} if _burstable(target) else {}
        return {
            "hour": f"aws_ec2_{target.size.replace('.', '_')}_hour",
            **burstable,
            "ipv4": "aws_public_ipv4_hour",
            "disk": "aws_ebs_gp3_gb_month",
            "egress": "aws_egress_gb",
            "free_egress": "aws_free_egress_gb",
        }
    if target.billing == "dyno":
        size = target.size.replace("-", "_")
        scaled = {"scaled": f"heroku_{SCALABLE_DYNO}_month"} if size in ONE_DYNO_SIZES else {}
        return {"month": f"heroku_{size}_month", **scaled}
    return {
        "vcpu_s": f"{target.name}_vcpu_second",
        "gib_s": f"{target.name}_gib_second",
        "million": f"{target.name}_million_requests",
        "egress": "gcp_egress_gib",
        "image": "gcp_artifact_registry_gib_month",
        "free_vcpu_s": f"{target.name}_free_vcpu_seconds",
        "free_gib_s": f"{target.name}_free_gib_seconds",
        "free_requests": f"{target.name}_free_requests",
        "free_egress": "gcp_free_egress_gib",
        "free_image": "gcp_artifact_registry_free_gib",
    }


def used_prices(target: Target, prices: Prices) -> dict[str, Price]:
    """Role -> the list's entry. Raises PriceError when the list has not all that the target is billed by."""
    return {role: prices.get(price_id, target.region) for role, price_id in skus(target).items()}


def monthly(requests: float, work: Work, target: Target, rates: Rates) -> Bill:
    """The bill for so many requests in a month, by the target's own meters."""
    return FORMULAS[target.billing](requests, work, target, rates)


def hourly_bill(requests: float, work: Work, target: Target, rates: Rates) -> Bill:
    """EC2. The free 100 GB of egress are a free tier like any other: only the net bill has them."""
    rate = requests / MONTH_S
    n = always_on(rate, work)
    fixed = n * (HOURS_PER_MONTH * (rates["hour"] + rates["ipv4"]) + target.disk_gb * rates["disk"])
    above = rate * work.cpu_s / n - target.baseline_vcpus if _burstable(target) else 0.0
    surplus = n * max(0.0, above) * HOURS_PER_MONTH * rates.get("surplus", 0.0)
    sent_gb = requests * work.sent_bytes / 1e9
    gross = fixed + surplus + sent_gb * rates["egress"]
    net = fixed + surplus + max(0.0, sent_gb - rates["free_egress"]) * rates["egress"]
    return exact(gross, net, n, target)


def dyno_bill(requests: float, work: Work, target: Target, rates: Rates) -> Bill:
    """Heroku. A size of which there can be but one gives way to Standard-1X where one is not enough."""
    n = always_on(requests / MONTH_S, work)
    usd = n * rates["scaled"] if n > 1 and "scaled" in rates else n * rates["month"]
    return exact(usd, usd, n, target)


def request_bill(requests: float, work: Work, target: Target, rates: Rates) -> Bill:
    """Cloud Run and Cloud Functions, billed by request, no instance kept warm."""
    n = autoscaled(requests / MONTH_S, work, target)
    seconds, low, high = billed_seconds(requests, work, target)
    gib = target.memory_mib / 1024
    sent_gib = requests * work.sent_bytes / 2**30

    def gross(active_s: float) -> float:
        compute = active_s * (target.vcpus * rates["vcpu_s"] + gib * rates["gib_s"])
        rest = sent_gib * rates["egress"] + work.image_gib * rates["image"]
        return compute + requests / 1e6 * rates["million"] + rest

    def net(active_s: float) -> float:
        return (
            max(0.0, active_s * target.vcpus - rates["free_vcpu_s"]) * rates["vcpu_s"]
            + max(0.0, active_s * gib - rates["free_gib_s"]) * rates["gib_s"]
            + max(0.0, requests - rates["free_requests"]) / 1e6 * rates["million"]
            + max(0.0, sent_gib - rates["free_egress"]) * rates["egress"]
            + max(0.0, work.image_gib - rates["free_image"]) * rates["image"]
        )

    return Bill(gross(seconds), net(seconds), n, n > target.max_instances, gross(low), gross(high), net(low), net(high))


FORMULAS: dict[str, Formula] = {"hourly": hourly_bill, "dyno": dyno_bill, "request": request_bill}


def billed_seconds(requests: float, work: Work, target: Target) -> tuple[float, float, float]:
    """Instance-seconds billed by request in a month: the model's figure, and its lower and upper bound.

    An instance is billed while at least one request is in it. Requests that overlap share their time, so several in
    one instance cost the union of their windows; one at a time, each costs its own. Google does not say whether each
    request or each active interval is rounded up. The bounds: nothing rounded, and every window on its own.
    """
    rate = requests / MONTH_S
    n = autoscaled(rate, work, target)
    boots = cold_starts(requests) * work.boot_s
    unrounded = n * MONTH_S * -math.expm1(-rate * work.service_s / n)
    separate = requests * work.window_s
    if target.concurrency == 1:
        return separate + boots, unrounded + boots, separate + boots
    union = n * MONTH_S * -math.expm1(-rate * work.window_s / n)
    return union + boots, unrounded + boots, min(separate, n * MONTH_S) + boots


def cold_starts(requests: float) -> float:
    """Requests in a month that come after so long a gap that no instance is left."""
    return requests * math.exp(-requests / MONTH_S * IDLE_KEPT_S)


def always_on(rate: float, work: Work) -> int:
    """Machines or dynos that serve this rate, at least one."""
    return max(1, math.ceil(round(rate / work.room_rps, 9)))


def autoscaled(rate: float, work: Work, target: Target) -> int:
    """Instances that Cloud Run's autoscaler would start for this rate, by CPU or by concurrency.

    Never fewer than the rate takes that one instance was measured to keep up with.
    """
    by_cpu = rate * work.cpu_s / (AUTOSCALER_UTILISATION * target.vcpus)
    by_concurrency = rate * work.service_s / (AUTOSCALER_UTILISATION * target.concurrency)
    by_rate = rate / work.instance_rps if work.rated else 0.0
    return max(1, math.ceil(round(max(by_cpu, by_concurrency, by_rate), 9)))


def eco_awake_hours(requests: float) -> float:
    """Hours of the Eco pool that an app uses in a month; never more than the month has."""
    return HOURS_PER_MONTH * -math.expm1(-requests / MONTH_S * ECO_SLEEPS_S)


def eco_wakes(requests: float) -> float:
    """Requests in a month that wake a sleeping Eco dyno."""
    return requests * math.exp(-requests / MONTH_S * ECO_SLEEPS_S)


def rounded_up(seconds: float) -> float:
    """Billed time of one request on its own."""
    return math.ceil(round(seconds / QUANTUM_S, 9)) * QUANTUM_S


def _burstable(target: Target) -> bool:
    return target.baseline_vcpus < target.vcpus
