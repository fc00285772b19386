"""The ratio of a percentile in two samples, with its 95% confidence interval, and what that says in one of three words.

The interval holds every ratio that the samples do not contradict. If the true ratio were r, then a's latencies times r
and b's would have the same percentile, and in the mean of all blocks as many of either would exceed it. The difference
of both fractions, block by block, is a series; its mean is compared with Student's t, by the same cosines that give the
effective sample size of a percentile (eval/stats/intervals.py), so blocks may be alike for as long as a third of the
run. Nothing is assumed of latency, and a failure may count as infinite. Where the targets were restarted in the run,
the variance is that between their instances.

Paired: in each round of a run two targets are sent the same images within seconds, so what slows the machine slows
both, and the series is that of the rounds' differences. Two runs are not paired: the variances of both series add up.

`make interval-coverage` measures how often the intervals hold the true ratio, with targets that are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
import scipy

from eval.stats.intervals import CONFIDENCE, N_COSINES, instance_numbers, mean_variance, nearest_rank

EQUIVALENCE_MARGIN = 0.05  # of a ratio: within it two latencies are called equivalent
BLOCKS_PER_COSINE = 3  # at least, or the shortest period is not longer than the blocks
MIN_BLOCKS = 2
MAX_LOG_RATIO = math.log(20)  # beyond it an interval has no end
BISECTIONS = 14  # of that range: an end is found to 0.04%

LatenciesByBlock = Mapping[int, Sequence[float]]  # block, or round -> its latencies in ms
InstanceByBlock = Mapping[int, Hashable]  # block, or round -> the instance that responded


class Decision(StrEnum):
    """What an interval says of a difference."""

    EQUIVALENT = "equivalent"  # all of it lies within the margin
    DIFFERENT = "different"  # it lies on one side of no difference, and not all of it within the margin
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class QuantileRatio:
    """The percentile of b divided by that of a."""

    ratio: float  # 1 if both are infinite
    low: float  # 95% interval; 0 where it has no end
    high: float  # infinite where it has none
    p: float  # of equal percentiles, two-sided
    blocks: int  # of the sample that has fewer

    @property
    def decision(self) -> Decision:
        return decide(self.low, self.high, 1 / (1 + EQUIVALENCE_MARGIN), 1 + EQUIVALENCE_MARGIN, none=1)


def decide(low: float, high: float, margin_low: float, margin_high: float, none: float = 0) -> Decision:
    """What an interval says; `none` is the value of no difference."""
    if margin_low <= low and high <= margin_high:
        return Decision.EQUIVALENT
    return Decision.UNDECIDED if low <= none <= high else Decision.DIFFERENT


@dataclass(frozen=True)
class _Blocks:
    """Latencies in ms of all blocks, one after the other, and where each block starts."""

    latency_ms: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, latencies_by_block: LatenciesByBlock, blocks: Sequence[int]) -> _Blocks:
        values = [np.asarray(latencies_by_block[block], float) for block in blocks]
        return cls(np.concatenate(values), np.cumsum([0, *map(len, values[:-1])]))

    def series(self, above: np.ndarray) -> np.ndarray:
        """How many of each block are above, relative to the mean size of a block. Its mean is their fraction."""
        return np.add.reduceat(above, self.starts, dtype=float) * (len(self.starts) / len(above))


def quantile_ratio(
    a: LatenciesByBlock,
    b: LatenciesByBlock,
    p: float,
    *,
    paired: bool,
    instances: tuple[InstanceByBlock, InstanceByBlock] = ({}, {}),
) -> QuantileRatio | None:
    """The ratio of the p-quantiles of b and a, in ms, in chronological order of their blocks.

    paired: block by block, in the blocks that both have. None where there are fewer than two. instances: of a and b.
    """
    common = sorted(set(a) & set(b)) if paired else []
    blocks_a, blocks_b = (common, common) if paired else (sorted(a), sorted(b))
    n_blocks = min(len(blocks_a), len(blocks_b))
    if n_blocks < MIN_BLOCKS:
        return None
    first, second = _Blocks.of(a, blocks_a), _Blocks.of(b, blocks_b)
    n_cosines = min(N_COSINES, max(1, n_blocks // BLOCKS_PER_COSINE))
    instances_a, instances_b = (
        [of.get(n) for n in blocks] for of, blocks in zip(instances, (blocks_a, blocks_b), strict=True)
    )
    numbers = (
        [instance_numbers(zip(instances_a, instances_b, strict=True))]  # of a pair, either of which may be new
        if paired
        else [instance_numbers(instances_a), instance_numbers(instances_b)]
    )
    resolution = 1 / min(len(first.latency_ms), len(second.latency_ms))  # of a fraction

    def difference(log_ratio: float) -> tuple[float, float, int]:
        """Of the fractions above the common percentile, if that were the ratio; its standard error, and that one's
        degrees of freedom."""
        scaled = first.latency_ms * math.exp(log_ratio)
        both = np.concatenate([scaled, second.latency_ms])
        quantile = np.partition(both, rank := max(0, math.ceil(round(p * len(both), 9)) - 1))[rank]
        above_a, above_b = first.series(_above(scaled, quantile)), second.series(_above(second.latency_ms, quantile))
        series = [above_b - above_a] if paired else [above_a, above_b]
        variances, degrees_of_freedom = zip(
            *(mean_variance(s, n, n_cosines) for s, n in zip(series, numbers, strict=True)), strict=True
        )
        return float(above_b.mean() - above_a.mean()), math.sqrt(sum(variances)), min(degrees_of_freedom)

    def accepts(log_ratio: float) -> bool:
        value, standard_error, degrees_of_freedom = difference(log_ratio)
        return abs(value) <= _t_limit(degrees_of_freedom) * standard_error + resolution

    quantile_a, quantile_b = (nearest_rank(np.sort(side.latency_ms), p) for side in (first, second))
    ratio = _ratio(quantile_a, quantile_b)
    log_ratio = max(-MAX_LOG_RATIO, min(MAX_LOG_RATIO, math.log(ratio) if ratio > 0 else -math.inf))
    low, high = (_last_accepted(accepts, log_ratio, end) for end in (-MAX_LOG_RATIO, MAX_LOG_RATIO))
    value, standard_error, degrees_of_freedom = difference(0.0)
    p_value = float(not value)
    if standard_error:
        p_value = 2 * float(scipy.stats.t.sf(abs(value) / standard_error, degrees_of_freedom))
    return QuantileRatio(
        ratio,
        0.0 if low <= -MAX_LOG_RATIO else math.exp(low),
        math.inf if high >= MAX_LOG_RATIO else math.exp(high),
        p_value,
        n_blocks,
    )


@cache
def _t_limit(degrees_of_freedom: int) -> float:
    """Of Student's t, two-sided."""
    return float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom))


def _above(values: np.ndarray, limit: float) -> np.ndarray:
    """1 for each value above the limit; half for one that is equal, as latencies are rounded."""
    return (values > limit) + 0.5 * (values == limit)


def _ratio(a: float, b: float) -> float:
    if a == b:  # infinite ones too
        return 1.0
    return math.inf if a == 0 or math.isinf(b) else b / a


def _last_accepted(accepts: Callable[[float], bool], inside: float, end: float) -> float:
    """How far from `inside` towards `end` values are accepted."""
    if accepts(end):
        return end
    outside = end
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if accepts(middle) else (inside, middle)
    return inside
