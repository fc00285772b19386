"""Whether two targets are right equally often, image by image: McNemar's exact test for every pair, Holm over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy

from eval.analysis.accuracy import Answer
from eval.stats.intervals import CONFIDENCE, holm


@dataclass(frozen=True)
class Discordance:
    """The images on which one of two was right and the other wrong."""

    n: int  # images that both answered
    only_a_right: int
    only_b_right: int

    @property
    def p(self) -> float:
        """The chance of so uneven a split, or a more uneven one, if both were right equally often."""
        split = self.only_a_right + self.only_b_right
        return float(scipy.stats.binomtest(self.only_a_right, split, 0.5).pvalue) if split else 1.0

    def difference(self) -> dict[str, Any]:
        """By how much the second is right more often, as a share of the images, with an exact 95% interval.

        The interval takes the number of images on which they split as given, and says who is right on those.
        """
        split, value = self.only_a_right + self.only_b_right, (self.only_b_right - self.only_a_right) / self.n
        if not split:
            return {"value": value, "low": None, "high": None, "n": self.n}
        share = scipy.stats.binomtest(self.only_b_right, split).proportion_ci(CONFIDENCE, method="exact")
        low, high = ((2 * float(end) - 1) * split / self.n for end in (share.low, share.high))
        return {"value": value, "low": low, "high": high, "n": self.n}


def discordance(truth: Mapping[Any, int], a: Mapping[Any, Answer], b: Mapping[Any, Answer]) -> Discordance:
    """Of the images that both answered. `truth` has the label of each image, by the keys that the answers have."""
    both = a.keys() & b.keys()
    right = [(a[image].label == truth[image], b[image].label == truth[image]) for image in both]
    return Discordance(len(both), sum(x and not y for x, y in right), sum(y and not x for x, y in right))


def mcnemar(pairs: Mapping[str, Discordance]) -> dict[str, dict[str, Any]]:
    """The `mcnemar` of each pair as report.json has it, adjusted for all pairs that have an image in common."""
    tested = [pair for pair, found in pairs.items() if found.n]
    adjusted = dict(zip(tested, holm([pairs[pair].p for pair in tested]), strict=True))
    return {pair: _json(found, adjusted.get(pair)) for pair, found in pairs.items()}


def _json(found: Discordance, p_holm: float | None) -> dict[str, Any]:
    none = {"value": None, "reason": "no image that both answered"}
    return {
        "only_a_right": found.only_a_right,
        "only_b_right": found.only_b_right,
        "p": none if p_holm is None else found.p,
        "p_holm": none if p_holm is None else p_holm,
    }
