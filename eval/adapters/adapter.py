"""How an endpoint with a wire format of its own is asked, and how its answer is read.

An adapter says both. It is a small YAML file:

    request:
      body: json                    # raw: the bytes of the image; multipart: a form; json
      json: {image: $base64}        # the document, with $base64, $data_uri or $pixels where the image belongs; also
                                    # $height and $width of it
    answer:                         # label or scores at least, as JMESPath expressions
      label: result.class           # the name or the number of a class
      scores: result.probabilities  # numbers in the order of the classes, or by the names of classes
      probability: result.score     # of the label, instead of scores

`part` names the part of a form (default: image), `path` what comes after the endpoint's address, `headers` and `query`
what is sent besides; a value $NAME of those two is read from the environment, and is written nowhere.
eval/adapters/recognition.py finds an adapter by trying. Classes are numbered in the order of the run's classes.
"""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from eval.adapters.answers import AnswerForm, Json
from eval.dataset.image_set import EncodedImage

BASE64, DATA_URI, PIXELS = PLACEHOLDERS = ("$base64", "$data_uri", "$pixels")
HEIGHT, WIDTH = "$height", "$width"  # of the image, in pixels


@dataclass(frozen=True)
class RequestForm:
    """The body that a request has."""

    body: Literal["raw", "multipart", "json"] = "raw"
    part: str = "image"  # of a form
    json: Json = None  # the document, with placeholders
    path: str = ""  # after the endpoint's address
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    def needs_pixels(self) -> bool:
        """Whether the image is opened for it: rows have no pixels."""
        document = json.dumps(self.json)
        return any(f'"{placeholder}"' in document for placeholder in (PIXELS, HEIGHT, WIDTH))

    def encode(self, image: EncodedImage) -> tuple[bytes, str]:
        """Body and content type of the request with this image."""
        if self.body == "raw":
            return image.data, image.media_type
        if self.body == "multipart":
            return _form(self.part, image)
        return json.dumps(_filled(self.json, image)).encode(), "application/json"

    def text(self) -> str:
        """What is sent, for people."""
        if self.body == "raw":
            return "the bytes of the image"
        if self.body == "multipart":
            return f"a form with the image in its part {self.part!r}"
        return f"JSON: {json.dumps(self.json)}"


@dataclass(frozen=True)
class Adapter:
    """How one endpoint is asked and understood."""

    request: RequestForm
    answer: AnswerForm

    def text(self) -> str:
        """For people: one line."""
        return f"sent {self.request.text()}; read {self.answer.text()}"


def _filled(template: Json, image: EncodedImage) -> Json:
    """The document with the image in place of the placeholders."""
    if isinstance(template, dict):
        return {key: _filled(value, image) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, image) for value in template]
    if template == BASE64:
        return base64.b64encode(image.data).decode()
    if template == DATA_URI:
        return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    if template in (PIXELS, HEIGHT, WIDTH):
        with Image.open(io.BytesIO(image.data)) as opened:
            if template == PIXELS:
                return np.asarray(opened.convert("RGB")).tolist()
            return opened.height if template == HEIGHT else opened.width
    return template


def _form(part: str, image: EncodedImage) -> tuple[bytes, str]:
    boundary = secrets.token_hex(16)
    suffix = image.media_type.partition("/")[2]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{part}"; filename="image.{suffix}"\r\n'
        f"Content-Type: {image.media_type}\r\n\r\n"
    )
    body = head.encode() + image.data + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
