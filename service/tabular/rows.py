"""JSON values -> rows of numbers. Knows nothing of HTTP.

A row is a list of numbers in the order of the model's features, or an object that names them. Whatever is sent ends in
an array or in a Problem that names the feature, says what is there and what to send.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from service.errors import BadRequest, TooLarge, UnprocessableRow, Unsupported, quoted
from service.manifest.records import Feature
from service.schema import IMAGE_PART, INSTANCES_KEY, MAX_BATCH_ROWS, PIXELS_KEY

MAX_NUMBER = 1e30  # either way: far beyond sense, and with room in float32 for what a model multiplies it by
MAX_NAMES = 8  # of features in one message


@dataclass(frozen=True)
class Rows:
    """The rows of one request."""

    values: np.ndarray  # float32 [rows, features]
    warnings: list[list[str]]  # of each row: values that training had none of
    is_single: bool  # one row, sent as such and not as a list of one


def looks_like_rows(body: Any) -> bool:
    """Whether JSON was meant for a model of rows: it holds one of two numbers or more, or several."""
    if isinstance(body, dict):
        return INSTANCES_KEY in body or _is_row(list(body.values()))
    return isinstance(body, list) and (_is_row(body) or any(isinstance(row, dict) or _is_row(row) for row in body[:1]))


def _is_row(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 1 and all(map(_is_number, values))


def read_rows(body: Any, features: Sequence[Feature]) -> Rows:
    """A row; or rows, as a list or as the `instances` of an object. Raises Problem."""
    names = [feature.name for feature in features]
    if isinstance(body, dict) and body.keys() <= {IMAGE_PART, PIXELS_KEY} and not body.keys() & set(names) and body:
        raise Unsupported(f"this model takes rows of numbers, not images; {wanted(features)}")
    rows, is_single = [body], True
    if isinstance(body, dict) and body.keys() == {INSTANCES_KEY} and INSTANCES_KEY not in names:
        rows, is_single = body[INSTANCES_KEY], False
    elif isinstance(body, list) and body and isinstance(body[0], (list, dict)):
        rows, is_single = body, False
    if not isinstance(rows, list) or not rows or not all(isinstance(row, (list, dict)) for row in rows):
        raise BadRequest(f"the JSON body is {quoted(body)}, which holds no row; {wanted(features)}")
    if len(rows) > MAX_BATCH_ROWS:
        raise TooLarge(f"{len(rows)} rows; send at most {MAX_BATCH_ROWS} in one request")
    read = [
        _read_row(row, features, "" if is_single else f"row {number}: ") for number, row in enumerate(rows, start=1)
    ]
    return Rows(np.array(read, np.float32), out_of_range(read, features), is_single)


def wanted(features: Sequence[Feature]) -> str:
    """What to send, as an error ends."""
    names = ", ".join(feature.name for feature in features[:MAX_NAMES])
    more = f" and {len(features) - MAX_NAMES} more" if len(features) > MAX_NAMES else ""
    numbers = f"{len(features)} number{'s' * (len(features) > 1)}"
    return f"send JSON: a list of {numbers} ({names}{more}), or a list of such lists"


def out_of_range(rows: Sequence[Sequence[float]], features: Sequence[Feature]) -> list[list[str]]:
    """What each row has that the training data had nothing like: its prediction is a guess."""
    sent, ranges = np.array(rows, np.float32), np.array([(each.min, each.max) for each in features], np.float32)
    outside = (sent < ranges[:, 0]) | (sent > ranges[:, 1])  # compared as the model computes, in float32
    return [
        [
            f"{feature.name} is {number_text(value)}; the training data had {range_text(feature)}"
            for value, feature in compress(zip(row, features, strict=True), beyond)
        ]
        for row, beyond in zip(rows, outside, strict=True)
    ]


def number_text(value: float) -> str:
    """A number with all its digits, and without a needless point: 1696004, 0.1, 1e+30."""
    return f"{value:.15g}"


def range_text(feature: Feature) -> str:
    return f"{number_text(feature.min)} to {number_text(feature.max)}"


def check_answers(answers: Sequence[Sequence[float]], rows: Rows) -> None:
    """Raise UnprocessableRow where a model has computed no probabilities, as from values far beyond its training."""
    for number, (probabilities, warnings) in enumerate(zip(answers, rows.warnings, strict=True), start=1):
        if not math.isfinite(sum(probabilities)):
            where = "" if rows.is_single else f"row {number}: "
            cause = f": {warnings[0]}" if warnings else ""
            raise UnprocessableRow(f"{where}the model computes no probabilities for such values{cause}")


def _read_row(row: list[Any] | dict[str, Any], features: Sequence[Feature], where: str) -> list[float]:
    if isinstance(row, dict):
        if missing := [feature.name for feature in features if feature.name not in row]:
            raise UnprocessableRow(f"{where}{missing[0]} is missing{_others(missing)}; {wanted(features)}")
        if unknown := sorted(row.keys() - {feature.name for feature in features}):
            raise UnprocessableRow(f"{where}{quoted(unknown[0])} is no feature of this model; {wanted(features)}")
        row = [row[feature.name] for feature in features]
    elif len(row) < len(features):
        missing = [feature.name for feature in features[len(row) :]]
        found = f"{where}{missing[0]} is missing{_others(missing)}: {len(row)} of {len(features)} values came"
        raise UnprocessableRow(f"{found}; {wanted(features)}")
    elif len(row) > len(features):
        found = f"{where}{len(row)} values came, {len(row) - len(features)} of them after {features[-1].name}, the last"
        raise UnprocessableRow(f"{found}; {wanted(features)}")
    return [_read_number(value, feature.name, where) for value, feature in zip(row, features, strict=True)]


def _others(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _read_number(value: Any, name: str, where: str) -> float:
    if value is None or value == "":
        raise UnprocessableRow(f"{where}{name} is empty; every row needs all numbers")
    if not _is_number(value):
        raise UnprocessableRow(f"{where}{name} is {quoted(value)}, which is no number; send one, without quotes")
    if not abs(value) <= MAX_NUMBER:  # NaN too
        raise UnprocessableRow(
            f"{where}{name} is {quoted(value)}; send a number from -{MAX_NUMBER:g} to {MAX_NUMBER:g}"
        )
    return float(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def number_or_text(text: str) -> float | str:
    """A number as people type it into a form; anything else stays what it is, for an error to quote."""
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) and "_" not in text else text
