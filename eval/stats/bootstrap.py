"""Relative changes, and intervals and p-values from the replicates of a bootstrap. A failure is an infinite latency."""

from __future__ import annotations

import numpy as np

from eval.stats.intervals import CONFIDENCE

REPLICATES = 2000


def relative_change(a: float, b: float) -> float:
    """The change from a to b relative to a; 0 if both are infinite."""
    return float(relative_changes(np.array([a]), np.array([b]))[0])


def relative_changes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `relative_change`, elementwise."""
    equal = a == b  # infinite ones too
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.where(np.isinf(a), -1.0, b / a - 1)
    return np.where(equal, 0.0, change)


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The middle 95% of the replicates. By rank, so that infinite values are allowed."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def bootstrap_p(replicates: np.ndarray) -> float:
    """Two-sided p-value of no change: twice the fraction of replicates on its opposite side, plus one; never 0."""
    n_opposite = min(int((replicates <= 0).sum()), int((replicates >= 0).sum()))
    return min(1.0, 2 * (n_opposite + 1) / (len(replicates) + 1))
