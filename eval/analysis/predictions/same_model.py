"""Whether two engines can run the same model.

Engines round differently, so a few images are predicted otherwise. That so many are that the models must differ needs
its interval, enough distinct images, and images of the kind that the model was trained on: on others (grey ones, noise)
the highest probabilities lie close together, and rounding decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import scipy

from eval.analysis.predictions.accuracy import Predictions
from eval.samples.model import ImageEntry
from eval.stats.intervals import CONFIDENCE

MIN_AGREEMENT = 0.97  # fraction of distinct images that two engines with the same model predict alike
MIN_IMAGES = 100  # distinct
MIN_ACCURACY = 0.8  # of the more accurate one; the model has 0.93 on its test set


@dataclass(frozen=True)
class SameModel:
    """What the predictions of two engines say about their models."""

    n: int  # distinct images that both predicted
    max_agreement: float  # upper end of the exact 95% interval of the fraction that they predict alike
    accuracy: float  # of the more accurate one
    differs_often: bool  # on more images than rounding explains, in this sample

    @property
    def excluded(self) -> bool:
        """Whether it is proven that they run different models."""
        decidable = self.n >= MIN_IMAGES and self.accuracy >= MIN_ACCURACY
        return self.differs_often and decidable and self.max_agreement < MIN_AGREEMENT

    @property
    def undecided(self) -> bool:
        return self.differs_often and not self.excluded


def compare_models(manifest: Sequence[ImageEntry], a: Predictions, b: Predictions) -> SameModel | None:
    """Of the distinct images that both predicted; None if there is none."""
    images = {manifest[image].sha256: image for image in a.keys() & b.keys()}.values()
    if not images:
        return None
    n_alike = sum(a[image].label == b[image].label for image in images)
    n_correct = max(sum(p[image].label == manifest[image].label for image in images) for p in (a, b))
    interval = scipy.stats.binomtest(n_alike, len(images)).proportion_ci(CONFIDENCE, method="exact")
    differs_often = n_alike / len(images) < MIN_AGREEMENT
    return SameModel(len(images), float(interval.high), n_correct / len(images), differs_often)
