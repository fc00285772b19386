"""How an endpoint with a wire format of its own is asked, and how its answer is read.

An adapter says both. It is a small YAML file:

    request:
      body: json                    # raw: the bytes of the image; multipart: a form; json
      json: {image: $base64}        # the document, with $base64, $data_uri or $pixels where the image belongs
    answer:                         # one of the two at least, as JMESPath expressions
      label: result.class           # the name or the number of a class
      scores: result.probabilities  # numbers in the order of the classes, or by the names of classes

`part` names the part of a form (default: image), `path` what comes after the endpoint's address, `headers` and `query`
what is sent besides; a value $NAME of those two is read from the environment, and is written nowhere.
eval/adapters/recognition.py finds an adapter by trying. Classes are numbered in the order of the run's classes.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jmespath
import numpy as np
from jmespath.exceptions import JMESPathError
from PIL import Image

from eval.dataset.images import EncodedImage
from eval.errors import InvalidInput, InvalidResponse
from eval.validation import parse_json

BASE64, DATA_URI, PIXELS = PLACEHOLDERS = ("$base64", "$data_uri", "$pixels")
SUM_TOLERANCE = 0.01  # of probabilities that others have rounded
SHOWN_CHARS = 80  # of an answer, in a message

Json = Any  # what json.loads returns


@dataclass(frozen=True)
class RequestForm:
    """The body that a request has."""

    body: Literal["raw", "multipart", "json"] = "raw"
    part: str = "image"  # of a form
    json: Json = None  # the document, with placeholders
    path: str = ""  # after the endpoint's address
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

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
class Answer:
    """What an endpoint has answered."""

    class_id: int
    probabilities: tuple[float, ...] | None  # of all classes; None where it does not tell them


@dataclass(frozen=True)
class AnswerForm:
    """Where the answer has what is wanted; JMESPath expressions, of which at least one is given."""

    label: str | None = None
    scores: str | None = None

    def read(self, body: bytes | bytearray, classes: Sequence[str]) -> Answer:
        """The answer in a body. Raises InvalidResponse, which says what was expected and what came."""
        payload = parse_answer(body)
        scores = None
        if self.scores is not None:
            found = _search(self.scores, payload)
            scores = read_scores(found, classes)
            if scores is None:
                raise InvalidResponse(f"no scores of {len(classes)} classes at {self.scores}: {_shown(found)}")
        if self.label is None:
            assert scores is not None
            return Answer(scores.best, scores.probabilities)
        found = _search(self.label, payload)
        class_id = class_id_of(found, classes)
        if class_id is None:
            raise InvalidResponse(f"no class at {self.label}: {_shown(found)}, expected one of {_listed(classes)}")
        return Answer(class_id, scores.probabilities if scores else None)

    def text(self) -> str:
        parts = [f"{name} at {path}" for name, path in (("label", self.label), ("scores", self.scores)) if path]
        return ", ".join(parts)


@dataclass(frozen=True)
class Adapter:
    """How one endpoint is asked and understood."""

    request: RequestForm
    answer: AnswerForm

    def text(self) -> str:
        """For people: one line."""
        return f"sent {self.request.text()}; read {self.answer.text()}"


@dataclass(frozen=True)
class Scores:
    """Scores of classes, as an answer has them."""

    best: int  # ID of the class with the highest
    probabilities: tuple[float, ...] | None  # of all classes, where they are probabilities
    known: int  # classes that have a score


def parse_answer(body: bytes | bytearray) -> Json:
    """The JSON of a body, or its text where that is one short line. Raises InvalidResponse."""
    try:
        return parse_json(body)
    except InvalidInput:
        text = bytes(body[: SHOWN_CHARS + 1]).decode(errors="replace").strip()
        if not text or len(body) > SHOWN_CHARS or not text.isprintable():
            raise InvalidResponse(f"neither JSON nor a label: {_shown(text)}" if text else "an empty body") from None
        return text


def class_id_of(value: Json, classes: Sequence[str]) -> int | None:
    """The class that a name or a number stands for."""
    if isinstance(value, list) and len(value) == 1:
        return class_id_of(value[0], classes)
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value) if 0 <= value < len(classes) else None
    if not isinstance(value, str):
        return None
    ids = _ids_by_name(tuple(classes))
    if (class_id := ids.get(_normalised(value))) is not None:
        return class_id
    return int(value) if value.isascii() and value.isdigit() and int(value) < len(classes) else None


def read_scores(value: Json, classes: Sequence[str]) -> Scores | None:
    """Scores in a value: numbers in the order of the classes, {name: number}, or objects of a name and a number each.

    None where it holds none. Names alone may be a part of all classes, such as the best five.
    """
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list | dict):
        value = value[0]
    if isinstance(value, list) and len(value) == len(classes) > 1 and all(map(_is_number, value)):
        return _scores(dict(enumerate(value)), len(classes))
    by_name: dict[Json, Json] = {}
    if isinstance(value, dict):
        by_name = value
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for item in value:
            names = [v for v in item.values() if isinstance(v, str)]
            numbers = [v for v in item.values() if type(v) is float or (_is_number(v) and 0 <= v <= 1)]
            if len(names) != 1 or len(numbers) != 1:
                return None
            by_name[names[0]] = numbers[0]
    ids = {name: class_id_of(name, classes) for name in by_name}
    if not by_name or None in ids.values() or not all(map(_is_number, by_name.values())):
        return None
    return _scores({ids[name]: score for name, score in by_name.items()}, len(classes))


def _scores(by_id: Mapping[Any, float], n_classes: int) -> Scores:
    best = max(by_id, key=lambda class_id: by_id[class_id])
    values = tuple(float(by_id.get(class_id, 0)) for class_id in range(n_classes))
    complete = len(by_id) == n_classes
    are_probabilities = all(0 <= v <= 1 for v in values) and abs(sum(values) - 1) <= SUM_TOLERANCE
    return Scores(best, values if complete and are_probabilities else None, len(by_id))


def _is_number(value: Json) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@functools.lru_cache(8)
def _ids_by_name(classes: tuple[str, ...]) -> dict[str, int]:
    return {_normalised(name): class_id for class_id, name in enumerate(classes)}


def _normalised(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


@functools.lru_cache(64)
def _compiled(expression: str) -> Any:
    return jmespath.compile(expression)


def _search(expression: str, payload: Json) -> Json:
    try:
        return _compiled(expression).search(payload)
    except JMESPathError as error:  # a function that does not take this answer
        raise InvalidResponse(f"{expression} does not fit the answer: {error}") from None


def check_expression(expression: str) -> None:
    """Raises InvalidInput for what is no JMESPath expression."""
    try:
        _compiled(expression)
    except JMESPathError as error:
        raise InvalidInput(f"{expression!r} is not a JMESPath expression: {str(error).splitlines()[0]}") from None


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
    if template == PIXELS:
        with Image.open(io.BytesIO(image.data)) as opened:
            return np.asarray(opened.convert("RGB")).tolist()
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


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
