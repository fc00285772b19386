"""The checks: a measured or stated value against its limit, and the verdict."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra.errors import UserDataError
from infra.local.artifact_size import LIBRARIES
from infra.preflight import limits, measure
from infra.preflight.deployment_spec import DeploymentSpec
from infra.preflight.limits import Limit
from infra.targets import EC2_SIZES
from service.schema import MAX_BODY_BYTES

if TYPE_CHECKING:
    from eval.cost.billing import Bill, BusyMonth
    from eval.cost.estimate import CostEstimate

FITS, EXCEEDS, UNKNOWN, COSTS = "fits", "does not fit", "not known", "costs"  # verdicts
SET, NOT_SET = "set", "not set"
# Target -> the setting that its budget needs beside cloudtrial:budgetUsd. Heroku has none, and no meter of traffic.
BUDGET_NEEDS = {
    "aws_ec2": "cloudtrial:budgetEmail",
    "gcp_cloudrun": "cloudtrial:billingAccount",
    "gcp_function": "cloudtrial:billingAccount",
}
DEBIAN_DISK_GB = 2.0  # an estimate; the artifact, packed and unpacked, and the packages come on top
ARM64 = ("aarch64", "arm64")  # how Linux and macOS call it
BASE_IMAGE_MB = 130.0  # python:3.11-slim-bookworm, an estimate


@dataclass(frozen=True)
class CheckResult:
    """One row of the table."""

    name: str
    value: str
    limit: str
    verdict: str
    source: str  # of the limit, or of the prices


def check_sizes(spec: DeploymentSpec) -> Iterator[CheckResult]:
    """Size of what is shipped and installed, against the target's limits."""
    shipped, installed = measure.measure_package(spec), measure.measure_installed(spec)
    unpacked_mb = shipped.unpacked_mb + installed.megabytes
    match spec.target.name:
        case "aws_ec2":
            yield _check_user_data(spec)
            disk_gb = DEBIAN_DISK_GB + (shipped.packed_mb + unpacked_mb) / 1000
            yield _check_limit("disk", disk_gb, limits.EC2_DISK, spec.target.disk_gb, installed.basis)
        case "heroku" if not spec.container:
            packed_mb = shipped.packed_mb + installed.megabytes * LIBRARIES[spec.engine].packed_fraction
            low, high = (packed_mb + python for python in measure.PYTHON_MB)
            limit = limits.HEROKU_SLUG
            text = f"{low:.0f} to {high:.0f} MB, estimated from {installed.megabytes:.0f} MB ({installed.basis})"
            verdict = _verdict(high, limit.amount)
            yield CheckResult("slug, packed", text, _limit_text(limit, limit.amount), verdict, limit.cited)
        case "heroku" | "gcp_cloudrun" | "aws_sagemaker":
            limit = {"heroku": limits.HEROKU_IMAGE, "gcp_cloudrun": limits.CLOUD_RUN_IMAGE}.get(spec.target.name)
            limit = limit or (limits.SERVERLESS_IMAGE if _is_serverless(spec) else limits.SAGEMAKER_IMAGE)
            yield _check_limit("image, unpacked", BASE_IMAGE_MB + unpacked_mb, limit, limit.amount, installed.basis)
        case _:
            yield _check_limit("zip", shipped.packed_mb, limits.FUNCTION_ZIP, None, "without what the build installs")
    if spec.target.name == "aws_sagemaker":
        limit = limits.SERVERLESS_REQUEST if _is_serverless(spec) else limits.SAGEMAKER_REQUEST
        text = f"{limit.amount:g} MB; the service would take {MAX_BODY_BYTES / measure.MB:.0f}"
        yield CheckResult("largest request", text, _limit_text(limit, limit.amount), FITS, limit.cited)
    if spec.target.billing == "request":
        function = spec.target.name == "gcp_function"
        limit = limits.FUNCTION_REQUEST if function else limits.CLOUD_RUN_REQUEST
        unit = measure.MB if function else 1024 * 1024
        yield _check_limit("largest request", MAX_BODY_BYTES / unit, limit, limit.amount, "that the service takes")


