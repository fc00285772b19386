"""Whether the unlabelled images are of the same kind as the held-out ones: if not, no precision is guaranteed.

Kolmogorov and Smirnov's distance of the network's confidence and of the images' brightness. Compressed, noisy and
blurred images show in the first, darker ones in the second; what is predicted how often shows neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts on first use

MIN_DISTANCE = 0.05  # smaller ones of images alike were measured up to 0.04
MAX_P = 0.001  # of a distance that counts
GREAT_DISTANCE = 0.15  # beyond it the labels should not be used unchecked


@dataclass(frozen=True)
class Shift:
    """The distance of two distributions."""

    what: str  # "confidence"
    distance: float  # 0 to 1
    p: float  # of so great a distance, if both were one

    @property
    def counts(self) -> bool:
        return self.distance >= MIN_DISTANCE and self.p <= MAX_P

    def sentence(self) -> str:
        """The warning."""
        advice = "the precision is not guaranteed"
        if self.distance >= GREAT_DISTANCE:
            advice = "do not use the labels before a person has checked a sample of each class"
        return (
            f"the {self.what} of the unlabelled images is not that of the held-out ones (KS {self.distance:.2f}): "
            f"they are of another kind, and {advice}"
        )


def shifts(held_out: Mapping[str, np.ndarray], unlabelled: Mapping[str, np.ndarray]) -> list[Shift]:
    """Of each quantity."""
    found = []
    for what, values in held_out.items():
        result = scipy.stats.ks_2samp(values, unlabelled[what], method="asymp")
        found.append(Shift(what, float(result.statistic), float(result.pvalue)))
    return found
