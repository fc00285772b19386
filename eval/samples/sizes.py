"""The size by which an endpoint is priced: that of infra/targets.py, or another one that the provider sells."""

from __future__ import annotations

from dataclasses import replace

from eval.errors import InvalidInput
from eval.samples.model import TargetRun
from infra.targets import (
    AWS_SAGEMAKER,
    CLOUD_RUN_MEMORY_MIB,
    EC2_SIZES,
    HEROKU_SIZES,
    SAGEMAKER_SIZES,
    TARGETS,
    Target,
    sagemaker_target,
)

SIZES_BY_BILLING = {"hourly": EC2_SIZES, "dyno": HEROKU_SIZES}


def sized_target(name: str, size: str | None) -> Target:
    """The target in this size: such as t3.medium or standard-2x, on Google Cloud VCPUS:MIB. Raises InvalidInput."""
    if name not in TARGETS:
        raise InvalidInput(f"{name!r} is none of {', '.join(TARGETS)}")
    target = TARGETS[name]
    if not size:
        return target
    if target is AWS_SAGEMAKER:
        if size not in SAGEMAKER_SIZES:
            raise InvalidInput(f"{name} has no size {size!r}; choose from {', '.join(SAGEMAKER_SIZES)}")
        return sagemaker_target(size)
    if target.billing in SIZES_BY_BILLING:
        sizes = SIZES_BY_BILLING[target.billing]
        if size not in sizes:
            raise InvalidInput(f"{name} has no size {size!r}; choose from {', '.join(sizes)}")
        spec = sizes[size]
        return replace(
            target, size=size, vcpus=spec.vcpus, memory_mib=spec.memory_mib,
            baseline_vcpus=spec.baseline_vcpus or spec.vcpus, sleeps_after_s=spec.sleeps_after_s,
        )  # fmt: skip
    vcpus, separator, memory = size.partition(":")
    if not separator or vcpus not in CLOUD_RUN_MEMORY_MIB or not (memory.isascii() and memory.isdigit()):
        raise InvalidInput(
            f"{name}:{size}: expected VCPUS:MIB, such as 1:1024; vCPUs: {', '.join(CLOUD_RUN_MEMORY_MIB)}"
        )
    memory_mib, (low_mib, high_mib) = int(memory), CLOUD_RUN_MEMORY_MIB[vcpus]
    if not low_mib <= memory_mib <= high_mib:
        raise InvalidInput(f"{name}:{size}: {vcpus} vCPUs are sold with {low_mib} to {high_mib} MiB")
    memory_text = f"{memory_mib // 1024} GiB" if memory_mib % 1024 == 0 else f"{memory_mib} MiB"
    return replace(
        target, size=f"{vcpus} vCPU, {memory_text}", vcpus=float(vcpus), baseline_vcpus=float(vcpus),
        memory_mib=memory_mib,
        concurrency=target.concurrency if float(vcpus) >= 1 else 1,  # as Cloud Run has it
    )  # fmt: skip


def priced_target(run: TargetRun) -> Target | None:
    """The target that an endpoint is priced as, in its size; None for a custom endpoint, or one that is not known."""
    try:
        target = sized_target(run.target or "", run.size)
    except InvalidInput:
        return None
    return replace(target, region=run.region or target.region)
