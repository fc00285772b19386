"""Cost estimate without a run: the bills of billing.py for given or assumed figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.cost import billing
from eval.cost.billing import Bill, BusyMonth, ResourceDemand
from eval.cost.cost_model import DEFAULT_STARTUP_S, RESPONSE_HEADER_BYTES, rounded
from eval.cost.price_list import Price, PriceList
from eval.errors import EstimateError
from eval.formatting import join_words
from eval.samples.sizes import sized_target
from infra.local.artifact_size import stored_image_gib
from infra.targets import EC2_SIZES, HEROKU_SIZES, SAGEMAKER_SIZES, TARGETS, Target, sagemaker_target
from service.engines.names import PLAIN_ENGINE

DEFAULT_SERVICE_MS = 80.0  # upper end of ResNet-18 on one thread: 50 to 80 ms
RESPONSE_BODY_BYTES = 400  # of JSON, with five classes


@dataclass(frozen=True)
class Deployment:
    """The deployment to price; None stands for the target's own figure."""

    target: str
    region: str | None = None
    size: str | None = None  # of AWS EC2, Heroku and SageMaker
    vcpus: float | None = None  # of Google
    memory_mib: int | None = None
    concurrency: int | None = None
    max_instances: int | None = None
    instances: int = 0  # always running: dynos, warm instances
    service_ms: float = DEFAULT_SERVICE_MS
    boot_s: float = DEFAULT_STARTUP_S
    peak: float = billing.DEFAULT_PEAK  # highest rate that is to be served, over the mean
    engine: str = PLAIN_ENGINE  # of the image that is stored


@dataclass(frozen=True)
class EstimateAssumptions:
    """What the bills stand on, given or assumed."""

    service_ms: float  # of a request in the service
    cpu_ms: float  # of CPU time for it: all cores are busy
    startup_s: float  # cold start until the first response
    busy_hours_per_day: float
    peak: float  # rate in these hours, over the month's mean
    connections: str  # how clients connect: "kept", without a TLS handshake for each request
    response_bytes: int  # body and headers
    instance_rps: float  # that one instance can serve
    utilisation: float  # of it, or of an instance's CPU; above, another instance is added
    min_instances: int  # always running
    max_instances: int
    container_image_gib: float  # stored; 0 where that is not billed


@dataclass(frozen=True)
class CostEstimate:
    """Bills at rest and at each traffic, under the names that report.json has for the same."""

    target: str
    size: str
    region: str
    price_list_date: str
    idle: Bill
    monthly_usd: dict[str, Bill]  # by requests a month
    assumptions: EstimateAssumptions
    unconfirmed_price_ids: list[str]
    busy_month: BusyMonth  # of as many instances as the deployment may have


def estimate(deployment: Deployment, monthly_requests: Sequence[int], prices: PriceList) -> CostEstimate:
    """Bills at rest and at each traffic. Raises EvalError for what the price list does not have."""
    target = resolve_target(deployment)
    prices_by_role = billing.prices_for(target, prices)
    unit_prices = {role: price.amount for role, price in prices_by_role.items()}
    demand = _resource_demand(deployment, target)

    def bill(requests: int) -> Bill:
        return rounded(billing.monthly_bill(requests, demand, target, unit_prices, deployment.peak))

    return CostEstimate(
        target=target.name,
        size=target.size,
        region=target.region,
        price_list_date=prices.date.isoformat(),
        idle=bill(0),
        monthly_usd={str(n): bill(n) for n in monthly_requests},
        assumptions=_assumptions(deployment, target, demand),
        unconfirmed_price_ids=sorted(price.id for price in prices_by_role.values() if not price.confirmed),
        busy_month=billing.busy_month(demand, target, unit_prices, _most_instances(deployment, target)),
    )


def _most_instances(deployment: Deployment, target: Target) -> int:
    """That the platform may run at once. Nothing starts another machine or dyno by itself."""
    return target.max_instances if target.billing in billing.AUTOSCALED else max(1, deployment.instances)


def _assumptions(deployment: Deployment, target: Target, demand: ResourceDemand) -> EstimateAssumptions:
    is_autoscaled = target.billing == "request"
    return EstimateAssumptions(
        service_ms=deployment.service_ms,
        cpu_ms=demand.cpu_s * 1000,
        startup_s=demand.startup_s,
        busy_hours_per_day=24 / deployment.peak,
        peak=deployment.peak,
        connections="kept",
        response_bytes=round(demand.egress_bytes),
        instance_rps=demand.instance_rps,
        utilisation=billing.AUTOSCALER_UTILISATION if is_autoscaled else billing.TARGET_UTILISATION,
        min_instances=deployment.instances,
        max_instances=target.max_instances,
        container_image_gib=demand.container_image_gib,
    )


