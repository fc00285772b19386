"""What a month of traffic costs on each target: the providers' billing rules as pure functions.

A bill is *gross* (every unit at list price) and *net* (after the free allowances, as if nothing else used them).
Traffic has a shape: requests come at random during the busy hours of each day, `peak` times as many a second as in the
month's mean, and not at all in between. A peak of 3 is 8 busy hours a day, a peak of 1 the whole day.
Each formula takes a `ResourceDemand`: what one request needs.

    hourly    EC2: machines by the hour, their disks and addresses, surplus CPU credits, egress
    dyno      Heroku: dynos by the month; no meter for requests or egress
    request   Cloud Run, Cloud Functions: seconds with at least one request in the instance, requests, egress; the idle
              seconds of instances that are always kept running (Target.min_instances), at a lower price
    endpoint  SageMaker: instances by the hour, as many as the traffic of that hour needs; data in and out
    serverless  SageMaker: seconds of each request by the memory; data in and out

The net bill is for a billing account with nothing else in it. A provider gives its allowances once per account: two
targets of one provider share them, so that their net bills do not add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from eval.cost.price_list import Price, PriceList
from infra.targets import HEROKU_SIZES, ONE_DYNO_SIZES, Target

REQUESTS_PER_MONTH = 1_000_000  # the traffic at which targets are compared
HOURS_PER_MONTH = 730
SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
SECONDS_PER_DAY = 24 * 3600
MIN_RPS, MAX_RPS = 1e-3, 1e4  # range of traffic that is priced: from one request per quarter of an hour
TARGET_UTILISATION = 0.7  # of an instance's estimated maximum rate; above it another instance is added
AUTOSCALER_UTILISATION = 0.6  # Cloud Run's target for CPU and concurrency
BILLING_INCREMENT_S = 0.1  # Cloud Run rounds billed time up to this
IDLE_TIMEOUT_S = 900  # Google's maximum; after so long without a request the next one meets a cold start
MIN_IDLE_TIMEOUT_S = 60  # assumed: Google promises no minimum; the upper bounds of the bills have it
DEFAULT_PEAK = 3.0  # rate in the busy hours, over the month's mean: 8 busy hours a day
REQUEST_BYTES = 3000  # body and headers: an image like CIFAR's as PNG; samples have no size of what was sent
SCALE_IN_DELAY_S = 900  # target tracking looks at 15 minutes of low traffic before it takes instances away
AUTOSCALED = ("request", "endpoint", "serverless")  # kinds of billing under which the platform starts instances itself
SCALABLE_DYNO_SIZE = "standard_1x"  # the smallest size that scales to several dynos; as large as a Basic


@dataclass(frozen=True)
class ResourceDemand:
    """What one request needs, and what its deployment needs in addition."""

    service_s: float  # wall time in the instance, mean
    billed_s: float  # the same with each request rounded up to BILLING_INCREMENT_S, mean
    cpu_s: float  # vCPU-seconds, mean
    instance_rps: float  # maximum rate of one instance
    startup_s: float  # cold start until the first response
    egress_bytes: float  # per response: body and headers
    container_image_gib: float = 0.0  # stored container images
    rate_measured: bool = False  # whether instance_rps was measured under load, within the latency objective

    @property
    def capacity_rps(self) -> float:
        """Rate of an instance above which another is added. A measured maximum needs no margin."""
        return self.instance_rps * (1.0 if self.rate_measured else TARGET_UTILISATION)


@dataclass(frozen=True)
class Bill:
    """Dollars per month."""

    gross_usd: float
    net_usd: float
    instances: int  # needed at that traffic
    exceeds_max_instances: bool  # more than the target's max_instances: the traffic would not be served
    gross_low_usd: float  # bounds of gross_usd where a billing rule is not documented: see billed_seconds
    gross_high_usd: float
    net_low_usd: float  # the same of net_usd
    net_high_usd: float


def flat_bill(gross_usd: float, net_usd: float, instances: int, target: Target) -> Bill:
    """A bill without uncertainty: all its rules are documented."""
    return Bill(gross_usd, net_usd, instances, instances > target.max_instances, gross_usd, gross_usd, net_usd, net_usd)


UnitPrices = Mapping[str, float]  # dollars per unit, and allowances, by role
BillFormula = Callable[[float, ResourceDemand, Target, UnitPrices, float], Bill]


def price_ids_by_role(target: Target) -> dict[str, str]:
    """Role in the formula -> id in the price list."""
    if target.billing == "hourly":
        burstable = (
            {"surplus": f"aws_ec2_{target.size.split('.')[0]}_surplus_vcpu_hour"} if _is_burstable(target) else {}
        )
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
        scalable = {"scaled": f"heroku_{SCALABLE_DYNO_SIZE}_month"} if size in ONE_DYNO_SIZES else {}
        return {"month": f"heroku_{size}_month", **scalable}
    if target.billing in ("endpoint", "serverless"):
        hour = {"hour": f"aws_sagemaker_{target.size.replace('.', '_')}_hour"}
        return {
            **(hour if target.billing == "endpoint" else {"gb_s": "aws_sagemaker_serverless_gb_second"}),
            "processed": "aws_sagemaker_processed_gb",
            "image": "aws_ecr_gb_month",
            "egress": "aws_egress_gb",
            "free_egress": "aws_free_egress_gb",
        }
    return {
        "vcpu_s": f"{target.name}_vcpu_second",
        "gib_s": f"{target.name}_gib_second",
        "idle_vcpu_s": f"{target.name}_idle_vcpu_second",
        "idle_gib_s": f"{target.name}_idle_gib_second",
        "million": f"{target.name}_million_requests",
        "egress": "gcp_egress_gib",
        "image": "gcp_artifact_registry_gib_month",
        "free_vcpu_s": "gcp_cloudrun_free_vcpu_seconds",  # one pot for the billing account, of functions too
        "free_gib_s": "gcp_cloudrun_free_gib_seconds",
        "free_requests": "gcp_cloudrun_free_requests",
        "free_egress": "gcp_free_egress_gib",
        "free_image": "gcp_artifact_registry_free_gib",
    }


def prices_for(target: Target, prices: PriceList) -> dict[str, Price]:
    """Role -> the list's entry. Raises PriceError if the list lacks one that the target is billed by."""
    return {role: prices.get(price_id, target.region) for role, price_id in price_ids_by_role(target).items()}


