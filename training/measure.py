"""An engine on the whole test set: its probabilities, its accuracy, its agreement with another engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from service.engines.resnet import ARCHITECTURE
from service.manifest.records import EngineFile
from service.model import Bundle, sha256
from training.bundles.reference import measured, reference_of
from training.data import Split

BATCH_SIZE = 250

Probabilities = Callable[[np.ndarray], np.ndarray]  # of an engine


def torch_bundle(taken: Bundle, weights: Path, precision: str = "float32") -> Bundle:
    """A file of weights as the torch engine takes it, before it is part of a bundle; `taken`: classes and input."""
    own = {"torch": EngineFile(weights.name, precision, ARCHITECTURE)}
    return replace(taken, folder=weights.parent, engines=own, files={weights.name: sha256(weights)})


def normalise(images: np.ndarray, bundle: Bundle) -> np.ndarray:
    """uint8 [N, S, S, 3] -> the network's input, float32 [N, 3, S, S]."""
    mean, std = np.asarray(bundle.image.mean, np.float32), np.asarray(bundle.image.std, np.float32)
    return np.ascontiguousarray(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))


def predict(probabilities: Probabilities, bundle: Bundle, test: Split, title: str) -> np.ndarray:
    """The probabilities of every image: float32 [N, classes]. `title` labels the progress bar."""
    starts = tqdm(range(0, len(test.labels), BATCH_SIZE), desc=title, leave=False)
    return np.concatenate([probabilities(normalise(test.images[i : i + BATCH_SIZE], bundle)) for i in starts])


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-1 accuracy with its Wilson 95% interval."""
    correct = int((predictions.argmax(1) == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    return {
        "accuracy": correct / len(labels),
        "low": round(float(interval.low), 5),
        "high": round(float(interval.high), 5),
        "n": len(labels),
    }


def parity(predictions: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """How two engines' probabilities for the same images differ."""
    return {
        "agreement": float((predictions.argmax(1) == reference.argmax(1)).mean()),  # fraction with the same class
        "max_abs_dprob": round(float(np.abs(predictions - reference).max()), 6),
    }


def split_reference(bundle: Bundle, test: Split, answers: Mapping[str, np.ndarray], data: str) -> dict[str, Any]:
    """The content of reference.json: each engine's probabilities for the test set, and what its images are like."""
    parts = (test.images[start : start + BATCH_SIZE] for start in range(0, len(test.labels), BATCH_SIZE))
    numbers = np.concatenate([measured(normalise(images, bundle), bundle.input) for images in parts])
    return reference_of(bundle.input, numbers, answers, test.labels, data)
