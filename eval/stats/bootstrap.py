"""Differences of percentiles between two samples, by the percentile bootstrap over blocks.

Requests of one block follow each other and are correlated; blocks can be taken as independent. So whole blocks are
resampled, and single requests only if there are too few blocks. Failures are infinite latencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.stats.intervals import CONFIDENCE, nearest_rank

REPLICATES = 2000
MIN_BLOCKS = 20  # with fewer, the variation between blocks is not known well enough
MAX_WEIGHTS = 2_000_000  # weights in memory at once

LatenciesByBlock = Mapping[int, Sequence[float]]  # block -> its latencies in ms


@dataclass(frozen=True)
class RelativeChange:
    """The relative change of a figure: 0.1 is 10% more."""

    change: float
    low: float  # 95% interval; infinite if failures reach into it
    high: float
    p: float  # of no change, two-sided
    resampling_unit: str  # "blocks" or "requests"


def resampled_quantiles(
    blocks: LatenciesByBlock,
    quantile_levels: Sequence[float],
    rng: np.random.Generator,
    by_block: bool,
    n_replicates: int = REPLICATES,
) -> np.ndarray:
    """The quantiles of each replicate (nearest rank): a row per replicate, a column per quantile.

    The samples are sorted once. Resampling blocks gives each sample the weight of its block; a quantile is where the
    cumulative weight reaches its level.
    """
    values = np.concatenate([np.asarray(latencies_ms, dtype=float) for latencies_ms in blocks.values()])
    unit_sizes = [len(latencies_ms) for latencies_ms in blocks.values()] if by_block else [1] * len(values)
    order = np.argsort(values, kind="stable")
    unit_of_value = np.repeat(np.arange(len(unit_sizes)), unit_sizes)[order]
    ordered = values[order]
    chunks, chunk_size = [], max(1, MAX_WEIGHTS // len(values))
    for start in range(0, n_replicates, chunk_size):
        draw_counts = rng.multinomial(
            len(unit_sizes), [1 / len(unit_sizes)] * len(unit_sizes), size=min(chunk_size, n_replicates - start)
        )
        cumulative_counts = np.cumsum(draw_counts[:, unit_of_value], axis=1)
        total_counts = cumulative_counts[:, -1]
        rows = [[np.searchsorted(row, math.ceil(round(p * n, 9))) for p in quantile_levels]
                for row, n in zip(cumulative_counts, total_counts, strict=True)]  # fmt: skip
        chunks.append(ordered[np.array(rows)])
    return np.concatenate(chunks)


def compare_quantiles(
    a: LatenciesByBlock,
    b: LatenciesByBlock,
    quantile_levels: Sequence[float],
    seed: int,
    n_replicates: int = REPLICATES,
) -> list[RelativeChange]:
    """How each quantile changed from `a` to `b`, two independent runs."""
    rng = np.random.default_rng(seed)
    by_block = min(len(a), len(b)) >= MIN_BLOCKS
    resampled_a = resampled_quantiles(a, quantile_levels, rng, by_block, n_replicates)
    resampled_b = resampled_quantiles(b, quantile_levels, rng, by_block, n_replicates)
    sorted_a, sorted_b = (
        sorted(value for latencies_ms in blocks.values() for value in latencies_ms) for blocks in (a, b)
    )
    unit = "blocks" if by_block else "requests"
    return [
        _with_interval(relative_change(nearest_rank(sorted_a, p), nearest_rank(sorted_b, p)),
               relative_changes(resampled_a[:, i], resampled_b[:, i]), unit)
        for i, p in enumerate(quantile_levels)
    ]  # fmt: skip


def relative_change(a: float, b: float) -> float:
    """The change from a to b relative to a; 0 if both are infinite."""
    return float(relative_changes(np.array([a]), np.array([b]))[0])


def relative_changes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `relative_change`, elementwise."""
    equal = a == b  # infinite ones too
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.where(np.isinf(a), -1.0, b / a - 1)
    return np.where(equal, 0.0, change)


def _with_interval(change: float, replicates: np.ndarray, unit: str) -> RelativeChange:
    low, high = percentile_interval(replicates)
    return RelativeChange(change, low, high, bootstrap_p(replicates), unit)


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The middle 95% of the replicates. By rank, so that infinite values are allowed."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def bootstrap_p(replicates: np.ndarray) -> float:
    """Two-sided p-value of no change: twice the fraction of replicates on its opposite side, plus one; never 0."""
    n_opposite = min(int((replicates <= 0).sum()), int((replicates >= 0).sum()))
    return min(1.0, 2 * (n_opposite + 1) / (len(replicates) + 1))
