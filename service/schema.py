"""The wire contract: routes, limits and answers. Knows nothing of torch.

Clients (the harness, the tests) import this module too, so that service and client cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, urlencode

# Routes
PREDICT = "/predict"
PREDICT_BATCH = "/predict/batch"
HEALTHZ = "/healthz"
READYZ = "/readyz"
VERSION = "/version"
METRICS = "/metrics"
OPENAPI = "/openapi.json"
PING = "/ping"  # by SageMaker's names: READYZ
INVOCATIONS = "/invocations"  # and PREDICT
FEEDBACK = "/feedback"  # what was true of a prediction
V2 = "/v2"  # of the Open Inference Protocol; there only with MANAGE_TOKEN
V2_LIVE = "/v2/health/live"
V2_READY = "/v2/health/ready"
V2_REPOSITORY = "/v2/repository"  # what lies under it needs MANAGE_TOKEN as its bearer token

# Limits
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_PIXELS = 24_000_000  # width x height after decoding; a 6000x4000 photo
MAX_SIDE_PX = 20_000
MAX_REQUEST_PIXELS = 36_000_000  # of all images of a request
MAX_SCANS = 64  # of a progressive JPEG; honest ones have about 10
MAX_PIXEL_LIST_BYTES = 2**20  # of a JSON body that holds more than an image in base64
MAX_BATCH_IMAGES = 64
MAX_BATCH_ROWS = 64
MAX_ROWS_BYTES = 2**20  # of a JSON body of rows
MAX_FEEDBACK_BYTES = 64 * 1024
TOP_K = 5
PROBABILITY_DIGITS = 6

# Images: media type -> the name Pillow gives the format
IMAGE_TYPES = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}
IMAGE_PART = "image"  # the multipart part, and the JSON key of a base64 image
PROBABILITIES = "probabilities"  # the query parameter: 1 for those of all classes
PIXELS_KEY = "img"  # the JSON key of an image as nested lists [height][width][r, g, b], 0 to 255
INSTANCES_KEY = "instances"  # the JSON key of a list of rows
WARNINGS_KEY = "warnings"  # in the answer to a row: values outside what the model was trained on

# Headers on every answer
INSTANCE_ID = "X-Instance-Id"  # random, one per process
INSTANCE_STARTED = "X-Instance-Started"  # ISO 8601, UTC
REQUEST_ORDINAL = "X-Request-Ordinal"  # prediction requests this process has accepted, this one included
MODEL_VERSION = "X-Model-Version"
SERVER_TIMING = "Server-Timing"  # decode, queue, inference, total; milliseconds
SERVER_TIMING_PARTS = ("decode", "queue", "inference", "total")

# SageMaker lets no other header of the service through, in neither direction: this one carries theirs, as KEY=VALUE
# joined by &, percent-encoded. In a request, `probabilities=1` stands for the query parameter.
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
MAX_ATTRIBUTES_CHARS = 1024  # SageMaker's own limit
ATTRIBUTE_HEADERS = {
    "instance_id": INSTANCE_ID,
    "instance_started": INSTANCE_STARTED,
    "request_ordinal": REQUEST_ORDINAL,
    "model_version": MODEL_VERSION,
    "server_timing": SERVER_TIMING,
}

JSON_TYPE = "application/json"
CSV_TYPE = "text/csv"  # rows without a header
PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True)
class ModelInfo:
    """Which network answered."""

    name: str  # "resnet18-cifar10"
    version: str  # first 12 hex digits of the weights' sha256
    engine: str  # "torch" or "onnx"

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "engine": self.engine}


@dataclass(frozen=True)
class Prediction:
    """What one image shows, as a full probability vector."""

    probabilities: tuple[float, ...]  # one per class, in class order, summing to 1
    classes: tuple[str, ...]  # class names, in the same order

    @property
    def class_id(self) -> int:
        return self.ranked[0]

    @cached_property
    def ranked(self) -> list[int]:
        """Class ids, most probable first; the lower id wins a tie. Sorted once, for answer and metrics."""
        return sorted(range(len(self.probabilities)), key=self.probabilities.__getitem__, reverse=True)

    def to_json(self, *, with_probabilities: bool = False) -> dict:
        """The answer without its `model` part: id, label, probability and the top five."""
        top = [self._entry(i) for i in self.ranked[:TOP_K]]
        body: dict = {**top[0], "top": top}
        if with_probabilities:
            body["probabilities"] = [round(p, PROBABILITY_DIGITS) for p in self.probabilities]
        return body

    def _entry(self, class_id: int) -> dict:
        probability = round(self.probabilities[class_id], PROBABILITY_DIGITS)
        return {"id": class_id, "label": self.classes[class_id], "probability": probability}


def custom_attributes(headers: Iterable[tuple[str, str]]) -> str:
    """The value of CUSTOM_ATTRIBUTES that says what these headers of an answer say, as far as it fits."""
    values, text = {name.lower(): value for name, value in headers}, ""
    for key, name in ATTRIBUTE_HEADERS.items():
        value = values.get(name.lower())
        longer = text if value is None else f"{text}{'&' * bool(text)}{urlencode({key: value})}"
        text = longer if len(longer) <= MAX_ATTRIBUTES_CHARS else text
    return text


def read_custom_attributes(text: str) -> dict[str, str]:
    """The attributes by key; empty for those of a service that puts something else there."""
    return {key: value for key, value in parse_qsl(text[:MAX_ATTRIBUTES_CHARS]) if key in ATTRIBUTE_HEADERS}
