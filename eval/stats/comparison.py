"""The ratio of a percentile or mean in two samples, with its 95% interval, and what that says in one of three words.

The interval holds every ratio that the samples do not contradict. If the true ratio were r, then a's latencies times r
and b's would have the same percentile, and in the mean of all blocks as many of either would exceed it. The difference
of both fractions, block by block, is a series; its mean is compared with Student's t, by the same cosines that give the
effective sample size of a percentile (eval/stats/intervals.py), so blocks may be alike for as long as a third of the
run. Nothing is assumed of latency, and a failure may count as infinite. Where the targets were restarted in the run,
the variance is that between their instances.

Paired: in each round of a run two targets are sent the same images within seconds, so what slows the machine slows
both, and the series is that of the rounds' differences. Two runs are not paired: the variances of both series add up,
and a machine that is slower in one of them is part of the ratio. By how much a target changed against another one is
the ratio of two paired ratios, one from each run, of which the machine is no part (`ratio_of_ratios`).

`make interval-coverage` measures how often the intervals hold the true ratio, with targets that are equal;
`python -m scripts.benchmarks.compare_aa` how often two runs of the same are called different.
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

ValuesByBlock = Mapping[int, Sequence[float]]  # block, or round -> its values, such as latencies in ms
InstanceByBlock = Mapping[int, Hashable]  # block, or round -> the instance that responded


class Decision(StrEnum):
    """What an interval says of a difference."""

    EQUIVALENT = "equivalent"  # all of it lies within the margin
    DIFFERENT = "different"  # it lies on one side of no difference, and not all of it within the margin
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Ratio:
    """A figure of b divided by that of a."""

    ratio: float  # 1 if both are infinite
    low: float  # 95% interval; 0 where it has no end
    high: float  # infinite where it has none
    p: float  # of equal figures, two-sided
    blocks: int  # of the sample that has fewer
    degrees_of_freedom: float  # of Student's t

    @property
    def decision(self) -> Decision:
        return decide(self.low, self.high, 1 / (1 + EQUIVALENCE_MARGIN), 1 + EQUIVALENCE_MARGIN, none=1)

    def p_of(self, true_ratio: float) -> float:
        """The two-sided p-value of another true ratio than 1: below 5% for those that the interval leaves out."""
        distance = math.log(self.ratio / true_ratio)
        if not distance:
            return 1.0
        margin = _log(self.ratio) - _log(self.low) if distance > 0 else _log(self.high) - _log(self.ratio)
        return _p_of_distance(abs(distance), margin, self.degrees_of_freedom)


def decide(low: float, high: float, margin_low: float, margin_high: float, none: float = 0) -> Decision:
    """What an interval says; `none` is the value of no difference."""
    if margin_low <= low and high <= margin_high:
        return Decision.EQUIVALENT
    return Decision.UNDECIDED if low <= none <= high else Decision.DIFFERENT


@dataclass(frozen=True)
class _Blocks:
    """The values of all blocks, one after the other, and where each block starts."""

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, values_by_block: ValuesByBlock, blocks: Sequence[int]) -> _Blocks:
        values = [np.asarray(values_by_block[block], float) for block in blocks]
        return cls(np.concatenate(values), np.cumsum([0, *map(len, values[:-1])]))

    def series(self, values: np.ndarray) -> np.ndarray:
        """The sum of each block's values, relative to the mean size of a block. Its mean is that of all values."""
        return np.add.reduceat(values, self.starts, dtype=float) * (len(self.starts) / len(values))


