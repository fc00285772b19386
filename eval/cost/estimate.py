"""Cost estimate without a run: the bills of billing.py for given or assumed figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.cost import billing
from eval.cost.cost_model import CONTAINER_IMAGE_GIB, DEFAULT_STARTUP_S, RESPONSE_HEADER_BYTES
from eval.cost.price_list import Price, PriceList, format_amount, table_lines
from eval.errors import EstimateError
from eval.formatting import join_words
from infra.targets import EC2_SIZES, HEROKU_SIZES, TARGETS, Target

DEFAULT_SERVICE_MS = 80.0  # upper end of ResNet-18 on one thread: 50 to 80 ms
RESPONSE_BODY_BYTES = 400  # of JSON, with five classes


@dataclass(frozen=True)
class Deployment:
    """The deployment to price; None stands for the target's own figure."""

    target: str
    region: str | None = None
    size: str | None = None  # of AWS and Heroku
    vcpus: float | None = None  # of Google
    memory_mib: int | None = None
    concurrency: int | None = None
    max_instances: int | None = None
    instances: int = 0  # always running: dynos, warm instances
    service_ms: float = DEFAULT_SERVICE_MS
    boot_s: float = DEFAULT_STARTUP_S
    peak: float = billing.DEFAULT_PEAK  # highest rate that is to be served, over the mean


def estimate(deployment: Deployment, monthly_requests: Sequence[int], prices: PriceList) -> dict[str, Any]:
    """Bills at rest and at each traffic. Raises EvalError for what the price list does not have."""
    target = resolve_target(deployment)
    if target.billing == "request" and deployment.instances:
        raise EstimateError("instances kept warm are billed at idle prices, which the price list does not have")
    prices_by_role = billing.prices_for(target, prices)
    unit_prices = {role: price.amount for role, price in prices_by_role.items()}
    demand = _resource_demand(deployment, target)

    def bill(requests: int) -> dict[str, Any]:
        monthly_bill = billing.monthly_bill(requests, demand, target, unit_prices, deployment.peak)
        scale = max(1.0, deployment.instances / monthly_bill.instances)
        return {
            "gross": round(monthly_bill.gross_usd * scale, 2),
            "net": round(monthly_bill.net_usd * scale, 2),
            "instances": monthly_bill.instances,
            "beyond_limit": monthly_bill.exceeds_max_instances,
        }

    return {
        "target": target.name,
        "size": target.size,
        "region": target.region,
        "at_rest": bill(0),
        "monthly": {str(n): bill(n) for n in monthly_requests},
        "prices_of": prices.date.isoformat(),
        "not_confirmed": sorted(price.id for price in prices_by_role.values() if not price.confirmed),
    }


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
            each.target: estimate(each, [monthly_requests], price_list)["monthly"][str(monthly_requests)]
            for each in (deployment, *others)
        }
        served = {name: bills[name]["net"] for name in TARGETS if not bills[name]["beyond_limit"]}
        names = [name for name, usd in served.items() if usd == min(served.values())]
        return bills[deployment.target]["net"], join_words(names) or "none serves it"

    def scaled(price: Price, factor: float) -> PriceList:
        entries = (replace(e, amount=e.amount * factor) if e.id == price.id else e for e in prices.entries)
        return replace(prices, entries=tuple(entries))

    usd, cheapest = answer(prices)
    effects = []
    for price in billing.prices_for(resolve_target(deployment), prices).values():
        (half_usd, half_cheapest), (double_usd, double_cheapest) = (answer(scaled(price, f)) for f in (0.5, 2.0))
        effects.append(PriceEffect(price, usd, half_usd, double_usd, cheapest, half_cheapest, double_cheapest))
    return sorted(effects, key=lambda effect: -abs(effect.at_double_usd - effect.at_half_usd))


def sensitivity_lines(effects: Sequence[PriceEffect], monthly_requests: int) -> list[str]:
    """The effects as a table of text."""
    rows: list[tuple[str, ...]] = [
        ("price", "amount", "net bill", "at half of it", "at twice it", "cheapest target", "at half", "at twice")
    ]
    for effect in effects:
        dollars = (f"${amount:,.2f}" for amount in (effect.usd_per_month, effect.at_half_usd, effect.at_double_usd))
        rows.append((effect.price.id, format_amount(effect.price.amount), *dollars, effect.cheapest,
                     effect.cheapest_at_half, effect.cheapest_at_double))  # fmt: skip
    return [f"At {monthly_requests:,} requests a month, after the free allowances:", *table_lines(rows)]


def summary_lines(result: dict[str, Any]) -> list[str]:
    """The estimate as text."""
    output = [f"{result['target']}, {result['size']}, {result['region']}; list prices of {result['prices_of']}"]
    for label, bill in [
        ("at rest", result["at_rest"]),
        *((f"{int(requests):,} a month", monthly_bill) for requests, monthly_bill in result["monthly"].items()),
    ]:
        limit = "; exceeds the maximum number of instances" if bill["beyond_limit"] else ""
        output.append(f"{label}: ${bill['gross']:,.2f}, ${bill['net']:,.2f} after free allowances{limit}")
    return output


def resolve_target(deployment: Deployment) -> Target:
    """The target as it would be deployed."""
    target = TARGETS[deployment.target]
    region = deployment.region or target.region
    if target.billing == "request":
        return replace(
            target,
            region=region,
            vcpus=deployment.vcpus or target.vcpus,
            memory_mib=deployment.memory_mib or target.memory_mib,
            concurrency=deployment.concurrency or target.concurrency,
            max_instances=deployment.max_instances or target.max_instances,
        )
    sizes = EC2_SIZES if target.billing == "hourly" else HEROKU_SIZES
    size = deployment.size or target.size
    if size not in sizes:
        raise EstimateError(f"{deployment.target} has no size {size!r}; choose from {', '.join(sizes)}")
    size_spec = sizes[size]
    return replace(
        target,
        region=region,
        size=size,
        vcpus=size_spec.vcpus,
        memory_mib=size_spec.memory_mib,
        baseline_vcpus=size_spec.baseline_vcpus or size_spec.vcpus,
    )


def _resource_demand(deployment: Deployment, target: Target) -> billing.ResourceDemand:
    """As cost_model.py computes it from a run, with every core busy all the time."""
    service_s = deployment.service_ms / 1000
    return billing.ResourceDemand(
        service_s=service_s,
        billed_s=billing.round_up_billed_s(service_s),
        cpu_s=service_s * math.ceil(target.vcpus),
        instance_rps=1 / service_s,
        startup_s=deployment.boot_s,
        egress_bytes=RESPONSE_BODY_BYTES + RESPONSE_HEADER_BYTES,
        container_image_gib=CONTAINER_IMAGE_GIB if target.billing == "request" else 0.0,
    )
