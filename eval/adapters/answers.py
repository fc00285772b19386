"""How a foreign endpoint's answer is read: a class, and scores or a probability where it tells them. Pure."""

from __future__ import annotations

import functools
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from eval.errors import InvalidInput, InvalidResponse
from eval.validation import parse_json

SUM_TOLERANCE = 0.01  # of probabilities that others have rounded
SHOWN_CHARS = 80  # of an answer, in a message
NUMBERED_CLASS = re.compile(r"(?:label|class)[_ ]?(\d{1,5})", re.IGNORECASE)  # LABEL_3, as Hugging Face has it

Json = Any  # what json.loads returns


@dataclass(frozen=True)
class Answer:
    """What an endpoint has answered."""

    class_id: int
    probabilities: tuple[float, ...] | None  # of all classes; None where it does not tell them


@dataclass(frozen=True)
class AnswerForm:
    """Where the answer has what is wanted, as JMESPath expressions; at least label or scores is given."""

    label: str | None = None
    scores: str | None = None  # of the classes; of two classes also one number, the second one's probability
    probability: str | None = None  # of the label; of two classes, the other one has the rest

    def read(self, body: bytes | bytearray, classes: Sequence[str]) -> Answer:
        """The answer in a body. Raises InvalidResponse, which says what was expected and what came."""
        payload = parse_answer(body)
        scores = None
        if self.scores is not None:
            found = _search(self.scores, payload)
            scores = read_scores(found, classes) or _of_second_class(found, classes)
            if scores is None:
                raise InvalidResponse(f"no scores of {len(classes)} classes at {self.scores}: {_shown(found)}")
        if self.label is None:
            assert scores is not None
            return Answer(scores.best, scores.probabilities)
        found = _search(self.label, payload)
        class_id = class_id_of(found, classes)
        if class_id is None:
            raise InvalidResponse(f"no class at {self.label}: {_shown(found)}, expected one of {listed(classes)}")
        if self.probability is None:
            return Answer(class_id, scores.probabilities if scores else None)
        return Answer(class_id, self._probabilities(class_id, _search(self.probability, payload), len(classes)))

    def _probabilities(self, class_id: int, found: Json, n_classes: int) -> tuple[float, ...] | None:
        if not _is_number(found) or not 0 <= found <= 1:
            raise InvalidResponse(f"no probability at {self.probability}: {_shown(found)}")
        if n_classes != 2:
            return None
        return (float(found), 1 - float(found)) if class_id == 0 else (1 - float(found), float(found))

    def text(self) -> str:
        parts = [f"{name} at {path}" for name, path in vars(self).items() if path]
        return ", ".join(parts)


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
        text = bytes(body[: SHOWN_CHARS * 4 + 1]).decode(errors="replace").strip()
        if not text or len(body) > SHOWN_CHARS * 4 or not text.isprintable():
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
    by_name, by_likeness = _ids_by_name(tuple(classes))
    class_id = by_name.get(value)
    if class_id is None:
        class_id = by_likeness.get(_normalised(value))
    if class_id is not None:
        return class_id
    numbered = NUMBERED_CLASS.fullmatch(value)
    number = numbered[1] if numbered else value
    return int(number) if number.isascii() and number.isdigit() and int(number) < len(classes) else None


def read_scores(value: Json, classes: Sequence[str]) -> Scores | None:
    """Scores in a value: numbers in the order of the classes, {name: number}, objects of a name and a number each, or a
    list of names with one of as many numbers.

    None where it holds none. Names alone may be a part of all classes, such as the best five.
    """
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list | dict):
        value = value[0]
    if isinstance(value, list) and len(value) == len(classes) > 1 and all(map(_is_number, value)):
        return _scores(dict(enumerate(value)), len(classes))
    by_name: Sequence[tuple[Json, Json]] = ()
    if isinstance(value, dict):
        by_name = _parallel_lists(value, classes) or tuple(value.items())
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        by_name = [pair for item in value for pair in [_name_and_number(item, classes)] if pair]
        if len(by_name) < len(value):
            return None
    by_id = {class_id_of(name, classes): score for name, score in by_name}
    if not by_id or None in by_id or len(by_id) < len(by_name) or not all(map(_is_number, by_id.values())):
        return None
    return _scores(by_id, len(classes))


def _name_and_number(item: Mapping[str, Json], classes: Sequence[str]) -> tuple[str, float] | None:
    """The name of a class and its score; other texts, such as a code of the class, are passed over."""
    texts = [v for v in item.values() if isinstance(v, str)]
    names = texts if len(texts) == 1 else [text for text in texts if class_id_of(text, classes) is not None]
    numbers = [v for v in item.values() if type(v) is float or (_is_number(v) and 0 <= v <= 1)]
    return (names[0], numbers[0]) if len(names) == len(numbers) == 1 else None


def _parallel_lists(value: Mapping[str, Json], classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """{"labels": ["rose", "tulip"], "scores": [0.7, 0.3]}, as Vertex AI and Hugging Face have it."""
    lists = [v for v in value.values() if isinstance(v, list) and v]
    names = [v for v in lists if all(isinstance(n, str) and class_id_of(n, classes) is not None for n in v)]
    numbers = [v for v in lists if all(map(_is_number, v))]
    same = [(n, s) for n in names for s in numbers if len(n) == len(s)]
    return tuple(zip(*same[0], strict=True)) if len(same) == 1 else ()


def _of_second_class(value: Json, classes: Sequence[str]) -> Scores | None:
    """The one number of a binary classifier that ends in a sigmoid."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if len(classes) != 2 or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return _scores({0: 1 - value, 1: value}, 2)


def _scores(by_id: Mapping[Any, float], n_classes: int) -> Scores:
    best = max(by_id, key=lambda class_id: by_id[class_id])
    values = tuple(float(by_id.get(class_id, 0)) for class_id in range(n_classes))
    complete = len(by_id) == n_classes
    are_probabilities = all(0 <= v <= 1 for v in values) and abs(sum(values) - 1) <= SUM_TOLERANCE
    return Scores(best, values if complete and are_probabilities else None, len(by_id))


def _is_number(value: Json) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@functools.lru_cache(8)
def _ids_by_name(classes: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """By the names as they are; and by like ones, without those that several classes are like."""
    alike: dict[str, list[int]] = {}
    for class_id, name in enumerate(classes):
        alike.setdefault(_normalised(name), []).append(class_id)
    unique = {name: ids[0] for name, ids in alike.items() if len(ids) == 1}
    return {name: class_id for class_id, name in enumerate(classes)}, unique


def _normalised(name: str) -> str:
    """File systems write an accent as a character of its own, or not."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


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


def search(expression: str, payload: Json) -> Json:
    """What the expression finds; None where it does not fit."""
    try:
        return _search(expression, payload)
    except InvalidResponse:
        return None


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def listed(classes: Sequence[str]) -> str:
    return ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