@dataclass(frozen=True)
class _TwoSamples:
    """Two samples in blocks, and how the difference of two means over them is tested."""

    a: _Blocks
    b: _Blocks
    n_blocks: int  # of the one that has fewer
    paired: bool
    instances: tuple[np.ndarray | None, ...]  # of the pair, or of both

    @classmethod
    def of(
        cls, a: ValuesByBlock, b: ValuesByBlock, *, paired: bool, instances: tuple[InstanceByBlock, InstanceByBlock]
    ) -> _TwoSamples | None:
        """None where there are fewer than two blocks."""
        common = sorted(set(a) & set(b)) if paired else []
        blocks_a, blocks_b = (common, common) if paired else (sorted(a), sorted(b))
        n_blocks = min(len(blocks_a), len(blocks_b))
        if n_blocks < MIN_BLOCKS:
            return None
        instances_a, instances_b = (
            [of.get(n) for n in blocks] for of, blocks in zip(instances, (blocks_a, blocks_b), strict=True)
        )
        numbers = (
            (instance_numbers(zip(instances_a, instances_b, strict=True)),)  # of a pair, either of which may be new
            if paired
            else (instance_numbers(instances_a), instance_numbers(instances_b))
        )
        return cls(_Blocks.of(a, blocks_a), _Blocks.of(b, blocks_b), n_blocks, paired, numbers)

    def mean_difference(self, values_a: np.ndarray, values_b: np.ndarray) -> tuple[float, float, int]:
        """The mean of b's values less that of a's, its standard error, and that one's degrees of freedom."""
        series_a, series_b = self.a.series(values_a), self.b.series(values_b)
        n_cosines = min(N_COSINES, max(1, self.n_blocks // BLOCKS_PER_COSINE))
        series = [series_b - series_a] if self.paired else [series_a, series_b]
        variances, degrees_of_freedom = zip(
            *(mean_variance(s, n, n_cosines) for s, n in zip(series, self.instances, strict=True)), strict=True
        )
        return float(series_b.mean() - series_a.mean()), math.sqrt(sum(variances)), min(degrees_of_freedom)


def quantile_ratio(
    a: ValuesByBlock,
    b: ValuesByBlock,
    p: float,
    *,
    paired: bool,
    instances: tuple[InstanceByBlock, InstanceByBlock] = ({}, {}),
) -> Ratio | None:
    """The ratio of the p-quantiles of b and a, in chronological order of their blocks.

    paired: block by block, in the blocks that both have. None where there are fewer than two. instances: of a and b.
    """
    samples = _TwoSamples.of(a, b, paired=paired, instances=instances)
    if samples is None:
        return None
    values_a, values_b = samples.a.values, samples.b.values
    resolution = 1 / min(len(values_a), len(values_b))  # of a fraction

    def difference(log_ratio: float) -> tuple[float, float, int]:
        """Of the fractions above the common percentile, if that were the ratio; its standard error, and that one's
        degrees of freedom."""
        scaled = values_a * math.exp(log_ratio)
        both = np.concatenate([scaled, values_b])
        quantile = np.partition(both, rank := max(0, math.ceil(round(p * len(both), 9)) - 1))[rank]
        return samples.mean_difference(_above(scaled, quantile), _above(values_b, quantile))

    def accepts(log_ratio: float) -> bool:
        value, standard_error, degrees_of_freedom = difference(log_ratio)
        return abs(value) <= _t_limit(degrees_of_freedom) * standard_error + resolution

    ratio = _ratio(*(nearest_rank(np.sort(values), p) for values in (values_a, values_b)))
    log_ratio = max(-MAX_LOG_RATIO, min(MAX_LOG_RATIO, _log(ratio)))
    low, high = (_last_accepted(accepts, log_ratio, end) for end in (-MAX_LOG_RATIO, MAX_LOG_RATIO))
    value, standard_error, degrees_of_freedom = difference(0.0)
    return Ratio(
        ratio,
        0.0 if low <= -MAX_LOG_RATIO else math.exp(low),
        math.inf if high >= MAX_LOG_RATIO else math.exp(high),
        _p_of_difference(value, standard_error, degrees_of_freedom),
        samples.n_blocks,
        degrees_of_freedom,
    )


def mean_ratio(
    a: ValuesByBlock,
    b: ValuesByBlock,
    *,
    paired: bool,
    instances: tuple[InstanceByBlock, InstanceByBlock] = ({}, {}),
) -> Ratio | None:
    """The ratio of the means of b and a, as `quantile_ratio`. None also where one is 0."""
    samples = _TwoSamples.of(a, b, paired=paired, instances=instances)
    if samples is None:
        return None
    mean_a, mean_b = float(samples.a.values.mean()), float(samples.b.values.mean())
    if not (mean_a and mean_b):
        return None
    log_ratio = math.log(mean_b / mean_a)
    _, standard_error, degrees_of_freedom = samples.mean_difference(
        samples.a.values / mean_a, samples.b.values / mean_b
    )
    margin = _t_limit(degrees_of_freedom) * standard_error
    low, high = math.exp(log_ratio - margin), math.exp(log_ratio + margin)
    p_value = _p_of_difference(log_ratio, standard_error, degrees_of_freedom)
    return Ratio(mean_b / mean_a, low, high, p_value, samples.n_blocks, degrees_of_freedom)


def fraction_difference_p(a: ValuesByBlock, b: ValuesByBlock) -> float | None:
    """The two-sided p-value of equal fractions in two runs, of values that are 0 or 1; None with fewer than two blocks.

    What comes in a row, such as the failures of one outage, shows little of how often it comes.
    """
    samples = _TwoSamples.of(a, b, paired=False, instances=({}, {}))
    return samples and _p_of_difference(*samples.mean_difference(samples.a.values, samples.b.values))


def mean_margin(values_by_block: ValuesByBlock, confidence: float) -> float:
    """How far the mean of two or more blocks may be from the true one, with that confidence on either side.

    What comes in a row, such as the failures of one outage, shows little of how often it comes.
    """
    blocks = sorted(values_by_block)
    of = _Blocks.of(values_by_block, blocks)
    n_cosines = min(N_COSINES, max(1, len(blocks) // BLOCKS_PER_COSINE))
    variance, degrees_of_freedom = mean_variance(of.series(of.values), None, n_cosines)
    return float(scipy.stats.t.ppf(confidence, degrees_of_freedom)) * math.sqrt(variance)


def ratio_of_ratios(a: Ratio, b: Ratio, extra_sd: float = 0.0) -> Ratio:
    """b's ratio divided by a's, of two runs: by how much something changed against another thing.

    On a logarithmic scale the variances add up that the distances to both intervals' ends stand for (MOVER: Zou and
    Donner, Statistics in Medicine 27, 2008), with the degrees of freedom of Satterthwaite. extra_sd: standard deviation
    of the logarithm that neither interval has.
    """
    log_a, log_b = _log(a.ratio), _log(b.ratio)
    log_ratio = log_b - log_a
    down = [(log_b - _log(b.low), b.degrees_of_freedom), (_log(a.high) - log_a, a.degrees_of_freedom)]
    up = [(_log(b.high) - log_b, b.degrees_of_freedom), (log_a - _log(a.low), a.degrees_of_freedom)]
    (down_se, down_df), (up_se, up_df) = (_sum_of_variances(margins, extra_sd) for margins in (down, up))
    degrees_of_freedom = min(down_df, up_df)
    limit = _t_limit(degrees_of_freedom)
    return Ratio(
        math.exp(log_ratio),
        math.exp(log_ratio - limit * down_se),
        math.exp(log_ratio + limit * up_se),
        _p_of_difference(abs(log_ratio), down_se if log_ratio > 0 else up_se, degrees_of_freedom),
        min(a.blocks, b.blocks),
        degrees_of_freedom,
    )


def _sum_of_variances(margins: Sequence[tuple[float, float]], extra_sd: float) -> tuple[float, float]:
    """The standard error of a sum of which these are the margins, each with its degrees of freedom; and its own."""
    variances = [((margin / _t_limit(df)) ** 2, df) for margin, df in margins]
    total = sum(variance for variance, _ in variances) + extra_sd**2
    least = min(df for _, df in variances)
    if not total or math.isinf(total):
        return math.sqrt(total), least
    return math.sqrt(total), max(least, total**2 / max(1e-300, sum(v**2 / df for v, df in variances)))


def relative_change(a: float, b: float) -> float:
    """The change from a to b relative to a; 0 if both are infinite."""
    if a == b:
        return 0.0
    return -1.0 if math.isinf(a) else math.inf if a == 0 else b / a - 1


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _p_of_difference(value: float, standard_error: float, degrees_of_freedom: float) -> float:
    if not standard_error:
        return float(not value)
    return 2 * float(scipy.stats.t.sf(abs(value) / standard_error, degrees_of_freedom))


def _p_of_distance(distance: float, margin: float, degrees_of_freedom: float) -> float:
    """Of an estimate so far from what is tested, whose interval reaches as far as the margin in that direction."""
    return _p_of_difference(distance, margin / _t_limit(degrees_of_freedom), degrees_of_freedom)


@cache
def _t_limit(degrees_of_freedom: float) -> float:
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