@dataclass(frozen=True)
class PriceEffect:
    """What another price would do to the answer."""

    price: Price
    usd_per_month: float  # the target's net bill
    at_half_usd: float  # the same at half of this price or allowance
    at_double_usd: float
    cheapest: str  # target, at the list's prices
    cheapest_at_half: str
    cheapest_at_double: str


def price_sensitivity(deployment: Deployment, monthly_requests: int, prices: PriceList) -> list[PriceEffect]:
    """The effect of each price by which the deployment is billed, the largest first.

    On its net bill, and on which target is the cheapest; the others have their own sizes and the same service time.
    """
    others = [Deployment(name, service_ms=deployment.service_ms, boot_s=deployment.boot_s, peak=deployment.peak)
              for name in TARGETS if name != deployment.target]  # fmt: skip

    def answer(price_list: PriceList) -> tuple[float, str]:
        bills = {
            each.target: estimate(each, [monthly_requests], price_list).monthly_usd[str(monthly_requests)]
            for each in (deployment, *others)
        }
        served = {name: round(bills[name].net_usd, 2) for name in TARGETS if not bills[name].exceeds_max_instances}
        names = [name for name, usd in served.items() if usd == min(served.values())]
        return round(bills[deployment.target].net_usd, 2), join_words(names) or "none serves it"

    def scaled(price: Price, factor: float) -> PriceList:
        entries = (replace(e, amount=e.amount * factor) if e.key == price.key else e for e in prices.entries)
        return replace(prices, entries=tuple(entries))

    usd, cheapest = answer(prices)
    effects = []
    target = resolve_target(deployment)
    for role, price in billing.prices_for(target, prices).items():
        if role.startswith("idle_") and not target.min_instances:
            continue
        (half_usd, half_cheapest), (double_usd, double_cheapest) = (answer(scaled(price, f)) for f in (0.5, 2.0))
        effects.append(PriceEffect(price, usd, half_usd, double_usd, cheapest, half_cheapest, double_cheapest))
    return sorted(effects, key=lambda effect: -abs(effect.at_double_usd - effect.at_half_usd))


def resolve_target(deployment: Deployment) -> Target:
    """The target as it would be deployed. Raises EstimateError, or InvalidInput, for a size that is not sold."""
    target = TARGETS[deployment.target]
    region = deployment.region or target.region
    if target.billing == "request":
        vcpus, memory_mib = deployment.vcpus or target.vcpus, deployment.memory_mib or target.memory_mib
        sized = sized_target(deployment.target, f"{vcpus:g}:{memory_mib}")
        if sized.vcpus < 1 < (deployment.concurrency or 1):
            raise EstimateError(
                f"--concurrency is {deployment.concurrency}; with less than 1 vCPU, Cloud Run lets one request at once "
                "into an instance: leave it out, or give --vcpus 1 or more"
            )
        return replace(
            sized,
            region=region,
            concurrency=deployment.concurrency or sized.concurrency,
            max_instances=deployment.max_instances or target.max_instances,
            min_instances=deployment.instances,
        )
    sizes = {"hourly": EC2_SIZES, "dyno": HEROKU_SIZES, "endpoint": SAGEMAKER_SIZES}[target.billing]
    size = deployment.size or target.size
    if size not in sizes:
        raise EstimateError(f"{deployment.target} has no size {size!r}; choose from {', '.join(sizes)}")
    if target.billing == "endpoint":
        sized = sagemaker_target(size, deployment.max_instances)
        if deployment.instances and sized.billing == "serverless":
            raise EstimateError(f"{size} runs nothing without a request: leave --instances out")
        return replace(sized, region=region, min_instances=deployment.instances)
    size_spec = sizes[size]
    return replace(
        target,
        region=region,
        size=size,
        vcpus=size_spec.vcpus,
        memory_mib=size_spec.memory_mib,
        baseline_vcpus=size_spec.baseline_vcpus or size_spec.vcpus,
        min_instances=deployment.instances,
        max_instances=max(target.max_instances, deployment.instances),
    )


def _resource_demand(deployment: Deployment, target: Target) -> ResourceDemand:
    """As cost_model.py computes it from a run, with every core busy all the time."""
    service_s = deployment.service_ms / 1000
    return ResourceDemand(
        service_s=service_s,
        billed_s=billing.round_up_billed_s(service_s),
        cpu_s=service_s * math.ceil(target.vcpus),
        instance_rps=1 / service_s,
        startup_s=deployment.boot_s,
        egress_bytes=RESPONSE_BODY_BYTES + RESPONSE_HEADER_BYTES,
        container_image_gib=stored_image_gib(deployment.engine) if target.billing in billing.AUTOSCALED else 0.0,
    )