def monthly_bill(
    requests: float, demand: ResourceDemand, target: Target, unit_prices: UnitPrices, peak: float = 1.0
) -> Bill:
    """The bill for so many requests in a month. `peak`: the rate in the busy hours, over the month's mean."""
    return BILL_FORMULAS[target.billing](requests, demand, target, unit_prices, peak)


def hourly_bill(requests: float, demand: ResourceDemand, target: Target, unit_prices: UnitPrices, peak: float) -> Bill:
    """EC2. The free 100 GB of egress are a free tier like any other: only the net bill has them."""
    rate_rps = requests / SECONDS_PER_MONTH
    instances = max(target.min_instances, always_on_instances(rate_rps * peak, demand))
    fixed_usd = instances * (
        HOURS_PER_MONTH * (unit_prices["hour"] + unit_prices["ipv4"]) + target.disk_gb * unit_prices["disk"]
    )
    surplus_vcpus = rate_rps * demand.cpu_s / instances - target.baseline_vcpus if _is_burstable(target) else 0.0
    surplus_usd = instances * max(0.0, surplus_vcpus) * HOURS_PER_MONTH * unit_prices.get("surplus", 0.0)
    egress_gb = requests * demand.egress_bytes / 1e9
    gross_usd = fixed_usd + surplus_usd + egress_gb * unit_prices["egress"]
    net_usd = fixed_usd + surplus_usd + max(0.0, egress_gb - unit_prices["free_egress"]) * unit_prices["egress"]
    return flat_bill(gross_usd, net_usd, instances, target)


def dyno_bill(requests: float, demand: ResourceDemand, target: Target, unit_prices: UnitPrices, peak: float) -> Bill:
    """Heroku. A size that does not scale is replaced by Standard-1X if one dyno is not enough."""
    instances = max(target.min_instances, always_on_instances(requests / SECONDS_PER_MONTH * peak, demand))
    usd = dynos_usd(instances, unit_prices)
    return flat_bill(usd, usd, instances, target)


