"""A bundle's self-test: inputs, and what each engine answered to them when the bundle was made."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from service.errors import BundleError
from service.manifest.reader import MAX_MANIFEST_BYTES, is_number

MAX_INPUTS = 16  # of a self-test: each is a forward pass of every start

Answers = list[list[float]]  # a probability for each class, for each input


@dataclass(frozen=True)
class SelfTest:
    """What one engine is asked, and has to answer."""

    inputs: list[Any]  # image files, as bytes, or rows of numbers
    answers: Answers
    tolerance: float  # how far each probability may be away

    def difference(self, index: int, found: Sequence[float], classes: tuple[str, ...]) -> str | None:
        """How an answer differs from the expected one; None where it does not."""
        expected = self.answers[index]
        best, wanted = (max(range(len(row)), key=row.__getitem__) for row in (found, expected))
        far = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        if best == wanted and far <= self.tolerance:  # NaN is not
            return None
        return (
            f"input {index + 1} is {classes[best]!a} with {found[best]:.3f}, expected {classes[wanted]!a} with "
            f"{expected[wanted]:.3f}, and a probability is {far:.3f} away, where {self.tolerance:g} is allowed"
        )


def read_self_test(path: Path, engine: str, classes: int, features: int | None) -> SelfTest:
    """The file's inputs and an engine's answers to them; `features`: of a row, None for images. Raises BundleError."""
    try:
        with path.open("rb") as file:
            read: Any = json.loads(file.read(MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no self-test: {error}; fetch the bundle again") from None
    content: dict[str, Any] = read if isinstance(read, dict) else {}
    inputs, tolerance, engines = (content.get(key) for key in ("inputs", "tolerance", "probabilities"))
    if not isinstance(inputs, list) or not 0 < len(inputs) <= MAX_INPUTS:
        raise _fault(path, f"inputs have to be a list of 1 to {MAX_INPUTS}")
    if not isinstance(tolerance, float) or not 0 < tolerance < 1:
        raise _fault(path, "tolerance has to be a number between 0 and 1")
    answers = engines.get(engine) if isinstance(engines, dict) else None
    if not _are_rows(answers, classes) or len(answers) != len(inputs):
        raise _fault(path, f"probabilities.{engine} has to hold {classes} numbers for each input")
    if features is None:
        return SelfTest([_image(path, text) for text in inputs], answers, tolerance)
    if not _are_rows(inputs, features):
        raise _fault(path, f"each input has to be a list of {features} numbers")
    return SelfTest(inputs, answers, tolerance)


def _are_rows(value: Any, length: int) -> TypeGuard[Answers]:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == length and all(map(is_number, row)) for row in value
    )


def _image(path: Path, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _fault(path, "each input has to be an image in base64") from None


def _fault(path: Path, wanted: str) -> BundleError:
    return BundleError(f"{path} is no self-test of this bundle: {wanted}; write it again")
