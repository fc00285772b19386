"""How a stack's resources are named and tagged, on every cloud. No Pulumi: the leftovers command searches by these."""

from __future__ import annotations

from infra.targets import read_stack

PROJECT = "cloudtrial"


def tags(stack: str) -> dict[str, str]:
    """The tags of every resource that can carry any. Also valid as Google's labels."""
    return {"project": PROJECT, "stack": stack}


def resource_name(part: str, stack: str) -> str:
    """A resource's name, unique for each stage: cloudtrial-run, cloudtrial-run-prod."""
    _, stage = read_stack(stack)
    return "-".join(filter(None, (PROJECT, part, stage)))


def endpoint_name(stack: str, size: str) -> str:
    """SageMaker's endpoint of a size: cloudtrial-endpoint-prod-ml-m5-large. Another size is another endpoint."""
    return f"{resource_name('endpoint', stack)}-{size.replace('.', '-')}"