def dynos_usd(instances: int, unit_prices: UnitPrices) -> float:
    """A month of so many dynos."""
    several_of_one = instances > 1 and "scaled" in unit_prices
    return instances * unit_prices["scaled" if several_of_one else "month"]


def request_bill(requests: float, demand: ResourceDemand, target: Target, unit_prices: UnitPrices, peak: float) -> Bill:
    """Cloud Run and Cloud Functions, billed by request. No free allowance covers the idle time of a warm instance."""
    instances = autoscaled_instances(requests / SECONDS_PER_MONTH * peak, demand, target)
    expected_s, min_s, max_s = billed_seconds(requests, demand, target, peak)
    memory_gib = target.memory_mib / 1024
    egress_gib = requests * demand.egress_bytes / 2**30
    boost = 1.0 if target.startup_cpu_boost else 0.0
    startup_s, max_startup_s = (boost * seconds for seconds in startup_seconds(requests, demand, target, peak))

    def idle_usd(billed_s: float) -> float:
        if not target.min_instances:
            return 0.0
        usd_per_s = target.vcpus * unit_prices["idle_vcpu_s"] + memory_gib * unit_prices["idle_gib_s"]
        return idle_seconds(billed_s, instances, target) * usd_per_s

    def gross_usd(billed_s: float, boosted_s: float) -> float:
        vcpu_s = (billed_s + boosted_s) * target.vcpus
        compute_usd = vcpu_s * unit_prices["vcpu_s"] + billed_s * memory_gib * unit_prices["gib_s"]
        other_usd = egress_gib * unit_prices["egress"] + demand.container_image_gib * unit_prices["image"]
        return compute_usd + idle_usd(billed_s) + requests / 1e6 * unit_prices["million"] + other_usd

    def net_usd(billed_s: float, boosted_s: float) -> float:
        vcpu_s = (billed_s + boosted_s) * target.vcpus
        return (
            max(0.0, vcpu_s - unit_prices["free_vcpu_s"]) * unit_prices["vcpu_s"]
            + max(0.0, billed_s * memory_gib - unit_prices["free_gib_s"]) * unit_prices["gib_s"]
            + idle_usd(billed_s)
            + max(0.0, requests - unit_prices["free_requests"]) / 1e6 * unit_prices["million"]
            + max(0.0, egress_gib - unit_prices["free_egress"]) * unit_prices["egress"]
            + max(0.0, demand.container_image_gib - unit_prices["free_image"]) * unit_prices["image"]
        )

    return Bill(
        gross_usd(expected_s, startup_s),
        net_usd(expected_s, startup_s),
        instances,
        instances > target.max_instances,
        gross_usd(min_s, startup_s),
        gross_usd(max_s, max_startup_s),
        net_usd(min_s, startup_s),
        net_usd(max_s, max_startup_s),
    )


def endpoint_bill(
    requests: float, demand: ResourceDemand, target: Target, unit_prices: UnitPrices, peak: float
) -> Bill:
    """A SageMaker endpoint: at least one instance all month, and more for the busy hours of each day."""
    least = max(1, target.min_instances)
    instances = max(least, always_on_instances(requests / SECONDS_PER_MONTH * peak, demand))
    busy_hours = min(HOURS_PER_MONTH, HOURS_PER_MONTH / peak + DAYS_PER_MONTH * SCALE_IN_DELAY_S / 3600)
    hours = least * HOURS_PER_MONTH + (instances - least) * busy_hours
    gross_usd, net_usd = sagemaker_data_usd(requests, demand, unit_prices)
    compute_usd = hours * unit_prices["hour"]
    return flat_bill(compute_usd + gross_usd, compute_usd + net_usd, instances, target)


