"""Which sizes and numbers of instances a platform takes together. Programs and preflight ask the same; no Pulumi."""

from __future__ import annotations

from infra.errors import ConfigError
from infra.targets import CLOUD_RUN_MEMORY_MIB, ONE_DYNO_SIZES, SAGEMAKER_SIZES, SERVERLESS

CLOUD_RUN_RANGE_MIB = (512, 32768)  # MiB
MAX_CONCURRENCY = 1000  # in one instance at once: "Maximum concurrent requests" in Cloud Run's documentation
# Of instances or dynos: the platforms allow more, but a typo should not cost that. Cloud Run's is its own default.
MAX_CLOUD_RUN_INSTANCES = 100
MAX_DYNOS = 10
MAX_SAGEMAKER_INSTANCES = 100


def check_cloud_run(vcpus: str, memory_mib: int, concurrency: int, least: int, most: int) -> None:
    """Raise ConfigError for what Google would refuse, or for settings that contradict."""
    low, high = CLOUD_RUN_MEMORY_MIB[vcpus]
    if not low <= memory_mib <= high:
        raise ConfigError(
            f"cloudtrial:memoryMib is {memory_mib}; "
            f"with {vcpus} vCPU, Cloud Run has {low} to {high} MiB (cloudtrial:vcpus)"
        )
    if float(vcpus) < 1 < concurrency:
        raise ConfigError(
            f"cloudtrial:concurrency is {concurrency}; with less than 1 vCPU, Cloud Run lets one request "
            "at once into an instance: set it to 1, or cloudtrial:vcpus to 1 or more"
        )
    _check_order(least, most)


def check_dynos(size: str, dynos: int) -> None:
    """Raise ConfigError for several dynos of a size of which Heroku runs one."""
    if size in ONE_DYNO_SIZES and dynos > 1:
        raise ConfigError(
            f"cloudtrial:dynos is {dynos}; Heroku runs one {size} dyno of a kind, more from standard-1x on"
        )


def check_sagemaker(size: str, least: int, most: int) -> None:
    """Raise ConfigError for instances of a serverless size, or of one that AWS does not scale. least: 0 if unset."""
    if size.startswith(SERVERLESS) and least:
        raise ConfigError(f"cloudtrial:minInstances means nothing with {size}, which runs nothing without a request")
    _check_order(least, most)
    if SAGEMAKER_SIZES[size].baseline_vcpus and least < most:
        raise ConfigError(
            f"cloudtrial:maxInstances is {most}; AWS scales no burstable size, so with {size} it has to be"
            f" cloudtrial:minInstances, {least}"
        )


def _check_order(least: int, most: int) -> None:
    if least > most:
        raise ConfigError(f"cloudtrial:minInstances is {least}, more than cloudtrial:maxInstances, {most}")
