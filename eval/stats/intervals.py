"""Estimates with their 95% confidence intervals, or the reason why the sample is too small for one.

A percentile's interval consists of two samples. Which ones follows from how well the run knows the fraction of requests
above the percentile. Requests of one moment are alike, on a machine that is slow now and fast later, so n of them know
less than n independent ones: the effective sample size comes from how that fraction moves in the course of the run
(`effective_sample_size`), and the interval is Clopper and Pearson's for so many. Survey statistics treats clusters in
the same way (Korn and Graubard 1998). It needs no model of latency. Every percentile of a report has this interval.

A service that is restarted is a new instance, which may be faster or slower for as long as it runs. Where a run has
five or more, their means are the series that moves (`mean_variance`), so an interval is about the target, not about the
one instance that happened to be measured.

`make interval-coverage` measures how often the intervals hold the true value, with independent requests, blocks that
differ, a machine that drifts, and instances that differ.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts on first use: scipy.stats alone takes a second

from eval.codes import Reason, ReasonCode, reason

CONFIDENCE = 0.95
TAIL_PROBABILITY = (1 - CONFIDENCE) / 2  # on either side
N_COSINES = 6  # low frequencies, from periods of the whole run to a third of it, that the effective sample size counts
MIN_N_FOR_DEPENDENCE = 20  # samples; with fewer, dependence cannot be seen, and they count as independent
MIN_INSTANCES = 5  # from which on the variance between them is estimated
MAX_EFFECTIVE_PER_SAMPLE = 4  # independent samples of which some run looks like more than it has, by chance
PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
EARLY_STOPPING_CONFIDENCE = 0.99  # of MLPerf's one-sided bound: below the true percentile in at most 1% of runs


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None  # how many samples it stands on
    reason: Reason | None = None  # why `value` is None
    high_is_max: bool = False  # the upper end is the largest sample: the true value may lie above it


def min_sample_size(p: float) -> int:
    """The smallest sample size whose order statistics bound the p-quantile on both sides."""
    return math.ceil(math.log(TAIL_PROBABILITY) / math.log(max(p, 1 - p)))


def ci_ranks(p: float, n: int, tail_probability: float = TAIL_PROBABILITY) -> tuple[int, int]:
    """Ranks (from 1) of two samples that bound the p-quantile, each with at most `tail_probability` of error."""
    low, high = scipy.stats.binom.ppf([tail_probability, 1 - tail_probability], n, p)
    return int(low), int(high) + 1


def effective_sample_size(above: np.ndarray, variance: float | None = None) -> float:
    """How many independent samples know the fraction of `above` as well as these do.

    above: whether each sample exceeds some threshold, in chronological order. variance: of that fraction.
    """
    n, fraction = len(above), float(np.mean(above))
    independent_variance = fraction * (1 - fraction) / n
    variance = cosine_variance(above) if variance is None else variance
    if variance * MAX_EFFECTIVE_PER_SAMPLE <= independent_variance:
        return float(n * MAX_EFFECTIVE_PER_SAMPLE)
    return max(1.0, n * independent_variance / variance)


def cosine_variance(series: np.ndarray, n_cosines: int = N_COSINES) -> float:
    """The variance of the mean of a series, whose values depend on each other.

    It is the mean square of projections on cosines, each of which has that variance as its expected value if values
    depend on each other over less than the shortest period. Source: the equal-weighted cosine estimator, Lazarus,
    Lewis, Stock and Watson, "HAR inference: recommendations for practice" (2018).
    """
    coefficients = scipy.fft.dct(series - np.mean(series))[1 : n_cosines + 1]
    return float(np.mean(np.square(coefficients))) / (2 * len(series) ** 2)


def instance_numbers(instances: Iterable[Hashable]) -> np.ndarray | None:
    """Numbers of the instances of a series, in the order in which they first appear; None where they are too few.

    A value without an instance (None), such as a failed request, counts to the one before it.
    """
    numbers: dict[Hashable, int] = {}
    series, current = [], 0
    for instance in instances:
        current = current if instance is None else numbers.setdefault(instance, len(numbers))
        series.append(current)
    return np.array(series) if len(numbers) >= MIN_INSTANCES else None


def numbered_instances(instances: np.ndarray) -> np.ndarray | None:
    """The same of a series of numbers, of which a negative one is no instance."""
    known = np.flatnonzero(instances >= 0)
    if not len(known):
        return None
    latest = np.maximum.accumulate(np.where(instances >= 0, np.arange(len(instances)), known[0]))
    ids, first, inverse = np.unique(instances[latest], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[inverse] if len(ids) >= MIN_INSTANCES else None


def mean_variance(
    series: np.ndarray, instances: np.ndarray | None = None, n_cosines: int = N_COSINES
) -> tuple[float, int]:
    """The variance of the mean of a series whose instances differ, and its degrees of freedom.

    The low frequencies of the series do not show all of what differs between five or six instances; those of the
    instances' means do. Instances that respond in turn, as of a platform that has scaled out, are no series in time:
    then the larger variance counts, that over time or that between instances.
    """
    over_time = cosine_variance(series, n_cosines), n_cosines
    if instances is None:
        return over_time
    n_instances = int(instances.max()) + 1
    sums = np.bincount(instances, series - np.mean(series), n_instances)
    degrees_of_freedom = min(n_cosines, n_instances - 1)
    between = cosine_variance(sums * (n_instances / len(series)), degrees_of_freedom), degrees_of_freedom
    one_after_the_other = bool(np.all(np.diff(instances) >= 0))
    return between if one_after_the_other else max(over_time, between)


def interval_indices(
    chronological: np.ndarray,
    ordered: np.ndarray,
    p: float,
    tail_probability: float = TAIL_PROBABILITY,
    instances: np.ndarray | None = None,
) -> tuple[int, int]:
    """Indices into `ordered` of the two samples that bound the p-quantile, each with `tail_probability` of error.

    The upper one is len(ordered) where the true value may lie above the largest sample. instances: as of
    `instance_numbers`.
    """
    n = len(ordered)
    if n < MIN_N_FOR_DEPENDENCE:
        low, high = ci_ranks(p, n, tail_probability)
        return max(0, low - 1), high - 1
    effective_n = _t_adjusted_n(chronological > nearest_rank(ordered, p), tail_probability, instances)
    low = scipy.stats.beta.ppf(tail_probability, effective_n * p, effective_n * (1 - p) + 1)
    high = scipy.stats.beta.ppf(1 - tail_probability, effective_n * p + 1, effective_n * (1 - p))
    return max(0, math.ceil(low * n) - 1), math.ceil(high * n)


def _t_adjusted_n(above: np.ndarray, tail_probability: float, instances: np.ndarray | None) -> float:
    """The effective sample size, and so many fewer as Student's t asks for in place of the normal."""
    variance, degrees_of_freedom = mean_variance(above, instances)
    t_limit = scipy.stats.t.ppf(tail_probability, degrees_of_freedom)
    return effective_sample_size(above, variance) * (scipy.stats.norm.ppf(tail_probability) / t_limit) ** 2


