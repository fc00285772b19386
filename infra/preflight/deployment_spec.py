"""What a stack would deploy: its target with the settings of its stack file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from infra.errors import ConfigError, ModelError, TokenInClear
from infra.models import DEFAULT_MODEL, choose_engine, read_model
from infra.size_limits import (
    CLOUD_RUN_RANGE_MIB,
    MAX_CLOUD_RUN_INSTANCES,
    MAX_CONCURRENCY,
    MAX_DYNOS,
    MAX_SAGEMAKER_INSTANCES,
    check_cloud_run,
    check_dynos,
    check_sagemaker,
)
from infra.stored_model import FOLLOWED_SCHEMES, StoredModel, read_stored_model
from infra.targets import (
    AWS_EC2,
    AWS_SAGEMAKER,
    CLOUD_RUN_MEMORY_MIB,
    EC2_SIZES,
    HEROKU,
    HEROKU_SIZES,
    SAGEMAKER_SIZES,
    Target,
    read_stack,
    sagemaker_target,
)
from service.model import Bundle
from service.settings import Settings


@dataclass(frozen=True)
class DeploymentSpec:
    """One stack, before it is deployed."""

    stack: str
    target: Target  # size, memory and so on as the stack sets them
    engine: str = Settings.engine
    model: str = DEFAULT_MODEL
    stored: StoredModel | None = None  # where the model comes from a store
    https: bool = False  # AWS, with a domain
    container: bool = False  # Heroku builds the image rather than a slug
    instances: int = 0  # that run without any request
    budget_usd: int = 0  # a month, at which an alarm is sent; 0 is none

    @property
    def bundle(self) -> Bundle:
        """The model's bundle."""
        return self.stored.bundle if self.stored else read_model(self.model)

    @property
    def follows_store(self) -> bool:
        """Whether the deployment gets its model by itself, so that none is shipped."""
        return self.stored is not None and self.target.name in FOLLOWED_SCHEMES


def read_deployment_spec(stack: str, settings: Mapping[str, str], secret_keys: Collection[str] = ()) -> DeploymentSpec:
    """The deployment that the settings describe. Raises StackError or ConfigError; the program itself checks more.

    secret_keys: of settings whose values are encrypted.
    """
    stack = stack.rpartition("/")[2]
    target, _ = read_stack(stack)
    settings = {key: value for key, value in settings.items() if value}  # an empty value is an unset one
    own_settings = {key.partition(":")[2]: value for key, value in settings.items() if key.startswith("cloudtrial:")}
    stored = _stored_model(own_settings, target)
    model, engine = _model_and_engine(own_settings, stored)
    budget = _integer(own_settings, "budgetUsd", 0, 1, 10**9)
    if target is AWS_EC2:
        allowed = own_settings.get("allowTokenOverHttp") == "true"
        if "cloudtrial:apiToken" in secret_keys and "domain" not in own_settings and not allowed:
            raise TokenInClear()
        target = replace(_sized(target, own_settings, EC2_SIZES), region=settings.get("aws:region", target.region))
        https = "domain" in own_settings
        return DeploymentSpec(stack, target, engine, model, stored, https=https, budget_usd=budget)
    if target is AWS_SAGEMAKER:
        return _sagemaker_spec(DeploymentSpec(stack, target, engine, model, stored), settings, own_settings)
    if target is HEROKU:
        target = replace(_sized(target, own_settings, HEROKU_SIZES), region=own_settings.get("region", target.region))
        dynos = _integer(own_settings, "dynos", 1, 1, MAX_DYNOS)
        check_dynos(target.size, dynos)
        container = own_settings.get("build") == "container"
        return DeploymentSpec(stack, target, engine, model, stored, container=container, instances=dynos)
    vcpus = own_settings.get("vcpus", f"{target.vcpus:g}")
    if vcpus not in CLOUD_RUN_MEMORY_MIB:
        raise ConfigError(f"cloudtrial:vcpus is {vcpus!r}; it has to be one of {', '.join(CLOUD_RUN_MEMORY_MIB)}")
    memory = _integer(own_settings, "memoryMib", target.memory_mib, *CLOUD_RUN_RANGE_MIB)
    size = target.size if (float(vcpus), memory) == (target.vcpus, target.memory_mib) else f"{vcpus} vCPU, {memory} MiB"
    target = replace(
        target, region=settings.get("gcp:region", target.region), size=size, vcpus=float(vcpus), memory_mib=memory,
        concurrency=_integer(own_settings, "concurrency", target.concurrency, 1, MAX_CONCURRENCY),
        max_instances=_integer(own_settings, "maxInstances", target.max_instances, 1, MAX_CLOUD_RUN_INSTANCES),
    )  # fmt: skip
    warm = _integer(own_settings, "minInstances", 0, 0, MAX_CLOUD_RUN_INSTANCES)
    check_cloud_run(vcpus, memory, target.concurrency, warm, target.max_instances)
    return DeploymentSpec(stack, target, engine, model, stored, instances=warm, budget_usd=budget)


def _sagemaker_spec(
    spec: DeploymentSpec, settings: Mapping[str, str], own_settings: Mapping[str, str]
) -> DeploymentSpec:
    size = own_settings.get("size", spec.target.size)
    if size not in SAGEMAKER_SIZES:
        raise ConfigError(f"cloudtrial:size is {size!r}; it has to be one of {', '.join(SAGEMAKER_SIZES)}")
    default, limit = sagemaker_target(size), MAX_SAGEMAKER_INSTANCES
    most = _integer(own_settings, "maxInstances", default.max_instances, 1, limit)
    least = _integer(own_settings, "minInstances", 0 if default.billing == "serverless" else 1, 1, limit)
    check_sagemaker(size, least, most)
    target = replace(sagemaker_target(size, most), region=settings.get("aws:region", spec.target.region))
    return replace(spec, target=target, instances=least)


def _stored_model(own_settings: Mapping[str, str], target: Target) -> StoredModel | None:
    try:
        return read_stored_model(own_settings.get("modelStore"), own_settings.get("model"), target)
    except ModelError as error:
        raise ConfigError(str(error)) from None


def _model_and_engine(own_settings: Mapping[str, str], stored: StoredModel | None) -> tuple[str, str]:
    """As infra/common.py has them for the programs."""
    model = stored.reference.name if stored else own_settings.get("model", DEFAULT_MODEL)
    try:
        bundle = stored.bundle if stored else read_model(model)
    except ModelError as error:
        raise ConfigError(f"cloudtrial:model: {error}") from None
    try:
        return model, choose_engine(bundle, own_settings.get("engine"))
    except ModelError as error:
        raise ConfigError(f"cloudtrial:engine: {error}") from None


def _sized(target: Target, own_settings: Mapping[str, str], sizes: Mapping[str, object]) -> Target:
    name = own_settings.get("size", target.size)
    if name not in sizes:
        raise ConfigError(f"cloudtrial:size is {name!r}; it has to be one of {', '.join(sizes)}")
    size = (EC2_SIZES | HEROKU_SIZES)[name]
    return replace(target, size=name, vcpus=size.vcpus, memory_mib=size.memory_mib)


def _integer(own_settings: Mapping[str, str], key: str, default: int, low: int, high: int) -> int:
    if (text := own_settings.get(key)) is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ConfigError(f"cloudtrial:{key} is {text!r}; it has to be a whole number from {low} to {high}")
    return int(text)
