"""Whether two targets are right equally often, image by image: McNemar's exact test for every pair, Holm over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy

from eval.analysis.accuracy import Prediction
from eval.statements import ReasonCode, unavailable
from eval.stats.intervals import CONFIDENCE, holm_adjust


@dataclass(frozen=True)
class DiscordantPairs:
    """The images on which one of two was right and the other wrong."""

    n: int  # images that both answered
    only_a_correct: int
    only_b_correct: int

    @property
    def p(self) -> float:
        """The chance of so uneven a split, or a more uneven one, if both were right equally often."""
        n_discordant = self.only_a_correct + self.only_b_correct
        return float(scipy.stats.binomtest(self.only_a_correct, n_discordant, 0.5).pvalue) if n_discordant else 1.0

    def difference(self) -> dict[str, Any]:
        """By how much the second is right more often, as a share of the images, with an exact 95% interval.

        The interval takes the number of images on which they split as given, and says who is right on those.
        """
        n_discordant, value = (
            self.only_a_correct + self.only_b_correct,
            (self.only_b_correct - self.only_a_correct) / self.n,
        )
        if not n_discordant:
            return {"value": value, "low": None, "high": None, "n": self.n}
        interval = scipy.stats.binomtest(self.only_b_correct, n_discordant).proportion_ci(CONFIDENCE, method="exact")
        low, high = ((2 * float(end) - 1) * n_discordant / self.n for end in (interval.low, interval.high))
        return {"value": value, "low": low, "high": high, "n": self.n}


def discordant_pairs(
    true_labels: Mapping[Any, int], a: Mapping[Any, Prediction], b: Mapping[Any, Prediction]
) -> DiscordantPairs:
    """Of the images that both answered. `truth` has the label of each image, by the keys that the answers have."""
    common_images = a.keys() & b.keys()
    outcomes = [(a[image].label == true_labels[image], b[image].label == true_labels[image]) for image in common_images]
    return DiscordantPairs(
        len(common_images),
        sum(a_correct and not b_correct for a_correct, b_correct in outcomes),
        sum(b_correct and not a_correct for a_correct, b_correct in outcomes),
    )


def mcnemar_tests(pairs_by_key: Mapping[str, DiscordantPairs]) -> dict[str, dict[str, Any]]:
    """The `mcnemar` of each pair as report.json has it, adjusted for all pairs that have an image in common."""
    tested = [key for key, pair in pairs_by_key.items() if pair.n]
    adjusted = dict(zip(tested, holm_adjust([pairs_by_key[key].p for key in tested]), strict=True))
    return {key: _mcnemar_to_report(pair, adjusted.get(key)) for key, pair in pairs_by_key.items()}


def _mcnemar_to_report(pair: DiscordantPairs, p_holm: float | None) -> dict[str, Any]:
    no_image = unavailable(ReasonCode.NO_COMMON_IMAGE)
    return {
        "only_a_right": pair.only_a_correct,
        "only_b_right": pair.only_b_correct,
        "p": no_image if p_holm is None else pair.p,
        "p_holm": no_image if p_holm is None else p_holm,
    }
