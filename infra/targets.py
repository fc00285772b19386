"""The five targets: region, size, limits and billing of each. The only place where these are written; no Pulumi.

The Pulumi programs take their defaults from here, the twins their limits, the cost model its meters.
Sources of sizes, limits and meters: see eval/cost/prices.yaml, which prices them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from infra.errors import StackError

Billing = Literal["hourly", "dyno", "request", "endpoint", "serverless"]  # eval/cost/billing.py has a formula for each
Architecture = Literal["amd64", "arm64"]  # by Debian's names


@dataclass(frozen=True)
class Target:
    """One way to deploy the service."""

    name: str  # stack name, and the folder under infra/
    title: str  # as people write it
    kind: str  # virtual machine, dyno, container, function or endpoint
    region: str
    size: str  # the provider's own name for it
    vcpus: float  # that one instance may use at once
    baseline_vcpus: float  # that it may use without limit at the listed price (burstable machines: less than vcpus)
    memory_mib: int
    disk_gb: int  # that is billed; 0 where disk is not a meter
    concurrency: (
        int  # requests in one instance at once; without a platform's limit, what fills its queue and some to refuse
    )
    max_instances: int
    billing: Billing
    boot_timeout_s: int  # from start to ready, or the platform gives up
    scales_to_zero: bool
    cpu_isa: str = "AVX2"  # as Size's
    sleeps_after_s: int = 0  # as Size's
    startup_cpu_boost: bool = False  # a starting instance has, and is billed, twice its vCPUs
    min_instances: int = 0  # kept running without a request; machines and dynos are one at least anyway


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
    concurrency=288,
    max_instances=1,  # the program makes one VM, and no load balancer that several would need
    billing="hourly",
    boot_timeout_s=600,
    scales_to_zero=False,
    cpu_isa="AVX512_CORE",
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
    concurrency=288,
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
    startup_cpu_boost=True,
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

AWS_SAGEMAKER = Target(
    name="aws_sagemaker",
    title="AWS SageMaker",
    kind="endpoint",
    region="us-east-1",
    size="ml.m5.large",
    vcpus=2,
    baseline_vcpus=2,
    memory_mib=8192,
    disk_gb=0,
    concurrency=288,
    max_instances=3,
    billing="endpoint",
    boot_timeout_s=300,
    scales_to_zero=False,
    cpu_isa="AVX512_CORE",
)

FUNCTION_ENTRY_POINT = "classify"  # the function in service/main.py
FUNCTION_THREADS_PER_VCPU = 4  # functions-framework's own default per processor


TARGETS: dict[str, Target] = {t.name: t for t in (AWS_EC2, HEROKU, GCP_CLOUDRUN, GCP_FUNCTION, AWS_SAGEMAKER)}

STAGE_PATTERN = re.compile(r"[a-z][a-z0-9]{0,9}")  # part of names, and Google allows a service account 30 characters


@dataclass(frozen=True)
class Size:
    """A size that a provider sells by name."""

    vcpus: float
    memory_mib: int
    baseline_vcpus: float | None = None  # as Target's; None: all of them
    # Widest vector unit that every amd64 processor of this size has, by oneDNN's name: the twins keep PyTorch to it.
    # AVX2 where the provider promises no processor, as Heroku and Cloud Run do not.
    cpu_isa: str = "AVX2"
    architecture: Architecture = "amd64"  # a twin has this machine's, whatever its size
    sleeps_after_s: int = 0  # without a request; 0: it never sleeps. The next request waits for a start


# Units that speed up a network of 8-bit integers, by the names of service/system.py, which each `cpu_isa` promises
PROMISED_INT8_UNITS: dict[str, tuple[str, ...]] = {
    "AVX2": (),
    "AVX512_CORE": ("AVX-512",),
    "AVX512_CORE_BF16": ("AVX-512", "AVX-512 VNNI"),
    "AVX512_CORE_AMX": ("AVX-512", "AVX-VNNI", "AVX-512 VNNI", "AMX-INT8"),
}
INT8_UNITS = PROMISED_INT8_UNITS["AVX512_CORE_AMX"]  # all of them

# The x86-64 sizes that a stack may ask for; the image and torch's CPU wheels are of that architecture.
# T3 runs on Skylake or Cascade Lake (AVX-512 without bfloat16), C7i on Sapphire Rapids, C7a on Genoa.
EC2_SIZES: dict[str, Size] = {
    "t3.micro": Size(2, 1024, 0.2, cpu_isa="AVX512_CORE"),
    "t3.small": Size(2, 2048, 0.4, cpu_isa="AVX512_CORE"),
    "t3.medium": Size(2, 4096, 0.4, cpu_isa="AVX512_CORE"),
    "t3.large": Size(2, 8192, 0.6, cpu_isa="AVX512_CORE"),
    "t4g.small": Size(2, 2048, 0.4, architecture="arm64"),  # Graviton2
    "c7i.large": Size(2, 4096, cpu_isa="AVX512_CORE_AMX"),
    "c7i.xlarge": Size(4, 8192, cpu_isa="AVX512_CORE_AMX"),
    "c7a.large": Size(2, 4096, cpu_isa="AVX512_CORE_BF16"),
}
# Heroku states no number of processors of a shared dyno; the twin and the cost model allow one.
HEROKU_SIZES: dict[str, Size] = {
    "eco": Size(1, 512, sleeps_after_s=1800),
    "basic": Size(1, 512),
    "standard-1x": Size(1, 512),
    "standard-2x": Size(1, 1024),
    "performance-m": Size(2, 2560),
    "performance-l": Size(8, 14336),
}
# SageMaker's instances: M5 and C5 run on Skylake or Cascade Lake, T2 on Haswell or Broadwell.
SAGEMAKER_SIZES: dict[str, Size] = {
    "ml.t2.medium": Size(2, 4096, 0.4),
    "ml.m5.large": Size(2, 8192, cpu_isa="AVX512_CORE"),
    "ml.m5.xlarge": Size(4, 16384, cpu_isa="AVX512_CORE"),
    "ml.c5.xlarge": Size(4, 8192, cpu_isa="AVX512_CORE"),
    # Serverless is sold by memory, a request at a time in each. AWS says that processors grow with it and not how many:
    # a vCPU for each 1,769 MB is what it says of Lambda.
    **{f"serverless-{mib}": Size(round(mib / 1769, 2), mib) for mib in range(1024, 6145, 1024)},
}
SERVERLESS = "serverless-"  # how such sizes begin
ONE_DYNO_SIZES = ("eco", "basic")  # these allow one dyno for each process type
# Cloud Run's sizes, and the memory that each may have; both Google targets run there. Sources: "Configure CPU limits"
# and "Configure memory limits" in Cloud Run's documentation. Any fraction from 0.08 on is sold as well, but less than
# half a processor is too slow for the network, and torch does not fit into less than 512 MiB.
CLOUD_RUN_MEMORY_MIB: dict[str, tuple[int, int]] = {
    "0.5": (512, 1024),
    "1": (512, 4096),
    "2": (512, 8192),
    "4": (2048, 16384),
    "6": (4096, 24576),
    "8": (4096, 32768),
}


def sagemaker_target(size: str, max_instances: int | None = None) -> Target:
    """SageMaker in one of SAGEMAKER_SIZES: as instances, or serverless.

    max_instances: of serverless, requests at once. By default 3; but of a burstable size one, as AWS scales none.
    """
    spec = SAGEMAKER_SIZES[size]
    default = AWS_SAGEMAKER.max_instances if spec.baseline_vcpus is None else 1
    sized = replace(
        AWS_SAGEMAKER, size=size, vcpus=spec.vcpus, baseline_vcpus=spec.baseline_vcpus or spec.vcpus,
        memory_mib=spec.memory_mib, cpu_isa=spec.cpu_isa, max_instances=max_instances or default,
    )  # fmt: skip
    if not size.startswith(SERVERLESS):
        return sized
    return replace(sized, billing="serverless", concurrency=1, scales_to_zero=True)


def read_stack(name: str) -> tuple[Target, str]:
    """The target and the stage of a stack: `aws_ec2` is ("aws_ec2", ""), `aws_ec2-prod` ("aws_ec2", "prod").

    Raises StackError for a name of no target, or a stage that cannot be part of a resource's name.
    """
    stem, dash, stage = name.partition("-")
    if stem not in TARGETS:
        raise StackError(f"stack {name!r} names no target; call it one of {', '.join(TARGETS)}, or one of these-stage")
    if dash and not STAGE_PATTERN.fullmatch(stage):
        raise StackError(f"stack {name!r}: the stage {stage!r} has to be 1 to 10 of a-z and 0-9, a letter first")
    return TARGETS[stem], stage