def check_twin(spec: DeploymentSpec, local: measure.LocalMeasurement | str) -> Iterator[CheckResult]:
    """Memory and start time of the twin; a text says why there are none."""
    memory, boot = {
        "aws_ec2": (limits.EC2_MEMORY, limits.EC2_BOOT),
        "aws_sagemaker": (
            limits.SAGEMAKER_MEMORY,
            limits.SERVERLESS_BOOT if _is_serverless(spec) else limits.SAGEMAKER_BOOT,
        ),
        "heroku": (limits.HEROKU_MEMORY, limits.HEROKU_BOOT),
        "gcp_cloudrun": (limits.CLOUD_RUN_MEMORY, limits.CLOUD_RUN_BOOT),
        "gcp_function": (limits.CLOUD_RUN_MEMORY, limits.CLOUD_RUN_BOOT),
    }[spec.target.name]
    memory_mib = usable_memory_mib(spec)
    boot_s = boot.amount or spec.target.boot_timeout_s
    if isinstance(local, str):
        file_mib = measure.model_file_mib(spec)
        if file_mib > memory_mib:
            yield _check_limit("memory", file_mib, memory, memory_mib, f"of {spec.model}'s file alone")
        else:
            yield CheckResult("memory", local, _limit_text(memory, memory_mib), UNKNOWN, memory.cited)
        yield CheckResult("start", local, _limit_text(boot, boot_s), UNKNOWN, boot.cited)
        return
    yield _check_memory(local, memory, memory_mib, f"peak of {_twin(spec)}, {measure.PREDICTIONS} predictions")
    note = f"of {_twin(spec)}" + ("; the VM's installation comes on top" if spec.target.name == "aws_ec2" else "")
    yield _check_limit("start", local.startup_s, boot, boot_s, note)


def _is_serverless(spec: DeploymentSpec) -> bool:
    return spec.target.billing == "serverless"


def usable_memory_mib(spec: DeploymentSpec) -> float:
    """The memory that the service may take."""
    return spec.target.memory_mib - (limits.DEBIAN_MIB if spec.target.name == "aws_ec2" else 0)


def estimate_cost(spec: DeploymentSpec, requests: int, local: measure.LocalMeasurement | str) -> Iterator[CheckResult]:
    """Cost at rest and at the given traffic, by the cost model of `./cloudtrial cost`."""
    estimated = _estimate(spec, requests, local)
    if isinstance(estimated, str):
        yield CheckResult("cost", estimated, "", UNKNOWN, "eval/cost/prices.yaml")
        return
    unconfirmed_ids = ", ".join(estimated.unconfirmed_price_ids)
    unconfirmed = f"; not confirmed: {unconfirmed_ids}" if unconfirmed_ids else ""
    source = f"eval/cost/prices.yaml of {estimated.price_list_date}{unconfirmed}"
    basis = "assumed" if isinstance(local, str) else f"of {_twin(spec)}"
    yield CheckResult("cost at rest", _bill_text(estimated.idle), "", COSTS, source)
    traffic = estimated.monthly_usd[str(requests)]
    limit = f"{spec.target.max_instances} instances" if traffic.exceeds_max_instances else ""
    verdict = EXCEEDS if traffic.exceeds_max_instances else COSTS
    text = f"{_bill_text(traffic)} (service time {basis})"
    yield CheckResult(f"cost at {requests:,} requests", text, limit, verdict, source)
    yield CheckResult("cost at most", _busy_month_text(estimated.busy_month, spec), "", COSTS, source)
    if spec.target.name in BUDGET_NEEDS:
        yield _check_budget(spec)


def _twin(spec: DeploymentSpec) -> str:
    """The twin; where its processor is of another kind than the size's, its figures are not the size's."""
    size = EC2_SIZES.get(spec.target.size)
    if size is None or size.architecture == "amd64" or platform.machine() in ARM64:
        return "the twin"
    return f"the twin, on this machine's {platform.machine()} in place of {size.architecture}"


