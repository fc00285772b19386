"""Whether two targets are equally accurate, image by image: McNemar's exact test for every pair, adjusted by Holm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import scipy

from eval.analysis.predictions.accuracy import McNemarReport, Prediction, Predictions
from eval.codes import ReasonCode, Unavailable, unavailable
from eval.stats.intervals import CONFIDENCE, Estimate, holm_adjust

NON_INFERIORITY_MARGIN = 0.01  # of accuracy: a loss of one percentage point is the largest that is accepted
MAX_DIFFERENCE = 1 - 1e-9


class NonInferiority(StrEnum):
    """Whether the second of two is less accurate by more than the margin."""

    NOT_INFERIOR = "not inferior"
    INFERIOR = "inferior"
    NOT_DECIDED = "not decided"


@dataclass(frozen=True)
class DiscordantPairs:
    """The images on which one of two was correct and the other not."""

    n: int  # images that both predicted
    only_a_correct: int
    only_b_correct: int

    @property
    def p(self) -> float:
        """The chance of so uneven a split, or a more uneven one, if both were correct equally often."""
        n_discordant = self.only_a_correct + self.only_b_correct
        return float(scipy.stats.binomtest(self.only_a_correct, n_discordant, 0.5).pvalue) if n_discordant else 1.0

    def difference(self, confidence: float = CONFIDENCE) -> Estimate:
        """By how much the second is correct more often, as a fraction of the images, with its two-sided interval.

        Tango's score interval of the difference of paired proportions (Statistics in Medicine 17, 1998): all
        differences that the score test does not reject. It exists without any discordant image, too.
        """
        value = (self.only_b_correct - self.only_a_correct) / self.n
        limit = float(scipy.stats.norm.ppf((1 + confidence) / 2))

        def beyond(delta: float) -> float:
            return abs(self._score(delta)) - limit

        low, high = (
            end if beyond(end) <= 0 else float(scipy.optimize.brentq(beyond, value, end))
            for end in (-MAX_DIFFERENCE, MAX_DIFFERENCE)
        )
        return Estimate(value, low, high, self.n)

    def _score(self, delta: float) -> float:
        """Standard normal if the true difference is `delta`."""
        n, b, c = self.n, self.only_b_correct, self.only_a_correct
        surplus = b - c - n * delta
        if not surplus:
            return 0.0
        # The most likely probability, given delta, that a alone is correct
        linear, constant = (2 * n - b + c) * delta - b - c, -c * delta * (1 - delta)
        only_a = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * only_a + delta * (1 - delta))
        return surplus / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, surplus)


def non_inferiority(difference: Estimate | Unavailable) -> NonInferiority:
    """What the interval of b's accuracy minus a's says: at 97.5% one-sided, as is usual (ICH E9)."""
    if isinstance(difference, Unavailable) or difference.low is None or difference.high is None:
        return NonInferiority.NOT_DECIDED
    if difference.low > -NON_INFERIORITY_MARGIN:
        return NonInferiority.NOT_INFERIOR
    return NonInferiority.INFERIOR if difference.high < -NON_INFERIORITY_MARGIN else NonInferiority.NOT_DECIDED


def discordant_pairs(
    true_labels: Mapping[Any, int], a: Mapping[Any, Prediction], b: Mapping[Any, Prediction]
) -> DiscordantPairs:
    """Of the images that both predicted. `true_labels` has the label of each image, by the keys of the predictions."""
    common_images = a.keys() & b.keys()
    outcomes = [(a[image].label == true_labels[image], b[image].label == true_labels[image]) for image in common_images]
    return DiscordantPairs(
        len(common_images),
        sum(a_correct and not b_correct for a_correct, b_correct in outcomes),
        sum(b_correct and not a_correct for a_correct, b_correct in outcomes),
    )


def mcnemar_tests(
    true_labels: Mapping[Any, int], predictions: Mapping[str, Predictions], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], McNemarReport]:
    """The test of each pair, adjusted for all hypotheses (Holm).

    Targets with identical predictions are one: all pairs of the same two predictions are one hypothesis.
    """
    labels = {name: {image: of[image].label for image in of} for name, of in predictions.items()}
    first_alike = {name: next(other for other in labels if labels[other] == labels[name]) for name in labels}
    outcomes = {(a, b): discordant_pairs(true_labels, predictions[a], predictions[b]) for a, b in pairs}
    p_values = {
        frozenset((first_alike[a], first_alike[b])): pair.p for (a, b), pair in outcomes.items() if pair.n
    }  # a pair of identical predictions is no hypothesis
    tested = [hypothesis for hypothesis in p_values if len(hypothesis) == 2]
    adjusted = dict(zip(tested, holm_adjust([p_values[hypothesis] for hypothesis in tested]), strict=True))
    no_image = unavailable(ReasonCode.NO_COMMON_IMAGE)
    reports = {}
    for (a, b), pair in outcomes.items():
        p_holm = adjusted.get(frozenset((first_alike[a], first_alike[b])), 1.0)
        p, p_holm = (pair.p, p_holm) if pair.n else (no_image, no_image)
        reports[a, b] = McNemarReport(pair.only_a_correct, pair.only_b_correct, p, p_holm)
    return reports
