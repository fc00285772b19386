"""What Amazon SageMaker lets through, in bytes and seconds: of AWS's API model and documentation, read 2026-11-29."""

from __future__ import annotations

MAX_BODY_BYTES = 6_291_456  # of a real-time endpoint, by AWS's API reference; its FAQ says 25 MB
MAX_SERVERLESS_BODY_BYTES = 4 * 1024 * 1024
CONTAINER_TIMEOUT_S = 60.0  # for the container's whole answer
SIGNATURE_LIFETIME_S = 300  # between the time that a signature names and its arrival
PASSED_HEADERS = ("content-type", "accept")  # and those that begin with:
PASSED_PREFIX = "x-amzn-sagemaker-"


def max_body_bytes(*, serverless: bool) -> int:
    """Of a request."""
    return MAX_SERVERLESS_BODY_BYTES if serverless else MAX_BODY_BYTES