def serverless_bill(
    requests: float, demand: ResourceDemand, target: Target, unit_prices: UnitPrices, peak: float
) -> Bill:
    """Serverless SageMaker, by the millisecond. Whether starts are billed is not documented: upper bounds have them."""
    instances = always_on_instances(requests / SECONDS_PER_MONTH * peak, demand)
    gross_usd, net_usd = sagemaker_data_usd(requests, demand, unit_prices)
    second_usd = target.memory_mib / 1024 * unit_prices["gb_s"]
    compute_usd = requests * demand.service_s * second_usd
    _, most_starts_s = startup_seconds(requests, demand, target, peak)
    bill = flat_bill(compute_usd + gross_usd, compute_usd + net_usd, instances, target)
    return replace(
        bill,
        gross_high_usd=bill.gross_usd + most_starts_s * second_usd,
        net_high_usd=bill.net_usd + most_starts_s * second_usd,
    )


def sagemaker_data_usd(requests: float, demand: ResourceDemand, unit_prices: UnitPrices) -> tuple[float, float]:
    """Data that an endpoint processes, what it sends to the internet, and the stored image: gross and net."""
    egress_gb = requests * demand.egress_bytes / 1e9
    processed_usd = (requests * REQUEST_BYTES / 1e9 + egress_gb) * unit_prices["processed"]
    image_usd = demand.container_image_gib * unit_prices["image"]  # what AWS calls a GB of storage is a GiB
    gross_usd = processed_usd + image_usd + egress_gb * unit_prices["egress"]
    return gross_usd, gross_usd - min(egress_gb, unit_prices["free_egress"]) * unit_prices["egress"]


@dataclass(frozen=True)
class BusyMonth:
    """A month in which every instance computes all the time, at list price: the most that instances can cost."""

    instances: int
    usd: float
    million_requests_usd: float  # on top, for each million; 0 where there is no such meter
    egress_usd: float  # on top, for each GB (Google: GiB) that is sent


def busy_month(demand: ResourceDemand, target: Target, unit_prices: UnitPrices, instances: int) -> BusyMonth:
    """The costliest month of so many instances. No traffic can make it dearer but by what stands beside it."""
    egress_usd = unit_prices.get("egress", 0.0)
    if target.billing == "hourly":
        hourly_usd = unit_prices["hour"] + unit_prices["ipv4"]
        if _is_burstable(target):
            hourly_usd += (target.vcpus - target.baseline_vcpus) * unit_prices["surplus"]
        usd = instances * (HOURS_PER_MONTH * hourly_usd + target.disk_gb * unit_prices["disk"])
        return BusyMonth(instances, usd, 0.0, egress_usd)
    if target.billing == "dyno":
        return BusyMonth(instances, dynos_usd(instances, unit_prices), 0.0, 0.0)
    image_usd = demand.container_image_gib * unit_prices["image"]
    if target.billing in ("endpoint", "serverless"):
        second_usd = (
            unit_prices["hour"] / 3600 if "hour" in unit_prices else target.memory_mib / 1024 * unit_prices["gb_s"]
        )
        usd = instances * SECONDS_PER_MONTH * second_usd + image_usd
        return BusyMonth(
            instances, usd, REQUEST_BYTES / 1e3 * unit_prices["processed"], egress_usd + unit_prices["processed"]
        )
    second_usd = target.vcpus * unit_prices["vcpu_s"] + target.memory_mib / 1024 * unit_prices["gib_s"]
    usd = instances * SECONDS_PER_MONTH * second_usd + image_usd
    return BusyMonth(instances, usd, unit_prices["million"], egress_usd)


BILL_FORMULAS: dict[str, BillFormula] = {
    "hourly": hourly_bill,
    "dyno": dyno_bill,
    "request": request_bill,
    "endpoint": endpoint_bill,
    "serverless": serverless_bill,
}