def nearest_rank(ordered: Sequence[float] | np.ndarray, p: float) -> float:
    """The smallest sample that at least a fraction p of all samples does not exceed. Works with infinities too."""
    return float(ordered[max(0, math.ceil(round(p * len(ordered), 9)) - 1)])


def percentile(chronological: Sequence[float] | np.ndarray, p: float, instances: np.ndarray | None = None) -> Estimate:
    """The p-quantile of samples in the order in which they were sent. An infinite one stands for a failed request.

    instances: those that responded, as of `instance_numbers`.
    """
    n = len(chronological)
    if n < min_sample_size(p):
        return Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=min_sample_size(p), n=n))
    values = np.asarray(chronological, float)
    ordered = np.sort(values)
    low, high = interval_indices(values, ordered, p, instances=instances)
    value, upper = nearest_rank(ordered, p), float(ordered[min(high, n - 1)])
    if math.isinf(upper):
        code = ReasonCode.INFINITE if math.isinf(value) else ReasonCode.UPPER_BOUND_INFINITE
        return Estimate(None, reason=_infinite(code, ordered))
    return Estimate(value, float(ordered[low]), upper, n, high_is_max=high >= n - 1)


def percentiles(
    chronological: Sequence[float] | np.ndarray, instances: np.ndarray | None = None
) -> dict[str, Estimate]:
    """p50, p90, p95 and p99."""
    return {name: percentile(chronological, p, instances) for name, p in PERCENTILES.items()}


