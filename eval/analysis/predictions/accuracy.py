"""How accurate the predictions are, and how far those of two targets agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from eval.analysis.predictions.score_intervals import Interval, calibration_bin, score_intervals
from eval.codes import ReasonCode, Unavailable, unavailable
from eval.stats.intervals import Estimate, proportion

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Prediction:
    """What a target predicted of one image."""

    label: int  # class id
    probabilities: tuple[float, ...] | None  # in class order; None when the endpoint returns none


Predictions = Mapping[int, Prediction]  # by image; an image without a prediction is missing


@dataclass(frozen=True)
class ClassReport:
    label: str
    precision: float | Unavailable
    recall: float | Unavailable
    f1: float | Unavailable
    support: int  # images of it


@dataclass(frozen=True)
class McNemarReport:
    """McNemar's test of two targets."""

    only_a_correct: int
    only_b_correct: int
    p: float | Unavailable
    p_holm: float | Unavailable  # adjusted for the other pairs


@dataclass(frozen=True)
class Agreement:
    """How two targets predict the images that both predicted."""

    n: int
    fraction: Estimate  # of the images with the same label
    disagreements: int
    max_abs_prob_diff: float | Unavailable
    mcnemar: McNemarReport | None = None  # adjusted for all pairs of the run


def classification_metrics(
    true_labels: Mapping[int, int], predictions: Predictions, classes: Sequence[str]
) -> dict[str, Any]:
    """The scores of one target's predictions, fields of TargetReport. `true_labels` has every image that was sent."""
    images = sorted(predictions)
    true = np.array([true_labels[i] for i in images], dtype=int)
    predicted = np.array([predictions[i].label for i in images], dtype=int)
    n_correct = int((true == predicted).sum())
    probability_vectors = [predictions[i].probabilities for i in images]
    complete_vectors = [v for v in probability_vectors if v is not None and len(v) == len(classes)]
    probabilities = np.array(complete_vectors) if len(complete_vectors) == len(images) else None
    intervals = score_intervals(true, predicted, probabilities, len(classes), CALIBRATION_BINS)
    return {
        "accuracy": proportion(n_correct, len(images), ReasonCode.NO_RESPONSES),
        "accuracy_over_sent": proportion(n_correct, len(true_labels), ReasonCode.NO_REQUESTS),
        "f1_macro": _score(f1_macro(true, predicted, len(classes)), intervals.f1_macro, len(images)),
        "roc_auc": _score(roc_auc(true, probabilities, len(classes)), intervals.roc_auc, len(images)),
        "ece": _score(expected_calibration_error(true, predicted, probabilities), intervals.ece, len(images)),
        "per_class": per_class(true, predicted, classes),
        "confusion": confusion_matrix(true, predicted, labels=range(len(classes))).tolist() if images else [],
    }


def metrics_of_golden_set() -> dict[str, Any]:
    """The same fields for images that the network made itself: how often it is right on them says nothing."""
    no_score = unavailable(ReasonCode.GOLDEN_SET)
    scores = dict.fromkeys(("f1_macro", "roc_auc", "ece"), no_score)
    accuracy = dict.fromkeys(("accuracy", "accuracy_over_sent"), Estimate(None, reason=no_score.reason))
    return {**accuracy, **scores, "per_class": [], "confusion": []}


def per_class(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> list[ClassReport]:
    """Precision, recall and F1 of each class; a reason where its denominator is zero."""
    if not len(true):
        return []
    precision, recall, f1, support = _precision_recall_f1_support(true, predicted, len(classes))
    return [
        ClassReport(
            label=label,
            precision=_value_or_reason(precision[i], ReasonCode.NEVER_PREDICTED),
            recall=_value_or_reason(recall[i], ReasonCode.NO_IMAGE_OF_CLASS),
            f1=_value_or_reason(f1[i], ReasonCode.NEITHER_IMAGE_NOR_PREDICTION),
            support=int(support[i]),
        )
        for i, label in enumerate(classes)
    ]


def f1_macro(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> float | Unavailable:
    """Mean F1 of the classes that have an image or a prediction."""
    if not len(true):
        return unavailable(ReasonCode.NO_RESPONSES)
    return float(np.nanmean(_precision_recall_f1_support(true, predicted, n_classes)[2]))


def roc_auc(true: np.ndarray, probabilities: np.ndarray | None, n_classes: int) -> float | Unavailable:
    """Area under the ROC curve, each class against the rest, mean over classes."""
    if not len(true):
        return unavailable(ReasonCode.NO_RESPONSES)
    if probabilities is None:
        return unavailable(ReasonCode.PROBABILITIES_MISSING)
    if n_missing := n_classes - len(np.unique(true)):
        return unavailable(ReasonCode.CLASSES_WITHOUT_IMAGE, missing=n_missing, n_classes=n_classes)
    row_sums = probabilities.sum(axis=1, keepdims=True)
    if not np.allclose(row_sums, 1, atol=1e-3):
        return unavailable(ReasonCode.PROBABILITIES_NOT_NORMALISED)
    # Six digits each: the rounded rows are off by some millionths, which scikit-learn would not accept.
    scores = probabilities / row_sums
    if n_classes == 2:
        return float(roc_auc_score(true, scores[:, 1]))
    return float(roc_auc_score(true, scores, multi_class="ovr", average="macro", labels=range(n_classes)))


def expected_calibration_error(
    true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, n_bins: int = CALIBRATION_BINS
) -> float | Unavailable:
    """Expected calibration error: the gap between confidence and accuracy in equal-width bins."""
    if not len(true):
        return unavailable(ReasonCode.NO_RESPONSES)
    if probabilities is None:
        return unavailable(ReasonCode.PROBABILITIES_MISSING)
    confidence = probabilities.max(axis=1)
    bin_index = calibration_bin(confidence, n_bins)
    bin_gaps = np.bincount(bin_index, weights=confidence - (true == predicted), minlength=n_bins)
    return float(np.abs(bin_gaps).sum() / len(true))


def prediction_agreement(a: Predictions, b: Predictions) -> Agreement:
    """Whether two targets predict the same of every image that both predicted."""
    common_images = sorted(a.keys() & b.keys())
    n_agreeing = sum(a[i].label == b[i].label for i in common_images)
    probability_pairs = [
        (p, q) for i in common_images if (p := a[i].probabilities) and (q := b[i].probabilities) and len(p) == len(q)
    ]
    max_abs_diff = max((float(np.abs(np.subtract(p, q)).max()) for p, q in probability_pairs), default=None)
    return Agreement(
        n=len(common_images),
        fraction=proportion(n_agreeing, len(common_images), ReasonCode.NO_COMMON_IMAGE),
        disagreements=len(common_images) - n_agreeing,
        max_abs_prob_diff=unavailable(ReasonCode.NO_COMMON_PROBABILITIES)
        if max_abs_diff is None
        else round(max_abs_diff, 9),
    )


def _precision_recall_f1_support(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> tuple[np.ndarray, ...]:
    scores = precision_recall_fscore_support(true, predicted, labels=range(n_classes), zero_division=np.nan)  # type: ignore[arg-type]  # nan is allowed
    return tuple(np.asarray(score) for score in scores)


def _score(value: float | Unavailable, interval: Interval | None, n: int) -> Estimate | Unavailable:
    if isinstance(value, Unavailable):
        return value
    low, high = interval or (None, None)
    return Estimate(value, low, high, n)


def _value_or_reason(value: float, code: ReasonCode) -> float | Unavailable:
    return unavailable(code) if np.isnan(value) else float(value)
