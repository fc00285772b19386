"""What a stack would deploy: its target with the settings of its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from infra.errors import ConfigError
from infra.targets import AWS_EC2, CLOUD_RUN_MEMORY_MIB, EC2_SIZES, HEROKU, HEROKU_SIZES, Target, read_stack
from service.settings import ENGINES, Settings


@dataclass(frozen=True)
class DeploymentSpec:
    """One stack, before it is deployed."""

    stack: str
    target: Target  # size, memory and so on as the stack sets them
    engine: str = Settings.engine
    https: bool = False  # AWS, with a domain
    container: bool = False  # Heroku builds the image rather than a slug
    instances: int = 0  # that run without any request


def read_deployment_spec(stack: str, settings: Mapping[str, str]) -> DeploymentSpec:
    """The plan. Raises StackError or ConfigError; the program checks more, when it runs."""
    stack = stack.rpartition("/")[2]
    target, _ = read_stack(stack)
    ours = {key.partition(":")[2]: value for key, value in settings.items() if key.startswith("cloudtrial:")}
    engine = ours.get("engine", Settings.engine)
    if engine not in ENGINES:
        raise ConfigError(f"cloudtrial:engine is {engine!r}; it has to be one of {', '.join(ENGINES)}")
    if target is AWS_EC2:
        target = replace(_sized(target, ours, EC2_SIZES), region=settings.get("aws:region", target.region))
        return DeploymentSpec(stack, target, engine, https="domain" in ours)
    if target is HEROKU:
        target = replace(_sized(target, ours, HEROKU_SIZES), region=ours.get("region", target.region))
        dynos = _integer(ours, "dynos", 1)
        return DeploymentSpec(stack, target, engine, container=ours.get("build") == "container", instances=dynos)
    vcpus = ours.get("vcpus", f"{target.vcpus:g}")
    if vcpus not in CLOUD_RUN_MEMORY_MIB:
        raise ConfigError(f"cloudtrial:vcpus is {vcpus!r}; it has to be one of {', '.join(CLOUD_RUN_MEMORY_MIB)}")
    memory = _integer(ours, "memoryMib", target.memory_mib)
    size = target.size if (float(vcpus), memory) == (target.vcpus, target.memory_mib) else f"{vcpus} vCPU, {memory} MiB"
    target = replace(
        target, region=settings.get("gcp:region", target.region), size=size, vcpus=float(vcpus), memory_mib=memory,
        concurrency=_integer(ours, "concurrency", target.concurrency),
        max_instances=_integer(ours, "maxInstances", target.max_instances),
    )  # fmt: skip
    return DeploymentSpec(stack, target, engine, instances=_integer(ours, "minInstances", 0))


def _sized(target: Target, ours: Mapping[str, str], sizes: Mapping[str, object]) -> Target:
    name = ours.get("size", target.size)
    if name not in sizes:
        raise ConfigError(f"cloudtrial:size is {name!r}; it has to be one of {', '.join(sizes)}")
    facts = (EC2_SIZES | HEROKU_SIZES)[name]
    return replace(target, size=name, vcpus=facts.vcpus, memory_mib=facts.memory_mib)


def _integer(ours: Mapping[str, str], key: str, default: int) -> int:
    text = ours.get(key, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigError(f"cloudtrial:{key} is {text!r}; it has to be a whole number")
    return int(text)