def billed_seconds(
    requests: float, demand: ResourceDemand, target: Target, peak: float = 1.0
) -> tuple[float, float, float]:
    """Instance-seconds billed by request in a month: the model's figure, and its lower and upper bound.

    One rule for Cloud Run and Cloud Functions, which have the same meters. An instance is billed while at least one
    request is in it: for the union of the requests' times, each rounded up, and no less than its
    processor works. Google does not say whether each request or
    each active interval is rounded up, nor how long an idle instance is kept. The bounds: the union of times that are
    not rounded; and the sum of the rounded times, as if no two could share the 100 ms to which they are rounded, with
    the starts of the shortest idle time.
    """
    busy_rps, busy_s = requests / SECONDS_PER_MONTH * peak, SECONDS_PER_MONTH / peak
    instances = autoscaled_instances(busy_rps, demand, target)
    startup_total_s, max_startup_total_s = startup_seconds(requests, demand, target, peak)

    def union_s(request_s: float) -> float:
        # Requests share an instance's time, but not its processor: their work takes as long beside one another
        worked_s = requests * min(request_s, demand.cpu_s / target.vcpus)
        return max(worked_s, instances * busy_s * -math.expm1(-busy_rps * request_s / instances))

    return (
        union_s(demand.billed_s) + startup_total_s,
        union_s(demand.service_s) + startup_total_s,
        requests * demand.billed_s + max_startup_total_s,
    )


def cold_starts_per_month(requests: float, peak: float = 1.0, idle_timeout_s: float = IDLE_TIMEOUT_S) -> float:
    """Requests in a month that follow a gap after which no instance is left.

    In the busy hours gaps are random. The first request of a day also follows the hours without traffic, if they are
    longer than the idle time.
    """
    busy_rps, busy_s_per_day = requests / SECONDS_PER_MONTH * peak, SECONDS_PER_DAY / peak
    has_night = SECONDS_PER_DAY - busy_s_per_day > idle_timeout_s
    first_of_day = DAYS_PER_MONTH * -math.expm1(-busy_rps * busy_s_per_day) if has_night else 0.0
    return first_of_day + (requests - first_of_day) * math.exp(-busy_rps * idle_timeout_s)


def idle_seconds(billed_s: float, instances: int, target: Target) -> float:
    """Seconds of a month in which the instances that are kept running have no request, of `instances` alike."""
    busy_fraction = min(1.0, billed_s / (max(instances, target.min_instances) * SECONDS_PER_MONTH))
    return target.min_instances * SECONDS_PER_MONTH * (1 - busy_fraction)


def startup_seconds(requests: float, demand: ResourceDemand, target: Target, peak: float = 1.0) -> tuple[float, float]:
    """Seconds of starts in a month: with the longest and with the shortest idle time before an instance ends."""
    if target.min_instances:
        return 0.0, 0.0
    longest, shortest = (cold_starts_per_month(requests, peak, s) for s in (IDLE_TIMEOUT_S, MIN_IDLE_TIMEOUT_S))
    return longest * demand.startup_s, shortest * demand.startup_s


def always_on_instances(rate_rps: float, demand: ResourceDemand) -> int:
    """Machines or dynos for this rate, at least one."""
    return max(1, math.ceil(round(rate_rps / demand.capacity_rps, 9)))


def autoscaled_instances(rate_rps: float, demand: ResourceDemand, target: Target) -> int:
    """Instances that Cloud Run's autoscaler would start for this rate, by CPU or by concurrency.

    At least as many as the measured maximum rate of one instance requires.
    """
    by_cpu = rate_rps * demand.cpu_s / (AUTOSCALER_UTILISATION * target.vcpus)
    by_concurrency = rate_rps * demand.service_s / (AUTOSCALER_UTILISATION * target.concurrency)
    by_rate = rate_rps / demand.instance_rps if demand.rate_measured else 0.0
    return max(1, math.ceil(round(max(by_cpu, by_concurrency, by_rate), 9)))


def eco_awake_hours(requests: float) -> float:
    """Hours of the Eco pool that an app uses in a month; at most those of the month."""
    return HOURS_PER_MONTH * -math.expm1(-requests / SECONDS_PER_MONTH * HEROKU_SIZES["eco"].sleeps_after_s)


def round_up_billed_s(seconds: float) -> float:
    """Billed time of a single request."""
    return math.ceil(round(seconds / BILLING_INCREMENT_S, 9)) * BILLING_INCREMENT_S


def _is_burstable(target: Target) -> bool:
    return target.baseline_vcpus < target.vcpus
