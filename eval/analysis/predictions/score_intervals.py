"""95% intervals of macro F1, ROC AUC and calibration error: a bootstrap over the images.

All three come from the same resamples, as they come from the same images. A resample is a weight for each image, and
each score is a function of weighted sums, so that a thousand of them are one product of matrices. F1 and the
calibration error are computed again in each. AUC is taken to first order, by the placement values of its images
(DeLong, DeLong and Clarke-Pearson 1988). The interval is the basic one, twice the value minus the replicates' upper and
lower quantile (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2): the calibration
error of a sample is too large on average, that of a resample twice as much, and this interval takes it off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

from eval.stats.bootstrap import percentile_interval

REPLICATES = 1000
CHUNK = 100  # resamples drawn at a time: bounds the memory
SEED = 17
MIN_IMAGES = 100  # fewer do not show how the scores of other images would differ

Interval = tuple[float, float]


@dataclass(frozen=True)
class ScoreIntervals:
    """None where the score is not known, or no resample differs from the sample, as when all is correct."""

    f1_macro: Interval | None = None
    roc_auc: Interval | None = None
    ece: Interval | None = None


def score_intervals(
    true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, n_classes: int, n_bins: int
) -> ScoreIntervals:
    """Of one target's predictions. Targets with the same answers cost one bootstrap."""
    if len(true) < MIN_IMAGES:
        return ScoreIntervals()
    content = None if probabilities is None else probabilities.astype(np.float64).tobytes()
    return _intervals(true.astype(np.int64).tobytes(), predicted.astype(np.int64).tobytes(), content, n_classes, n_bins)


@lru_cache(maxsize=8)
def _intervals(
    true: bytes, predicted: bytes, probabilities: bytes | None, n_classes: int, n_bins: int
) -> ScoreIntervals:
    true_labels, predicted_labels = np.frombuffer(true, np.int64), np.frombuffer(predicted, np.int64)
    n = len(true_labels)
    columns = [_one_hot(true_labels * n_classes + predicted_labels, n_classes**2)]
    if probabilities is not None:
        values = np.frombuffer(probabilities, np.float64).reshape(n, n_classes)
        confidence = values.max(axis=1)
        gap = confidence - (true_labels == predicted_labels)
        columns += [_one_hot(calibration_bin(confidence, n_bins), n_bins) * gap[:, None]]
        columns += [_auc_influence(true_labels, values)[:, None]]
    per_image = np.hstack(columns)
    sums = np.vstack([per_image.sum(axis=0), _resampled_sums(per_image)])
    cells, bins, auc = np.split(sums, [n_classes**2, n_classes**2 + n_bins], axis=1)
    f1 = _f1_macro(cells.reshape(-1, n_classes, n_classes))
    if probabilities is None:
        return ScoreIntervals(_basic_interval(f1))
    ece = np.abs(bins).sum(axis=1) / n
    every_class = len(np.unique(true_labels)) == n_classes > 1  # or there is no AUC
    auc_interval = _basic_interval(_auc(true_labels, values) + auc[:, 0]) if every_class else None
    return ScoreIntervals(_basic_interval(f1), auc_interval, _basic_interval(ece))


def calibration_bin(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    """Bins of equal width, open below and closed above."""
    return np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)


def _resampled_sums(per_image: np.ndarray) -> np.ndarray:
    """The sums of the columns over as many images, drawn with replacement; a row for each replicate."""
    rng, n = np.random.default_rng(SEED), len(per_image)
    rows = []
    for _ in range(REPLICATES // CHUNK):
        drawn = rng.integers(0, n, (CHUNK, n)) + n * np.arange(CHUNK)[:, None]
        rows.append(np.bincount(drawn.ravel(), minlength=CHUNK * n).reshape(CHUNK, n).astype(float) @ per_image)
    return np.vstack(rows)


def _one_hot(index: np.ndarray, size: int) -> np.ndarray:
    return (index[:, None] == np.arange(size)).astype(float)


def _f1_macro(confusion: np.ndarray) -> np.ndarray:
    """Of each confusion matrix: the mean over the classes with an image or a prediction."""
    correct = np.diagonal(confusion, axis1=1, axis2=2)
    total = confusion.sum(axis=1) + confusion.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return np.nanmean(2 * correct / total, axis=1)


def _placements(true: np.ndarray, probabilities: np.ndarray, label: int) -> np.ndarray:
    """Of each image, the fraction of the other side's images that the class's probability ranks correctly."""
    score, is_class = probabilities[:, label], true == label
    n_class, n_rest = int(is_class.sum()), int((~is_class).sum())
    overall, placements = scipy.stats.rankdata(score), np.empty(len(true))
    placements[is_class] = (overall[is_class] - scipy.stats.rankdata(score[is_class])) / n_rest
    placements[~is_class] = 1 - (overall[~is_class] - scipy.stats.rankdata(score[~is_class])) / n_class
    return placements


def _auc(true: np.ndarray, probabilities: np.ndarray) -> float:
    labels = np.unique(true)
    return float(np.mean([_placements(true, probabilities, label)[true == label].mean() for label in labels]))


def _auc_influence(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """By how much one more of each image changes the mean AUC of the classes."""
    labels, influence = np.unique(true), np.zeros(len(true))
    if len(labels) < 2:
        return influence
    for label in labels:
        placements, is_class = _placements(true, probabilities, label), true == label
        side_size = np.where(is_class, is_class.sum(), (~is_class).sum())
        influence += (placements - placements[is_class].mean()) / side_size
    return influence / len(labels)


def _basic_interval(value_and_replicates: np.ndarray) -> Interval | None:
    """It holds the value itself, and no score beyond 0 or 1."""
    value, replicates = float(value_and_replicates[0]), value_and_replicates[1:]
    if not np.ptp(replicates):
        return None
    low, high = percentile_interval(replicates)
    return max(0.0, min(value, 2 * value - high)), min(1.0, max(value, 2 * value - low))
