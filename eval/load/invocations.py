"""What SageMaker answers in place of a service: the service's headers as attributes, AWS's own errors, no /version.

Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict

from eval.dataset.image_set import EncodedImage
from eval.errors import EndpointError, InvalidInput
from eval.load.responses import parse_version, problem_detail
from eval.samples.model import ImageEntry
from eval.validation import parse_json
from service.schema import ATTRIBUTE_HEADERS, CUSTOM_ATTRIBUTES, PROBABILITIES, read_custom_attributes

if TYPE_CHECKING:
    from eval.targets.endpoints import Endpoint

ASK_PROBABILITIES = {CUSTOM_ATTRIBUTES: f"{PROBABILITIES}=1"}
ERROR_TYPE = "x-amzn-ErrorType"
MODEL_ERROR, MODEL_ERROR_STATUS = "ModelError", 424
THROTTLED = ("ThrottlingException", "ModelNotReadyException")
REFUSALS = (400, 403, 404, 413)  # of AWS itself: credentials, rights, the endpoint's name, the size

# A grey image of 32 x 32 pixels, which is sent where an answer is wanted before the images are known
PROBE_DATA = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKElEQVR42u3NQQEAAAQEMCS/6Erw2wqsk9SnqWcCgUAgEAgEAoHgygK+PQHAs0oJIwAA"
    "AABJRU5ErkJggg=="
)
PROBE = EncodedImage(ImageEntry("probe.png", hashlib.sha256(PROBE_DATA).hexdigest(), 0), PROBE_DATA, "image/png")


def with_attributes(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers, and those of the service that SageMaker passes as attributes alone."""
    found = read_custom_attributes(headers.get(CUSTOM_ATTRIBUTES, ""))
    return CIMultiDict([*headers.items(), *((ATTRIBUTE_HEADERS[key], value) for key, value in found.items())])


def version_of(headers: Mapping[str, str], body: bytes | bytearray) -> dict[str, Any]:
    """What an answer says of what /version would: the model and the instance. Empty for another service's answer."""
    found = read_custom_attributes(headers.get(CUSTOM_ATTRIBUTES, ""))
    if "instance_id" not in found:
        return {}
    told = {"instance_id": found["instance_id"], "started_at": found.get("instance_started")}
    try:
        told["model"] = parse_json(body)["model"]
    except (InvalidInput, LookupError, TypeError):
        return {}
    return parse_version(json.dumps(told).encode())


def classify_invocation(status: int, headers: Mapping[str, str], body: bytes | bytearray) -> tuple[str, str] | None:
    """Kind and detail of an error that AWS names; None for any other answer.

    A container's error, which AWS wraps, counts as its own status, so that it is the same kind as on other platforms.
    """
    error = _error_type(headers)
    if status == 200 or not error:
        return None
    document = _document(body)
    message = str(document.get("Message") or document.get("message") or "").partition("\n")[0].strip()
    if error == MODEL_ERROR:
        original = document.get("OriginalStatusCode")
        original = original if type(original) is int else 0
        text = problem_detail(str(document.get("OriginalMessage") or "").encode())
        told = f"the container answered {original}: {text}" if original else text or message
        return _kind(original or 500), f"{status}: {error}: {told}"
    kind = "http_429" if error in THROTTLED else _kind(status)
    return kind, f"{status}: {error}{f': {message}' if message else ''}"


def is_refused_by_aws(status: int | None, headers: Mapping[str, str]) -> bool:
    """Whether AWS itself refuses, as it will every further request: credentials, rights, or no such endpoint."""
    return status in REFUSALS and _error_type(headers) not in ("", MODEL_ERROR, *THROTTLED)


def check_payloads(endpoints: Sequence[Endpoint], images: Sequence[EncodedImage]) -> None:
    """Raises EndpointError for an image that SageMaker would not take, before the first is sent."""
    largest = max(images, key=lambda image: len(image.data))
    for endpoint in endpoints:
        if endpoint.signer and len(largest.data) > endpoint.signer.max_body_bytes:
            raise EndpointError(
                f"{endpoint.name}: {largest.entry.name} has {len(largest.data):,} bytes, and this endpoint of SageMaker"
                f" takes {endpoint.signer.max_body_bytes:,}: scale it down, or leave it out"
            )


def _error_type(headers: Mapping[str, str]) -> str:
    return headers.get(ERROR_TYPE, "").partition(":")[0].strip()


def _kind(status: int) -> str:
    return "http_429" if status == 429 else "http_4xx" if 400 <= status < 500 else "http_5xx"


def _document(body: bytes | bytearray) -> dict[str, Any]:
    try:
        document = parse_json(body)
    except InvalidInput:
        return {}
    return document if isinstance(document, dict) else {}
