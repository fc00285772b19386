"""One signed request to the InvokeEndpoint of a local twin, for what asks a twin outside of a run."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from eval.targets.sagemaker.connect import twin_signer
from service.schema import ATTRIBUTE_HEADERS, CUSTOM_ATTRIBUTES, PROBABILITIES, read_custom_attributes

TIMEOUT_S = 60.0  # SageMaker's own for an answer


@dataclass(frozen=True)
class Invocation:
    """What was answered."""

    status: int
    headers: Mapping[str, str]  # those of the service, by their own names, which SageMaker passes as attributes
    body: bytes


def invoke_twin(url: str, body: bytes, media_type: str) -> Invocation:
    """Post an image or a row, and ask for all probabilities. url: of the twin. Raises OSError and HTTPException."""
    headers = {"Content-Type": media_type, CUSTOM_ATTRIBUTES: f"{PROBABILITIES}=1"}
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", address.path, body, twin_signer("twin").sign(url, headers, body))
        response = connection.getresponse()
        found = read_custom_attributes(response.headers.get(CUSTOM_ATTRIBUTES, ""))
        named = {ATTRIBUTE_HEADERS[key]: value for key, value in found.items()}
        return Invocation(response.status, named, response.read())
    finally:
        connection.close()
