"""How right the answers are, and how alike those of two targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from eval.stats.intervals import proportion

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Answer:
    """What a target said of one image."""

    label: int  # class id
    probabilities: tuple[float, ...] | None  # in class order; None when the endpoint gives none


Answers = Mapping[int, Answer]  # by image; an image without an answer is missing


def quality(truth: Mapping[int, int], answers: Answers, classes: Sequence[str]) -> dict[str, Any]:
    """All that report.json says about one target's answers. `truth` holds every image that was sent."""
    images = sorted(answers)
    true = np.array([truth[i] for i in images], dtype=int)
    said = np.array([answers[i].label for i in images], dtype=int)
    right = int((true == said).sum())
    vectors = [answers[i].probabilities for i in images]
    complete = [v for v in vectors if v is not None and len(v) == len(classes)]
    whole = np.array(complete) if len(complete) == len(images) else None
    return {
        "accuracy": proportion(right, len(images), "answers").to_json(),
        "accuracy_over_sent": proportion(right, len(truth), "requests").to_json(),
        "f1_macro": f1_macro(true, said, len(classes)),
        "roc_auc": roc_auc(true, whole, len(classes)),
        "ece": calibration_error(true, said, whole),
        "per_class": per_class(true, said, classes),
        "confusion": confusion_matrix(true, said, labels=range(len(classes))).tolist() if images else [],
    }


def per_class(true: np.ndarray, said: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class; null with a reason where its denominator is zero."""
    if not len(true):
        return []
    precision, recall, f1, support = _scores(true, said, len(classes))
    return [
        {
            "label": label,
            "precision": _or_reason(precision[i], "never answered"),
            "recall": _or_reason(recall[i], "no image of it"),
            "f1": _or_reason(f1[i], "no image of it, and never answered"),
            "support": int(support[i]),
        }
        for i, label in enumerate(classes)
    ]


def f1_macro(true: np.ndarray, said: np.ndarray, classes: int) -> float | dict[str, Any]:
    """Mean F1 of the classes that were shown or answered."""
    if not len(true):
        return _none("no answers")
    return float(np.nanmean(_scores(true, said, classes)[2]))


def roc_auc(true: np.ndarray, probabilities: np.ndarray | None, classes: int) -> float | dict[str, Any]:
    """Area under the ROC curve, each class against the rest, mean over classes."""
    if not len(true):
        return _none("no answers")
    if probabilities is None:
        return _none("not every answer has a probability for each class")
    if missing := classes - len(np.unique(true)):
        return _none(f"needs an image of every class, {missing} of {classes} classes have none")
    sums = probabilities.sum(axis=1, keepdims=True)
    if not np.allclose(sums, 1, atol=1e-3):
        return _none("the probabilities of some answers do not add up to 1")
    # Six digits each: the rounded rows are off by some millionths, which scikit-learn would not accept.
    return float(roc_auc_score(true, probabilities / sums, multi_class="ovr", average="macro", labels=range(classes)))


def calibration_error(
    true: np.ndarray, said: np.ndarray, probabilities: np.ndarray | None, bins: int = CALIBRATION_BINS
) -> float | dict[str, Any]:
    """Expected calibration error: the gap between confidence and share right in equal-width bins, mean over answers."""
    if not len(true):
        return _none("no answers")
    if probabilities is None:
        return _none("not every answer has a probability for each class")
    confidence = probabilities.max(axis=1)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bins are open below, closed above
    gaps = np.bincount(bin_of, weights=confidence - (true == said), minlength=bins)
    return float(np.abs(gaps).sum() / len(true))


def parity(a: Answers, b: Answers) -> dict[str, Any]:
    """Whether two targets say the same of every image that both answered."""
    both = sorted(a.keys() & b.keys())
    same = sum(a[i].label == b[i].label for i in both)
    pairs = [(p, q) for i in both if (p := a[i].probabilities) and (q := b[i].probabilities) and len(p) == len(q)]
    largest = max((float(np.abs(np.subtract(p, q)).max()) for p, q in pairs), default=None)
    return {
        "n": len(both),
        "agreement": proportion(same, len(both), "image that both answered").to_json(),
        "disagreements": len(both) - same,
        "max_abs_dprob": _none("no image with probabilities from both") if largest is None else round(largest, 9),
    }


def _scores(true: np.ndarray, said: np.ndarray, classes: int) -> tuple[np.ndarray, ...]:
    scores = precision_recall_fscore_support(true, said, labels=range(classes), zero_division=np.nan)  # type: ignore[arg-type]  # nan is allowed
    return tuple(np.asarray(score) for score in scores)


def _or_reason(value: float, reason: str) -> float | dict[str, Any]:
    return _none(reason) if np.isnan(value) else float(value)


def _none(reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason}
