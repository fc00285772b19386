"""The providers' limits for a deployment, each with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """One limit of a provider."""

    amount: float | None  # None: there is none, and the source says so
    unit: str
    source: str
    date: str  # when the source stated it; for a source without a date, when it was read

    @property
    def cited(self) -> str:
        """Source and date, as they stand in the table."""
        return f"{self.source}, {self.date}"


EC2_USER_DATA = Limit(
    16384, "bytes", "EC2 User Guide, instancedata-add-user-data: 16 KB before base64", "read 2026-11-21"
)
EC2_DISK = Limit(None, "GB", "infra/targets.py (disk_gb), which the program asks for", "2026-11-20")
EC2_MEMORY = Limit(None, "MiB", "the instance type's memory, less 300 MiB assumed for Debian", "2026-11-20")
EC2_BOOT = Limit(None, "s", "our own: how long `pulumi up` waits, the installation on the VM included", "2026-11-20")

HEROKU_SLUG = Limit(
    1000, "MB", "heroku.com/blog/bigger-slugs-and-greater-build-timeout-flexibility: 1 GB, 500 MB before", "2026-03-19"
)
HEROKU_IMAGE = Limit(None, "MB", "no slug limit for container images (Heroku's Container Registry)", "read 2026-11-20")
HEROKU_BOOT = Limit(60, "s", "error R10 (boot timeout) of Heroku's router", "read 2026-11-21")
HEROKU_MEMORY = Limit(None, "MiB", "devcenter.heroku.com/articles/dyno-memory-behavior: R14 above it", "2025-03-28")

CLOUD_RUN_IMAGE = Limit(None, "MB", "cloud.google.com/run/quotas: no direct limit for images", "read 2026-11-21")
CLOUD_RUN_BOOT = Limit(240, "s", "cloud.google.com/run/quotas: container startup 4 minutes", "read 2026-11-21")
CLOUD_RUN_MEMORY = Limit(
    None,
    "MiB",
    "the instance's, written files included (cloud.google.com/run/quotas)",
    "read 2026-11-21",
)
CLOUD_RUN_REQUEST = Limit(
    32, "MiB", "a request over HTTP/1; reports of users, not seen in Google's pages", "2026-11-21"
)

FUNCTION_ZIP = Limit(None, "MB", "cloud.google.com/functions/quotas: size N/A for 2nd gen", "read 2026-11-21")
FUNCTION_REQUEST = Limit(32, "MB", "cloud.google.com/functions/quotas: HTTP request, 2nd gen", "read 2026-11-21")

SAGEMAKER_IMAGE = Limit(None, "MB", "none that we know of for instances", "2026-11-29")
SERVERLESS_IMAGE = Limit(10_000, "MB", "10 GB by SageMaker's guide to serverless; not read again", "2026-11-29")
SAGEMAKER_MEMORY = Limit(None, "MiB", "the instance type's memory, or what serverless was asked for", "2026-11-29")
SAGEMAKER_BOOT = Limit(None, "s", "ours: container_startup_health_check_timeout, 60 to 3600 s", "2026-11-29")
SERVERLESS_BOOT = Limit(180, "s", "SageMaker Developer Guide: /ping within 3 minutes of a start", "read 2026-11-29")
SAGEMAKER_REQUEST = Limit(6, "MB", "InvokeEndpoint in botocore's model; AWS's FAQ has 25 MB", "read 2026-11-28")
SERVERLESS_REQUEST = Limit(4, "MB", "SageMaker Developer Guide, serverless endpoints: payload", "read 2026-11-28")

DEBIAN_MIB = 300  # of EC2_MEMORY
