"""How the front is started in front of a twin."""

from __future__ import annotations

import sys

from infra.artifact import REPOSITORY
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS
from infra.local.process_spec import ProcessSpec

HOST = "127.0.0.1"
ENDPOINT = "cloudtrial-twin"
REGION = "us-east-1"


def invoke_endpoint_process(port: int, upstream_port: int) -> ProcessSpec:
    """InvokeEndpoint on `port`, in front of the container that listens on `upstream_port`."""
    arguments = ("--port", str(port), "--upstream-port", str(upstream_port))
    command = (sys.executable, "-m", "infra.local.invoke_endpoint", *arguments)
    return ProcessSpec(command, {"PYTHONPATH": str(REPOSITORY)})


def signed_example(port: int) -> str:
    """A command that asks this front, with the credentials that it takes."""
    variables = {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": TWIN_CREDENTIALS.access_key_id,
        "AWS_SECRET_ACCESS_KEY": TWIN_CREDENTIALS.secret_access_key,
    }
    assigned = " ".join(f"{name}={value}" for name, value in variables.items())
    return f"{assigned} ./cloudtrial check sagemaker:{ENDPOINT}@{REGION}"


def invoke_url(port: int) -> str:
    """The address to which requests are posted."""
    return f"http://{HOST}:{port}/endpoints/{ENDPOINT}/invocations"
