"""The four targets: what is deployed where, how large, and how it is billed. One home for these facts; no Pulumi.

The Pulumi programs take their defaults from here, the twins their limits, the cost model its meters.
Sources of sizes, limits and meters: see eval/prices.yaml, which prices them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Billing = Literal["hourly", "dyno", "request"]


@dataclass(frozen=True)
class Target:
    """One way to deploy the service."""

    name: str  # stack name, and the folder under infra/
    title: str  # as people write it
    kind: str  # virtual machine, dyno, container or function
    region: str
    size: str  # the provider's own name for it
    vcpus: float  # that one instance may use at once
    baseline_vcpus: float  # that it may use for ever at the listed price (burstable machines: less than vcpus)
    memory_mib: int
    disk_gb: int  # that is billed; 0 where disk is not a meter
    concurrency: int  # requests in one instance at once
    max_instances: int
    billing: Billing
    boot_timeout_s: int  # from start to ready, or the platform gives up
    scales_to_zero: bool


AWS_EC2 = Target(
    name="aws_ec2",
    title="AWS EC2",
    kind="virtual machine",
    region="us-east-1",
    size="t3.small",
    vcpus=2,
    baseline_vcpus=0.4,
    memory_mib=2048,
    disk_gb=16,
    concurrency=64,
    max_instances=3,
    billing="hourly",
    boot_timeout_s=600,
    scales_to_zero=False,
)

HEROKU = Target(
    name="heroku",
    title="Heroku",
    kind="dyno",
    region="us",
    size="basic",
    vcpus=1,
    baseline_vcpus=1,
    memory_mib=512,
    disk_gb=0,
    concurrency=64,
    max_instances=3,
    billing="dyno",
    boot_timeout_s=60,
    scales_to_zero=False,
)

GCP_CLOUDRUN = Target(
    name="gcp_cloudrun",
    title="Google Cloud Run",
    kind="container",
    region="us-central1",
    size="1 vCPU, 1 GiB",
    vcpus=1,
    baseline_vcpus=1,
    memory_mib=1024,
    disk_gb=0,
    concurrency=4,
    max_instances=3,
    billing="request",
    boot_timeout_s=240,
    scales_to_zero=True,
)

GCP_FUNCTION = Target(
    name="gcp_function",
    title="Google Cloud Functions",
    kind="function",
    region="us-central1",
    size="1 vCPU, 1 GiB",
    vcpus=1,
    baseline_vcpus=1,
    memory_mib=1024,
    disk_gb=0,
    concurrency=1,
    max_instances=3,
    billing="request",
    boot_timeout_s=240,
    scales_to_zero=True,
)

TARGETS: dict[str, Target] = {t.name: t for t in (AWS_EC2, HEROKU, GCP_CLOUDRUN, GCP_FUNCTION)}
