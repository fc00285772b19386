"""By how much the scores of two classifiers differ on the same images, with the standard error of the difference.

From the resamples of score_intervals: each draws the same images for both, so what makes an image hard is in both and
cancels. AUC is resampled to first order, by its placement values, of which the difference is the paired test of DeLong,
DeLong and Clarke-Pearson (Biometrics 44, 1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.analysis.predictions.score_intervals import (
    MIN_IMAGES,
    auc_influence,
    class_tallies,
    mean_auc,
    resamples,
    tallied_scores,
)

PAIRED_LABEL_SCORES = ("precision_macro", "f1_macro")


@dataclass(frozen=True)
class PairedScore:
    """One score of both on the same images."""

    a: float
    b: float
    standard_error: float  # of b - a
    image_weight: float  # by how much one image changes a score: of the smallest class, which counts as much as any
    n: int  # images


def paired_scores(
    true: np.ndarray,
    predicted: tuple[np.ndarray, np.ndarray],
    probabilities: tuple[np.ndarray, np.ndarray] | None,
    n_classes: int,
) -> dict[str, PairedScore]:
    """Macro precision, macro F1 and, with probabilities and an image of each class, the mean ROC AUC of the classes.

    true: class ids, shape (images,). predicted: the same of both. probabilities: (images, classes) of both. Empty where
    there are fewer than MIN_IMAGES.
    """
    n = len(true)
    if n < MIN_IMAGES:
        return {}
    chunks = [
        [tallied_scores(class_tallies(true[drawn], labels[drawn], n_classes)) for labels in predicted]
        for drawn in resamples(n)
    ]
    smallest = np.bincount(true, minlength=n_classes).min()
    weight = 1 / (len(np.unique([true, *predicted])) * max(1, int(smallest)))
    scores = {}
    for name in PAIRED_LABEL_SCORES:
        a, b = (np.hstack([chunk[side][name] for chunk in chunks]) for side in (0, 1))
        scores[name] = PairedScore(float(a[0]), float(b[0]), float(np.std((b - a)[1:])), weight, n)
    if probabilities and len(np.unique(true)) == n_classes > 1:
        auc_a, auc_b = (mean_auc(true, values) for values in probabilities)
        influence_a, influence_b = (auc_influence(true, values) for values in probabilities)
        sums = np.hstack([(influence_b - influence_a)[drawn].sum(axis=1) for drawn in resamples(n)])
        scores["roc_auc"] = PairedScore(auc_a, auc_b, float(np.std(sums[1:])), weight, n)
    return scores
