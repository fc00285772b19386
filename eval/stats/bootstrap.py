"""Differences of percentiles between two samples, by the percentile bootstrap over blocks.

Requests of one block are neighbours in time and alike; blocks are the unit that can be taken as independent. So whole
blocks are drawn again, and only where there are too few of them single requests. Failures are infinite latencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.stats.intervals import CONFIDENCE, nearest_rank

REPLICATES = 2000
LEAST_BLOCKS = 20  # with fewer the spread between blocks is not known well enough
CHUNK = 2_000_000  # weights in memory at once

Blocks = Mapping[int, Sequence[float]]  # block -> its latencies in ms


@dataclass(frozen=True)
class Shift:
    """How a figure changed, as a share of the first: 0.1 is 10% more."""

    change: float
    low: float  # 95% interval; infinite where failures reach into it
    high: float
    p: float  # of no change, two-sided
    unit: str  # what was drawn: "blocks" or "requests"


def drawn_quantiles(
    blocks: Blocks, shares: Sequence[float], dice: np.random.Generator, by_block: bool, replicates: int = REPLICATES
) -> np.ndarray:
    """One row a replicate, one column a quantile: the smallest sample that the share does not exceed.

    The samples are sorted once. Drawing blocks again gives each sample the weight of its block, and a quantile lies
    where the running sum of weights reaches its share.
    """
    values = np.concatenate([np.asarray(of, dtype=float) for of in blocks.values()])
    sizes = [len(of) for of in blocks.values()] if by_block else [1] * len(values)
    order = np.argsort(values, kind="stable")
    block_of = np.repeat(np.arange(len(sizes)), sizes)[order]
    ordered = values[order]
    found, step = [], max(1, CHUNK // len(values))
    for start in range(0, replicates, step):
        times = dice.multinomial(len(sizes), [1 / len(sizes)] * len(sizes), size=min(step, replicates - start))
        reached = np.cumsum(times[:, block_of], axis=1)
        total = reached[:, -1]
        rows = [[np.searchsorted(row, math.ceil(round(p * n, 9))) for p in shares]
                for row, n in zip(reached, total, strict=True)]  # fmt: skip
        found.append(ordered[np.array(rows)])
    return np.concatenate(found)


def shifts(a: Blocks, b: Blocks, shares: Sequence[float], seed: int, replicates: int = REPLICATES) -> list[Shift]:
    """How each quantile changed from `a` to `b`, runs that were measured apart from each other."""
    dice = np.random.default_rng(seed)
    by_block = min(len(a), len(b)) >= LEAST_BLOCKS
    drawn_a = drawn_quantiles(a, shares, dice, by_block, replicates)
    drawn_b = drawn_quantiles(b, shares, dice, by_block, replicates)
    whole_a, whole_b = (sorted(value for of in side.values() for value in of) for side in (a, b))
    unit = "blocks" if by_block else "requests"
    return [
        _shift(relative(nearest_rank(whole_a, p), nearest_rank(whole_b, p)),
               relative_all(drawn_a[:, i], drawn_b[:, i]), unit)
        for i, p in enumerate(shares)
    ]  # fmt: skip


def relative(a: float, b: float) -> float:
    """The change from a to b as a share of a. Two that are endless are alike."""
    return float(relative_all(np.array([a]), np.array([b]))[0])


def relative_all(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `relative`, each with each."""
    same = a == b  # infinite ones too
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.where(np.isinf(a), -1.0, b / a - 1)
    return np.where(same, 0.0, change)


def _shift(change: float, drawn: np.ndarray, unit: str) -> Shift:
    low, high = interval(drawn)
    return Shift(change, low, high, two_sided(drawn), unit)


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The middle 95% of the replicates. By rank, so that infinite ones do no harm."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def two_sided(drawn: np.ndarray) -> float:
    """The share of replicates on the wrong side of no change, twice; never 0, as there could always be one more."""
    wrong = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (wrong + 1) / (len(drawn) + 1))
