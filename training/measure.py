"""An engine on the whole test set: what it answers, and how often that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from service.model import Bundle
from training.data import Split

BATCH = 250

Probabilities = Callable[[np.ndarray], np.ndarray]  # as an engine has it


def normalised(images: np.ndarray, bundle: Bundle) -> np.ndarray:
    """uint8 [N, S, S, 3] -> the network's input, float32 [N, 3, S, S]."""
    mean, std = np.asarray(bundle.mean, np.float32), np.asarray(bundle.std, np.float32)
    return np.ascontiguousarray(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))


def answers(probabilities: Probabilities, bundle: Bundle, test: Split, title: str) -> np.ndarray:
    """What an engine says of every picture: float32 [N, classes]. The title stands before the progress bar."""
    starts = tqdm(range(0, len(test.labels), BATCH), desc=title, leave=False)
    return np.concatenate([probabilities(normalised(test.images[i : i + BATCH], bundle)) for i in starts])


def accuracy(found: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-1 accuracy with its Wilson 95% interval."""
    right = int((found.argmax(1) == labels).sum())
    interval = binomtest(right, len(labels)).proportion_ci(method="wilson")
    return {
        "accuracy": right / len(labels),
        "low": round(float(interval.low), 5),
        "high": round(float(interval.high), 5),
        "n": len(labels),
    }


def parity(found: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """How two engines' answers to the same pictures differ."""
    return {
        "agreement": float((found.argmax(1) == reference.argmax(1)).mean()),  # share of the same class
        "max_abs_dprob": round(float(np.abs(found - reference).max()), 6),
    }
