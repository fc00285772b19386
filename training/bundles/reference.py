"""The content of a bundle's reference.json, and where it goes; service/monitoring/reference.py describes the format."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.manifest.records import ImageInput, TabularInput
from service.model import MODEL_JSON, Bundle, load_bundle, sha256
from service.monitoring.histogram import BRIGHTNESS, CONTRAST, PROBABILITIES
from service.monitoring.inputs import InputMeasure
from service.monitoring.reference import REFERENCE, SCHEMA, read_reference

QUANTILES = 20  # of a feature, between which its bounds lie
BOUND_DIGITS = 4  # significant, of a feature's bounds, beside those that they have in common
DIGITS = 6  # of a share
PART = 250  # inputs that are measured at once


def measured(inputs: np.ndarray, taken: ImageInput | TabularInput) -> np.ndarray:
    """What the service measures of inputs, [N, input] as the network takes them: float64 [N, numbers]."""
    measure = InputMeasure(taken)
    samples = (measure.sample(inputs[start : start + PART]) for start in range(0, len(inputs), PART))
    parts = [measure.numbers(each) for each in samples]
    return np.concatenate(parts, axis=1).T


def reference_of(
    taken: ImageInput | TabularInput,
    numbers: np.ndarray,
    answers: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    data: str,
) -> dict[str, Any]:
    """The content of reference.json.

    `numbers`: from measured(); `answers`: each engine's probabilities, [N, classes]; `labels`: class ids where known.
    """
    bounds = [BRIGHTNESS, CONTRAST] if isinstance(taken, ImageInput) else map(feature_bounds, numbers.T)
    columns = zip(InputMeasure(taken).names, numbers.T, bounds, strict=True)
    return {
        "schema": SCHEMA,
        "data": data,
        "count": len(numbers),
        "inputs": {name: distribution(values, own) for name, values, own in columns},
        "answers": {engine: _answers(found, labels) for engine, found in answers.items()},
    }


def _answers(found: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    predicted = found.argmax(1)
    ordered = np.sort(found.astype(np.float64), axis=1)
    confidence = ordered[:, -1]
    margin = confidence - ordered[:, -2] if found.shape[1] > 1 else confidence
    return {
        "labels": np.round(np.bincount(predicted, minlength=found.shape[1]) / len(found), DIGITS).tolist(),
        "accuracy": None if labels is None else round(float((predicted == labels).mean()), DIGITS),
        "confidence_mean": round(min(float(confidence.mean()), 1.0), DIGITS),
        "confidence": distribution(confidence, PROBABILITIES),
        "margin": distribution(margin, PROBABILITIES),
    }


def distribution(values: np.ndarray, bounds: Sequence[float]) -> dict[str, list[float]]:
    """The share of the values that is not above each bound."""
    shares = np.searchsorted(np.sort(values), bounds, "right") / len(values)
    return {"bounds": list(bounds), "shares": np.round(shares, DIGITS).tolist()}


def feature_bounds(values: np.ndarray) -> tuple[float, ...]:
    """Numbers of few digits between which equal shares of a feature's values lie, as far as there are such."""
    found = np.quantile(values, np.arange(1, QUANTILES) / QUANTILES)
    spread = float(found[-1] - found[0])
    common = int(math.log10(np.abs(found).max() / spread)) if spread > 0 else 0  # digits that all of them begin with
    return tuple(sorted({float(f"{value:.{BOUND_DIGITS + common}g}") for value in found}))


def add_reference(folder: Path, content: Mapping[str, Any]) -> None:
    """Put reference.json into a bundle, in place of one that is there. Raises BundleError when it does not fit."""
    path = folder / MODEL_JSON
    manifest = json.loads(path.read_text(encoding="utf-8"))
    write_json(folder / REFERENCE, content)
    manifest["files"][REFERENCE] = sha256(folder / REFERENCE)
    _replace(path, json.dumps(manifest, indent=2) + "\n")
    check_reference(load_bundle(folder, [REFERENCE]))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(content) + "\n")


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def check_reference(bundle: Bundle) -> None:
    """Read it as the service does, for each engine. Raises BundleError."""
    for engine in bundle.engines:
        read_reference(bundle, engine)
