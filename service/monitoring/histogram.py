"""Histograms with the bounds of a reference, and the bounds where there is none.

They take many values at a time: prometheus_client's own take one, with a lock for each bucket.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client.utils import floatToGoString

# Of probabilities: narrow where networks are sure, most so where the shipped one is, whose labels were smoothed
PROBABILITIES = (
    *(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.94, 0.95, 0.955),
    *(0.96, 0.9625, 0.965, 0.9675, 0.97, 0.9725, 0.975, 0.98, 0.99, 0.995, 0.999),
)
BRIGHTNESS = (
    *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.375, 0.4, 0.425, 0.45, 0.475, 0.5, 0.525, 0.55, 0.575, 0.6, 0.65),
    *(0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
)
CONTRAST = (
    *(0.025, 0.05, 0.075, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.325, 0.35, 0.4, 0.45),
)


def le(bound: float) -> str:
    """A bound as the label of its bucket."""
    return floatToGoString(bound)


class Histogram:
    """Counts by bucket, and their sum. Whoever uses it holds a lock."""

    def __init__(self, bounds: Sequence[float]):
        self._bounds = np.array(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0

    def observe(self, values: np.ndarray) -> None:
        """Count float64 values; NaN, which would stay in the sum for ever, is left out."""
        total = float(values.sum())
        if total != total:
            values = values[~np.isnan(values)]
            total = float(values.sum())
        self._counts += np.bincount(self._bounds.searchsorted(values), minlength=len(self._counts))
        self._sum += total

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """The buckets, each by its bound with all that is not above it, and the sum."""
        names = [*map(le, self._bounds.tolist()), "+Inf"]
        return list(zip(names, self._counts.cumsum().astype(float).tolist(), strict=True)), self._sum
