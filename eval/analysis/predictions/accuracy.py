"""How accurate the predictions are, and how far those of two targets agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from eval.analysis.predictions.score_intervals import (
    LABEL_SCORES,
    Interval,
    calibration_bin,
    class_tallies,
    score_intervals,
    tallied_scores,
)
from eval.codes import ReasonCode, Unavailable, unavailable
from eval.stats.intervals import Estimate, proportion

CALIBRATION_BINS = 15
TOP = 5  # of the classes with the highest probabilities, among which the true one counts as found
MAX_MATRIX_CLASSES = 30  # of a confusion matrix that can be read; of more, the pairs that are confused most
MAX_CONFUSED = 20  # pairs


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
    average_precision: float | Unavailable  # of its probability, against all other classes
    support: int  # images of it


@dataclass(frozen=True)
class ConfusedPair:
    """How many images of one class are taken for another."""

    label: str  # what the image shows
    predicted: str
    images: int
    support: int  # images of the class


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
        "top5_accuracy": top_accuracy(true, probabilities, len(classes)),
        **{
            name: _score(value, getattr(intervals, name), len(images))
            for name, value in {
                **label_scores(true, predicted, len(classes)),
                "roc_auc": roc_auc(true, probabilities, len(classes)),
                "average_precision": average_precision(true, probabilities),
                "ece": expected_calibration_error(true, predicted, probabilities),
            }.items()
        },
        "per_class": per_class(true, predicted, classes, probabilities),
        "confusion": confusion_matrix(true, predicted, len(classes)).tolist()
        if images and len(classes) <= MAX_MATRIX_CLASSES
        else [],
        "most_confused": most_confused(true, predicted, classes),
    }


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """True class by predicted class: images. scikit-learn's warns of a single class, whatever its labels say."""
    pairs = np.bincount(true * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def metrics_of_golden_set() -> dict[str, Any]:
    """The same fields for images that the network made itself: how often it is right on them says nothing."""
    no_score = unavailable(ReasonCode.GOLDEN_SET)
    names = (*LABEL_SCORES, "top5_accuracy", "roc_auc", "average_precision", "ece")
    accuracy = dict.fromkeys(("accuracy", "accuracy_over_sent"), Estimate(None, reason=no_score.reason))
    return {**accuracy, **dict.fromkeys(names, no_score), "per_class": [], "confusion": [], "most_confused": []}


def per_class(
    true: np.ndarray, predicted: np.ndarray, classes: Sequence[str], probabilities: np.ndarray | None = None
) -> list[ClassReport]:
    """Precision, recall, F1 and average precision of each class; a reason where its denominator is zero."""
    if not len(true):
        return []
    precision, recall, f1, support = _precision_recall_f1_support(true, predicted, len(classes))
    ranked = average_precisions(true, probabilities) if probabilities is not None else {}
    no_ranking = ReasonCode.PROBABILITIES_MISSING if probabilities is None else ReasonCode.NO_IMAGE_OF_CLASS
    return [
        ClassReport(
            label=label,
            precision=_value_or_reason(precision[i], ReasonCode.NEVER_PREDICTED),
            recall=_value_or_reason(recall[i], ReasonCode.NO_IMAGE_OF_CLASS),
            f1=_value_or_reason(f1[i], ReasonCode.NEITHER_IMAGE_NOR_PREDICTION),
            average_precision=ranked.get(i, unavailable(no_ranking)),
            support=int(support[i]),
        )
        for i, label in enumerate(classes)
    ]


def most_confused(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> list[ConfusedPair]:
    """The pairs of a true and a predicted class with the most images, the most frequent first."""
    is_wrong = true != predicted
    wrong = zip(true[is_wrong].tolist(), predicted[is_wrong].tolist(), strict=True)
    pairs, support = Counter[tuple[int, int]](wrong), Counter[int](true.tolist())
    most = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:MAX_CONFUSED]
    return [ConfusedPair(classes[a], classes[b], pairs[a, b], support[a]) for a, b in most]


def label_scores(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float | Unavailable]:
    """F1 and precision: the mean of the classes that have an image or a prediction, and the mean by their images.

    The precision of a class that is never predicted is 0 here.
    """
    if not len(true):
        return dict.fromkeys(LABEL_SCORES, unavailable(ReasonCode.NO_RESPONSES))
    scores = tallied_scores(class_tallies(true, predicted, n_classes))
    return {name: float(scores[name][0]) for name in LABEL_SCORES}


def top_accuracy(true: np.ndarray, probabilities: np.ndarray | None, n_classes: int) -> Estimate | Unavailable:
    """The fraction of images whose true class is among the five with the highest probabilities."""
    if not len(true):
        return unavailable(ReasonCode.NO_RESPONSES)
    if n_classes <= TOP:
        return unavailable(ReasonCode.FEW_CLASSES, needed=TOP + 1, n_classes=n_classes)
    if probabilities is None:
        return unavailable(ReasonCode.PROBABILITIES_MISSING)
    of_true = probabilities[np.arange(len(true)), true][:, None]
    tied_before = (probabilities == of_true) & (np.arange(n_classes) < true[:, None])
    ranks = (probabilities > of_true).sum(axis=1) + tied_before.sum(axis=1)
    return proportion(int((ranks < TOP).sum()), len(true), ReasonCode.NO_RESPONSES)


def average_precision(true: np.ndarray, probabilities: np.ndarray | None) -> float | Unavailable:
    """Mean over the classes that have an image."""
    if not len(true):
        return unavailable(ReasonCode.NO_RESPONSES)
    if probabilities is None:
        return unavailable(ReasonCode.PROBABILITIES_MISSING)
    return float(np.mean(list(average_precisions(true, probabilities).values())))


def average_precisions(true: np.ndarray, probabilities: np.ndarray) -> dict[int, float]:
    """Of each class that has an image: the mean precision at its images, ranked by the class's probability."""
    labels = np.unique(true).tolist()
    return {label: float(average_precision_score(true == label, probabilities[:, label])) for label in labels}


def roc_auc(true: np.ndarray, probabilities: np.ndarray | None, n_classes: int) -> float | Unavailable:
    """Area under the ROC curve, each class against the rest, mean over classes."""
    if not len(true):
        return unavailable(ReasonCode.NO_RESPONSES)
    if probabilities is None:
        return unavailable(ReasonCode.PROBABILITIES_MISSING)
    if n_classes < 2:
        return unavailable(ReasonCode.FEW_CLASSES, needed=2, n_classes=n_classes)
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
