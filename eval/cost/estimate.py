"""What a target would cost, before there is a run: the bills of billing.py for figures that are given or assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.cost import billing
from eval.cost.cost_model import BOOT_S, HEADER_BYTES, IMAGE_GIB
from eval.cost.price_list import Prices
from eval.errors import EstimateError
from infra.targets import EC2_SIZES, HEROKU_SIZES, TARGETS, Target

SERVICE_MS = 80.0  # the slow end of what ResNet-18 took on one thread: 50 to 80 ms
ANSWER_BYTES = 400  # of JSON, with five classes


@dataclass(frozen=True)
class Deployment:
    """What is asked about; None stands for the target's own figure."""

    target: str
    region: str | None = None
    size: str | None = None  # of AWS and Heroku
    vcpus: float | None = None  # of Google
    memory_mib: int | None = None
    concurrency: int | None = None
    max_instances: int | None = None
    instances: int = 0  # that run without any request: dynos, instances kept warm
    service_ms: float = SERVICE_MS
    boot_s: float = BOOT_S


def estimate(asked: Deployment, requests: Sequence[int], prices: Prices) -> dict[str, Any]:
    """Bills at rest and at so many requests a month. Raises EvalError for what the price list does not know."""
    target = sized(asked)
    if target.billing == "request" and asked.instances:
        raise EstimateError("instances kept warm are billed at idle prices, which the price list does not have")
    used = billing.used_prices(target, prices)
    rates = {role: price.amount for role, price in used.items()}
    work = _work(asked, target)

    def bill(n: int) -> dict[str, Any]:
        made = billing.monthly(n, work, target, rates)
        more = max(1.0, asked.instances / made.instances)
        return {"gross": round(made.gross * more, 2), "net": round(made.net * more, 2), "instances": made.instances,
                "beyond_limit": made.beyond_limit}  # fmt: skip

    return {
        "target": target.name,
        "size": target.size,
        "region": target.region,
        "at_rest": bill(0),
        "monthly": {str(n): bill(n) for n in requests},
        "prices_of": prices.date.isoformat(),
        "not_confirmed": sorted(price.id for price in used.values() if not price.confirmed),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    told = [f"{found['target']}, {found['size']}, {found['region']}; list prices of {found['prices_of']}"]
    for what, bill in [
        ("at rest", found["at_rest"]),
        *((f"{int(n):,} a month", b) for n, b in found["monthly"].items()),
    ]:
        limit = "; more than the instances allowed can serve" if bill["beyond_limit"] else ""
        told.append(f"{what}: ${bill['gross']:,.2f}, ${bill['net']:,.2f} after free allowances{limit}")
    return told


def sized(asked: Deployment) -> Target:
    """The target as it would be deployed."""
    target = TARGETS[asked.target]
    region = asked.region or target.region
    if target.billing == "request":
        return replace(
            target, region=region, vcpus=asked.vcpus or target.vcpus, memory_mib=asked.memory_mib or target.memory_mib,
            concurrency=asked.concurrency or target.concurrency,
            max_instances=asked.max_instances or target.max_instances,
        )  # fmt: skip
    sizes = EC2_SIZES if target.billing == "hourly" else HEROKU_SIZES
    size = asked.size or target.size
    if size not in sizes:
        raise EstimateError(f"{asked.target} has no size {size!r}; choose from {', '.join(sizes)}")
    facts = sizes[size]
    return replace(target, region=region, size=size, vcpus=facts.vcpus, memory_mib=facts.memory_mib,
                   baseline_vcpus=facts.baseline_vcpus or facts.vcpus)  # fmt: skip


def _work(asked: Deployment, target: Target) -> billing.Work:
    """As costing.py has it for a run; every core is taken to be busy all the while."""
    service_s = asked.service_ms / 1000
    return billing.Work(
        service_s=service_s,
        window_s=billing.rounded_up(service_s),
        cpu_s=service_s * math.ceil(target.vcpus),
        instance_rps=1 / service_s,
        boot_s=asked.boot_s,
        sent_bytes=ANSWER_BYTES + HEADER_BYTES,
        image_gib=IMAGE_GIB if target.billing == "request" else 0.0,
    )
