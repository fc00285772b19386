"""A request that its model answers, by which `up` proves an endpoint: a grey image, or the least row of training."""

from __future__ import annotations

import base64
import json

from service.manifest.records import TabularInput
from service.model import Bundle
from service.schema import INSTANCES_KEY, JSON_TYPE

GREY_PNG = (  # 32x32
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="
)


def probe_env(bundle: Bundle) -> dict[str, str]:
    """CONTENT_TYPE and BODY, in base64, as infra/waits/sagemaker_ready.py reads them."""
    if not isinstance(bundle.input, TabularInput):
        return {"CONTENT_TYPE": "image/png", "BODY": GREY_PNG}
    body = json.dumps({INSTANCES_KEY: [[feature.min for feature in bundle.input.features]]})
    return {"CONTENT_TYPE": JSON_TYPE, "BODY": base64.b64encode(body.encode()).decode()}
