"""The lines of the table: what was measured or stated, against which limit, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from infra.errors import UserDataError
from infra.preflight import limits, measure
from infra.preflight.deployment_spec import Plan
from infra.preflight.limits import Limit
from service.schema import MAX_BODY_BYTES

FITS, TOO_MUCH, UNKNOWN, COSTS = "fits", "does not fit", "not known", "costs"  # verdicts
DEBIAN_DISK_GB = 2.0  # an estimate; the bundle, packed and unpacked, and the packages come on top
BASE_IMAGE_MB = 130.0  # python:3.11-slim-bookworm, an estimate


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    value: str
    limit: str
    verdict: str
    source: str  # of the limit, or of the prices


def size_lines(plan: Plan) -> Iterator[Line]:
    """What is shipped and installed, against what the target takes."""
    shipped, installed = measure.shipped(plan), measure.installed(plan)
    unpacked_mb = shipped.unpacked_mb + installed.megabytes
    match plan.target.name:
        case "aws_ec2":
            yield _user_data(plan)
            disk_gb = DEBIAN_DISK_GB + (shipped.packed_mb + unpacked_mb) / 1000
            yield _line("disk", disk_gb, limits.EC2_DISK, plan.target.disk_gb, installed.how)
        case "heroku" if not plan.container:
            packed_mb = shipped.packed_mb + installed.megabytes * measure.PACKED_SHARE[plan.engine]
            low, high = (packed_mb + python for python in measure.PYTHON_MB)
            limit = limits.HEROKU_SLUG
            told = f"{low:.0f} to {high:.0f} MB, estimated from {installed.megabytes:.0f} MB ({installed.how})"
            verdict = _verdict(high, limit.amount)
            yield Line("slug, packed", told, _amount(limit, limit.amount), verdict, limit.cited)
        case "heroku" | "gcp_cloudrun":
            limit = limits.HEROKU_IMAGE if plan.target.name == "heroku" else limits.CLOUD_RUN_IMAGE
            yield _line("image, unpacked", BASE_IMAGE_MB + unpacked_mb, limit, None, installed.how)
        case _:
            yield _line("zip", shipped.packed_mb, limits.FUNCTION_ZIP, None, "without what the build installs")
    if plan.target.billing == "request":
        function = plan.target.name == "gcp_function"
        limit = limits.FUNCTION_REQUEST if function else limits.CLOUD_RUN_REQUEST
        unit = measure.MB if function else 1024 * 1024
        yield _line("largest request", MAX_BODY_BYTES / unit, limit, limit.amount, "that the service takes")


def twin_lines(plan: Plan, worked: measure.Worked | str) -> Iterator[Line]:
    """Memory and start time of the twin; a text says why there are none."""
    memory, boot = {
        "aws_ec2": (limits.EC2_MEMORY, limits.EC2_BOOT),
        "heroku": (limits.HEROKU_MEMORY, limits.HEROKU_BOOT),
        "gcp_cloudrun": (limits.CLOUD_RUN_MEMORY, limits.CLOUD_RUN_BOOT),
        "gcp_function": (limits.CLOUD_RUN_MEMORY, limits.CLOUD_RUN_BOOT),
    }[plan.target.name]
    memory_mib = plan.target.memory_mib - (limits.DEBIAN_MIB if memory is limits.EC2_MEMORY else 0)
    boot_s = boot.amount or plan.target.boot_timeout_s
    if isinstance(worked, str):
        yield Line("memory", worked, _amount(memory, memory_mib), UNKNOWN, memory.cited)
        yield Line("start", worked, _amount(boot, boot_s), UNKNOWN, boot.cited)
        return
    yield _memory(worked, memory, memory_mib)
    how = "of the twin; the VM's installation comes on top" if plan.target.name == "aws_ec2" else "of the twin"
    yield _line("start", worked.startup_s, boot, boot_s, how)


def cost_lines(plan: Plan, requests: int, worked: measure.Worked | str) -> Iterator[Line]:
    """At rest and at the traffic, by the cost model that `./cloudtrial cost` prints."""
    found = _cost(plan, requests, worked)
    if isinstance(found, str):
        yield Line("cost", found, "", UNKNOWN, "eval/cost/prices.yaml")
        return
    unsure = f"; not confirmed: {', '.join(found['not_confirmed'])}" if found["not_confirmed"] else ""
    source = f"eval/cost/prices.yaml of {found['prices_of']}{unsure}"
    how = "assumed" if isinstance(worked, str) else "of the twin"
    yield Line("cost at rest", _dollars(found["at_rest"]), "", COSTS, source)
    traffic = found["monthly"][str(requests)]
    limit = f"{plan.target.max_instances} instances" if traffic["beyond_limit"] else ""
    verdict = TOO_MUCH if traffic["beyond_limit"] else COSTS
    yield Line(f"cost at {requests:,} requests", f"{_dollars(traffic)} (service time {how})", limit, verdict, source)


def _memory(worked: measure.Worked, limit: Limit, amount: float) -> Line:
    """What fits with the larger build of torch fits with the shipped one; what does not, says nothing of it."""
    line = _line("memory", worked.peak_mib, limit, amount, f"peak of the twin, {measure.PREDICTIONS} predictions")
    if line.verdict == TOO_MUCH and worked.cuda_build:
        told = f"{_number(worked.peak_mib)} MiB (peak of the twin, on torch's CUDA build; {measure.STATED_PEAK})"
        return replace(line, value=told, verdict=UNKNOWN)
    return line


def _user_data(plan: Plan) -> Line:
    limit = limits.EC2_USER_DATA
    try:
        return _line("user data", measure.user_data_bytes(plan), limit, limit.amount, "")
    except UserDataError as error:
        return Line("user data", str(error), _amount(limit, limit.amount), TOO_MUCH, limit.cited)


def _cost(plan: Plan, requests: int, worked: measure.Worked | str) -> dict[str, Any] | str:
    """The estimate of eval's cost model, or why there is none."""
    from eval.cost.estimate import Deployment, estimate  # NumPy, which --help does not wait for
    from eval.cost.price_list import load_prices
    from eval.errors import EvalError

    target = plan.target
    deployment = Deployment(target.name, region=target.region, instances=plan.instances)
    if target.billing == "request":
        deployment = replace(deployment, vcpus=target.vcpus, memory_mib=target.memory_mib,
                             concurrency=target.concurrency, max_instances=target.max_instances)  # fmt: skip
    else:
        deployment = replace(deployment, size=target.size)
    if not isinstance(worked, str):
        deployment = replace(deployment, service_ms=worked.service_ms, boot_s=worked.startup_s)
    try:
        return estimate(deployment, [requests], load_prices())
    except EvalError as error:
        return str(error)


def _line(what: str, value: float, limit: Limit, amount: float | None, how: str) -> Line:
    told = f"{_number(value)} {limit.unit}" + (f" ({how})" if how else "")
    return Line(what, told, _amount(limit, amount), _verdict(value, amount), limit.cited)


def _verdict(value: float, amount: float | None) -> str:
    return FITS if amount is None or value <= amount else TOO_MUCH


def _amount(limit: Limit, amount: float | None) -> str:
    return "none" if amount is None else f"{_number(amount)} {limit.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _dollars(bill: dict[str, Any]) -> str:
    return f"${bill['net']:,.2f} a month, ${bill['gross']:,.2f} without free allowances"
