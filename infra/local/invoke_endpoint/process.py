"""How the front is started in front of a twin."""

from __future__ import annotations

import sys

from infra.artifact import REPOSITORY
from infra.local.process_spec import ProcessSpec

HOST = "127.0.0.1"
ENDPOINT = "cloudtrial-twin"
REGION = "us-east-1"


def invoke_endpoint_process(port: int, upstream_port: int) -> ProcessSpec:
    """InvokeEndpoint on `port`, in front of the container that listens on `upstream_port`."""
    arguments = ("--port", str(port), "--upstream-port", str(upstream_port))
    command = (sys.executable, "-m", "infra.local.invoke_endpoint", *arguments)
    return ProcessSpec(command, {"PYTHONPATH": str(REPOSITORY)})


def invoke_url(port: int) -> str:
    """The address to which requests are posted."""
    return f"http://{HOST}:{port}/endpoints/{ENDPOINT}/invocations"
