"""A bundle's reference.json: how inputs and answers are distributed on images or rows that were held out.

{"schema": 1, "data": "CIFAR-10, test split", "count": 10000,
 "inputs": {"brightness": DISTRIBUTION, "contrast": DISTRIBUTION},
 "answers": {"onnx": {"labels": [share of each class], "accuracy": 0.94, "confidence_mean": 0.92,
                      "confidence": DISTRIBUTION, "margin": DISTRIBUTION}}}

A DISTRIBUTION is {"bounds": [rising], "shares": [of the values, how many are not above each bound]}. Of a model of
rows, `inputs` has features by their names, 64 at most. `accuracy` is null where no labels were known. The service's
histograms take their bounds from here. training/reference.py writes the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from service.errors import BundleError
from service.manifest.reader import MAX_MANIFEST_BYTES, is_number
from service.model import Bundle
from service.monitoring.inputs import InputMeasure

REFERENCE = "reference.json"
SCHEMA = 1
MAX_BOUNDS = 50  # of a distribution: each is a series of /metrics, twice
MAX_COUNT = 10**9
ROUNDING = 0.01  # by which shares may sum to more or less than 1


@dataclass(frozen=True)
class Distribution:
    """Of one number."""

    bounds: tuple[float, ...]  # rising
    shares: tuple[float, ...]  # of the values that are not above each bound


@dataclass(frozen=True)
class Answers:
    """How one engine answered."""

    labels: tuple[float, ...]  # share of each class
    accuracy: float | None  # None: no labels were known
    confidence_mean: float  # of the probability of the answer
    confidence: Distribution
    margin: Distribution  # that probability less the next one


@dataclass(frozen=True)
class Reference:
    """What a deployment's inputs and answers are compared with."""

    count: int  # images or rows
    inputs: Mapping[str, Distribution]  # by the names of service/monitoring/inputs.py
    answers: Answers | None  # of the engine that serves; None where it was not asked


def read_reference(bundle: Bundle, engine: str) -> Reference | None:
    """The reference of a bundle; None where model.json lists none. Raises BundleError."""
    if REFERENCE not in bundle.files:
        return None
    path = bundle.path(REFERENCE)
    try:
        with path.open("rb") as file:
            values = _Values(str(path), json.loads(file.read(MAX_MANIFEST_BYTES)))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no reference: {error}; fetch the bundle again") from None
    values.get("schema", lambda found: found == SCHEMA, f"{SCHEMA}")
    names = InputMeasure(bundle.input).names
    inputs = values.get("inputs", lambda found: _is_part_of(names, found), f"an object with some of {list(names)[:8]}")
    answers = values.get("answers", lambda found: isinstance(found, dict), "an object with engines by their names")
    return Reference(
        values.get("count", lambda found: type(found) is int and 0 < found <= MAX_COUNT, f"from 1 to {MAX_COUNT}"),
        {name: values.distribution("inputs", name) for name in names if name in inputs},
        values.answers(engine, len(bundle.classes)) if engine in answers else None,
    )


class _Values:
    """The values of the file, each checked."""

    def __init__(self, path: str, content: Any):
        self.path, self.content = path, content

    def get(self, *keys_and_check: Any) -> Any:
        *keys, is_valid, wanted = keys_and_check
        found: Any = self.content
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if not is_valid(found):
            raise BundleError(
                f"{self.path}: {'.'.join(keys)} is {ascii(found)[:200]}; it has to be {wanted}; "
                ".venv/bin/python -m training.reference writes the file again"
            )
        return found

    def distribution(self, *keys: str) -> Distribution:
        bounds = self.get(*keys, "bounds", _are_bounds, f"1 to {MAX_BOUNDS} rising numbers")
        wanted = f"{len(bounds)} shares from 0 to 1, none below the one before"
        shares = self.get(*keys, "shares", lambda found: _are_shares(found, len(bounds)), wanted)
        return Distribution(tuple(bounds), tuple(shares))

    def answers(self, engine: str, classes: int) -> Answers:
        at = ("answers", engine)
        wanted = f"{classes} shares with a sum of 1"
        return Answers(
            tuple(self.get(*at, "labels", lambda found: _is_whole(found, classes), wanted)),
            self.get(*at, "accuracy", lambda found: found is None or _is_share(found), "from 0 to 1, or null"),
            self.get(*at, "confidence_mean", _is_share, "from 0 to 1"),
            self.distribution(*at, "confidence"),
            self.distribution(*at, "margin"),
        )


def _is_part_of(names: tuple[str, ...], found: Any) -> bool:
    return isinstance(found, dict) and found.keys() <= set(names)


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _are_bounds(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_BOUNDS
        and all(map(is_number, value))
        and all(low < high for low, high in pairwise(value))
    )


def _are_all(is_valid: Callable[[Any], bool], value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(is_valid, value))


def _are_shares(value: Any, length: int) -> bool:
    return _are_all(_is_share, value, length) and all(low <= high for low, high in pairwise(value))


def _is_whole(value: Any, length: int) -> bool:
    return _are_all(_is_share, value, length) and abs(sum(value) - 1) <= ROUNDING