def early_stopping_min_n(p: float, n_above: int = 1) -> int:
    """The smallest sample size that allows `n_above` samples above a bound on the p-quantile: MLPerf's early stopping.

    The rule (mlcommons/inference_policies): the smallest h with I_p(h, n_above + 1) <= 1 - 0.99, plus n_above. I_p is
    the probability of at least h samples below the quantile before n_above + 1 are above it: negative binomial.
    """
    return int(scipy.stats.nbinom.ppf(EARLY_STOPPING_CONFIDENCE, n_above + 1, 1 - p)) + 1 + n_above


def early_stopping_bound(
    chronological: Sequence[float] | np.ndarray, p: float, instances: np.ndarray | None = None
) -> Estimate:
    """A bound that the p-quantile exceeds in at most 1% of runs, or why there is none.

    MLPerf's rule for as many independent samples as these are worth: the bound is the smallest of the largest samples
    of which as many as allowed lie above it.
    """
    n, needed = len(chronological), early_stopping_min_n(p)
    values = np.asarray(chronological, float)
    ordered = np.sort(values)
    if n < needed:
        return Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=needed, n=n))
    tail_probability = 1 - EARLY_STOPPING_CONFIDENCE
    effective_n = min(n, int(_t_adjusted_n(values > nearest_rank(ordered, p), tail_probability, instances)))
    if effective_n < needed:
        return Estimate(
            None, reason=reason(ReasonCode.TOO_FEW_EFFECTIVE_SAMPLES, needed=needed, effective_n=effective_n, n=n)
        )
    n_above = int(scipy.stats.binom.ppf(1 - EARLY_STOPPING_CONFIDENCE, effective_n, 1 - p))
    while early_stopping_min_n(p, n_above) > effective_n:
        n_above -= 1
    bound = float(ordered[n - max(1, n_above * n // effective_n)])
    if math.isinf(bound):
        return Estimate(None, reason=_infinite(ReasonCode.INFINITE, ordered))
    return Estimate(bound, n=n)


def early_stopping_bounds(
    chronological: Sequence[float] | np.ndarray, instances: np.ndarray | None = None
) -> dict[str, Estimate]:
    """The bounds of p50, p90, p95 and p99."""
    return {name: early_stopping_bound(chronological, p, instances) for name, p in PERCENTILES.items()}


def tail_ratio(chronological: Sequence[float] | np.ndarray, instances: np.ndarray | None = None) -> Estimate:
    """p99 over p50: how much slower the tail is than the median.

    Its interval is conservative: p50 and p99 each lie between their bounds in 97.5% of runs, so both do in at least
    95%, and the ratio lies between the extreme ratios of the bounds.
    """
    n, tail_probability = len(chronological), TAIL_PROBABILITY / 2
    min_n = math.ceil(math.log(tail_probability) / math.log(0.99))
    if n < min_n:
        return Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=min_n, n=n))
    values = np.asarray(chronological, float)
    ordered = np.sort(values)
    (low50, high50), (low99, high99) = (
        interval_indices(values, ordered, p, tail_probability, instances) for p in (0.5, 0.99)
    )
    low50_ms, high50_ms, low99_ms, high99_ms = ordered[[low50, min(high50, n - 1), low99, min(high99, n - 1)]]
    if math.isinf(high99_ms):
        return Estimate(None, reason=_infinite(ReasonCode.P99_UPPER_BOUND_INFINITE, ordered))
    if low50_ms <= 0:
        return Estimate(None, reason=reason(ReasonCode.MEDIAN_MAY_BE_ZERO))
    ratio = nearest_rank(ordered, 0.99) / nearest_rank(ordered, 0.5)
    return Estimate(ratio, float(low99_ms / high50_ms), float(high99_ms / low50_ms), n, high_is_max=high99 >= n - 1)


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): any false positive at 5% in at most 5% of cases."""
    adjusted, running_max = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running_max = max(running_max, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running_max
    return adjusted


def proportion(successes: int, n: int, none_code: ReasonCode = ReasonCode.NO_SAMPLES) -> Estimate:
    """A fraction with its Wilson interval. `none_code` says what is missing where n is 0."""
    if n == 0:
        return Estimate(None, reason=reason(none_code))
    interval = scipy.stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def _infinite(code: ReasonCode, ordered: np.ndarray) -> Reason:
    return reason(code, failed=int(np.isinf(ordered).sum()), n=len(ordered))