def _check_memory(local: measure.LocalMeasurement, limit: Limit, amount: float, note: str) -> CheckResult:
    """Peak memory. With torch's larger CUDA build, a peak that fits is conclusive, one that does not is not."""
    result = _check_limit("memory", local.peak_mib, limit, amount, note)
    if result.verdict == EXCEEDS and local.cuda_build:
        text = f"{_number_text(local.peak_mib)} MiB (peak of the twin, on torch's CUDA build; {measure.STATED_PEAK})"
        return replace(result, value=text, verdict=UNKNOWN)
    return result


def _check_user_data(spec: DeploymentSpec) -> CheckResult:
    limit = limits.EC2_USER_DATA
    try:
        return _check_limit("user data", measure.user_data_bytes(spec), limit, limit.amount, "")
    except UserDataError as error:
        return CheckResult("user data", str(error), _limit_text(limit, limit.amount), EXCEEDS, limit.cited)


def _estimate(spec: DeploymentSpec, requests: int, local: measure.LocalMeasurement | str) -> CostEstimate | str:
    """The estimate of eval's cost model, or why there is none."""
    from eval.cost.estimate import Deployment, estimate  # NumPy, which --help does not wait for
    from eval.cost.price_list import load_price_list
    from eval.errors import EvalError

    target = spec.target
    deployment = Deployment(target.name, region=target.region, instances=spec.instances, engine=spec.engine)
    if target.billing == "request":
        deployment = replace(deployment, vcpus=target.vcpus, memory_mib=target.memory_mib,
                             concurrency=target.concurrency, max_instances=target.max_instances)  # fmt: skip
    else:
        deployment = replace(deployment, size=target.size, max_instances=target.max_instances)
    if not isinstance(local, str):
        deployment = replace(deployment, service_ms=local.service_ms, boot_s=local.startup_s)
    try:
        return estimate(deployment, [requests], load_price_list())
    except EvalError as error:
        return str(error)


def _check_limit(name: str, value: float, limit: Limit, amount: float | None, note: str) -> CheckResult:
    text = f"{_number_text(value)} {limit.unit}" + (f" ({note})" if note else "")
    return CheckResult(name, text, _limit_text(limit, amount), _verdict(value, amount), limit.cited)


def _verdict(value: float, amount: float | None) -> str:
    return FITS if amount is None or value <= amount else EXCEEDS


def _limit_text(limit: Limit, amount: float | None) -> str:
    return "none" if amount is None else f"{_number_text(amount)} {limit.unit}"


def _number_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _busy_month_text(month: BusyMonth, spec: DeploymentSpec) -> str:
    kind = "VM" if spec.target.billing == "hourly" else "dyno" if spec.target.billing == "dyno" else "instance"
    busy = f"{month.instances} {kind}{'s' if month.instances > 1 else ''} busy all month, without free allowances"
    meters = [(month.million_requests_usd, "million requests"),
              (month.egress_usd, "GiB sent" if spec.target.billing == "request" else "GB sent")]  # fmt: skip
    on_top = "; ".join(f"${usd:,.2f} more for each {unit}" for usd, unit in meters if usd)
    return f"${month.usd:,.2f} a month ({busy}{'; ' if on_top else ''}{on_top})"


def _check_budget(spec: DeploymentSpec) -> CheckResult:
    needs = BUDGET_NEEDS[spec.target.name]
    if spec.budget_usd:
        return CheckResult("budget alarm", f"at ${spec.budget_usd:,} a month", "", SET, "")
    text = f"none: nobody is told of costs until the bill; set cloudtrial:budgetUsd and {needs}"
    return CheckResult("budget alarm", text, "", NOT_SET, "")


def _bill_text(bill: Bill) -> str:
    return f"${bill.net_usd:,.2f} a month, ${bill.gross_usd:,.2f} without free allowances"
