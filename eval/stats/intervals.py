"""Estimates with their 95% confidence intervals, or the reason why the sample is too small for one.

A percentile's interval comes from order statistics: the number of samples below the true percentile is binomial,
whatever the distribution. So it needs no model of latency, and it exists only from a minimum sample size on. Samples
count as independent, or, if given in chronological order, as fewer independent ones. eval/analysis/drift.py tests
whether blocks differ by more than chance; `make interval-coverage` measures how often the intervals contain the true
value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # loads its parts on first use: scipy.stats alone takes a second

from eval.statements import Reason, ReasonCode, reason

CONFIDENCE = 0.95
TAIL_PROBABILITY = (1 - CONFIDENCE) / 2  # on either side
AUTOCORRELATION_LAGS = 10
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


def min_sample_size(p: float) -> int:
    """The smallest sample size whose order statistics bound the p-quantile on both sides."""
    return math.ceil(math.log(TAIL_PROBABILITY) / math.log(max(p, 1 - p)))


def ci_ranks(p: float, n: int, tail_probability: float = TAIL_PROBABILITY) -> tuple[int, int]:
    """Ranks (from 1) of two samples that bound the p-quantile, each with at most `tail_probability` of error."""
    low, high = scipy.stats.binom.ppf([tail_probability, 1 - tail_probability], n, p)
    return int(low), int(high) + 1


@lru_cache(maxsize=4096)
def shortest_ci_ranks(p: float, n: int) -> tuple[int, int]:
    """Ranks of the two closest samples that bound the p-quantile with at least 95% confidence.

    Ranks are whole numbers, so each side of `ci_ranks` uses less than its 2.5%: around p99 of 1,000 samples the
    confidence is 97.5% instead of 95%. What one side does not use goes to the other if that saves a rank; of equally
    close pairs the most symmetric one is taken. The choice does not depend on the data.
    """
    low, high = ci_ranks(p, n)
    candidates = [(low + i, high - j) for i in range(3) for j in range(3) if low + i < high - j]
    tail_probabilities = {
        pair: (scipy.stats.binom.cdf(pair[0] - 1, n, p), scipy.stats.binom.sf(pair[1] - 1, n, p)) for pair in candidates
    }
    covering = [pair for pair in candidates if sum(tail_probabilities[pair]) <= 2 * TAIL_PROBABILITY]
    return min(
        covering,
        key=lambda pair: (pair[1] - pair[0], abs(tail_probabilities[pair][0] - tail_probabilities[pair][1])),
        default=(low, high),
    )


def ci_ranks_autocorrelated(ordered: Sequence[float], chronological: Sequence[float], p: float) -> tuple[int, int]:
    """The same for autocorrelated samples, as from a queue: wider, because they carry less information.

    The effective sample size is n over the integrated autocorrelation time, the longer one of the samples themselves
    and of the indicator of being above the p-quantile. `chronological` has the samples in the order of their scheduled
    times. Without significant autocorrelation the ranks are those of independent samples.
    """
    n = len(ordered)
    quantile = nearest_rank(ordered, p)
    values = np.asarray(chronological, float)
    max_finite = values[np.isfinite(values)].max(initial=0.0)
    series = [values > quantile, np.minimum(values, max_finite)]
    if not any(map(is_autocorrelated, series)):
        return shortest_ci_ranks(p, n)
    effective_n = max(1, round(n / max(map(integrated_autocorrelation_time, series))))
    low, high = scipy.stats.binom.ppf([TAIL_PROBABILITY, 1 - TAIL_PROBABILITY], effective_n, p) / effective_n * n
    return max(1, math.floor(low)), min(n, math.ceil(high) + 1)


def is_autocorrelated(values: Sequence[float] | np.ndarray) -> bool:
    """Whether the sum of the first autocorrelations exceeds that of 95% of independent samples.

    Each autocorrelation of independent samples is about normal with mean 0 and variance 1 / n.
    """
    deviations = np.asarray(values, float) - np.mean(values)
    n, variance = len(deviations), float(np.dot(deviations, deviations))
    if n <= AUTOCORRELATION_LAGS or not variance:
        return False
    autocorrelation_sum = (
        sum(float(np.dot(deviations[lag:], deviations[:-lag])) for lag in range(1, AUTOCORRELATION_LAGS + 1)) / variance
    )
    return bool(autocorrelation_sum > scipy.stats.norm.ppf(CONFIDENCE) * math.sqrt(AUTOCORRELATION_LAGS / n))


def integrated_autocorrelation_time(values: Sequence[float] | np.ndarray) -> float:
    """How many consecutive samples carry the information of one independent sample; 1 if they are independent.

    1 plus twice the sum of the autocorrelations, as long as the sum of two consecutive ones is positive. Source: Geyer,
    "Practical Markov chain Monte Carlo" (1992), the initial positive sequence.
    """
    deviations = np.asarray(values, float) - np.mean(values)
    n, variance = len(deviations), float(np.dot(deviations, deviations))
    if n < 4 or not variance:
        return 1.0
    power_spectrum = np.abs(np.fft.rfft(deviations, 2 * n)) ** 2
    autocorrelation = np.fft.irfft(power_spectrum)[:n] / variance
    pair_sums = autocorrelation[0 : n - 1 : 2] + autocorrelation[1:n:2]
    n_positive = np.argmax(pair_sums <= 0) if (pair_sums <= 0).any() else len(pair_sums)
    return max(1.0, 2 * float(pair_sums[:n_positive].sum()) - 1)


def nearest_rank(ordered: Sequence[float], p: float) -> float:
    """The smallest sample that at least a fraction p of all samples does not exceed. Works with infinities too."""
    return ordered[max(0, math.ceil(round(p * len(ordered), 9)) - 1)]


def percentile(values: Sequence[float], p: float, *, autocorrelated: bool = False) -> Estimate:
    """The p-quantile. An infinite value stands for a failed request.

    autocorrelated: the values are in chronological order and may be autocorrelated.
    """
    n = len(values)
    if n < min_sample_size(p):
        return Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=min_sample_size(p), n=n))
    ordered = sorted(values)
    low, high = ci_ranks_autocorrelated(ordered, values, p) if autocorrelated else shortest_ci_ranks(p, n)
    if math.isinf(ordered[high - 1]):
        code = ReasonCode.INFINITE if math.isinf(nearest_rank(ordered, p)) else ReasonCode.UPPER_BOUND_INFINITE
        return Estimate(None, reason=_infinite(code, ordered))
    return Estimate(nearest_rank(ordered, p), ordered[low - 1], ordered[high - 1], n)


def percentiles(values: Sequence[float], *, autocorrelated: bool = False) -> dict[str, Estimate]:
    """p50, p90, p95 and p99."""
    return {name: percentile(values, p, autocorrelated=autocorrelated) for name, p in PERCENTILES.items()}


def early_stopping_min_n(p: float, n_above: int = 1) -> int:
    """The smallest sample size that allows `n_above` samples above a bound on the p-quantile: MLPerf's early stopping.

    The rule (mlcommons/inference_policies): the smallest h with I_p(h, n_above + 1) <= 1 - 0.99, plus n_above. I_p is
    the probability of at least h samples below the quantile before n_above + 1 are above it: negative binomial.
    """
    return int(scipy.stats.nbinom.ppf(EARLY_STOPPING_CONFIDENCE, n_above + 1, 1 - p)) + 1 + n_above


def early_stopping_bound(values: Sequence[float], p: float) -> Estimate:
    """A bound that the p-quantile exceeds in at most 1% of runs, as MLPerf reports it, or why there is none.

    With the largest allowed number of samples above the bound, the bound is the smallest of that many largest samples.
    """
    n = len(values)
    if n < (min_n := early_stopping_min_n(p)):
        return Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=min_n, n=n))
    n_above = int(scipy.stats.binom.ppf(1 - EARLY_STOPPING_CONFIDENCE, n, 1 - p))
    while early_stopping_min_n(p, n_above) > n:
        n_above -= 1
    ordered = sorted(values)
    bound = ordered[n - n_above]
    if math.isinf(bound):
        return Estimate(None, reason=_infinite(ReasonCode.INFINITE, ordered))
    return Estimate(bound, n=n)


def early_stopping_bounds(values: Sequence[float]) -> dict[str, Estimate]:
    """The bounds of p50, p90, p95 and p99."""
    return {name: early_stopping_bound(values, p) for name, p in PERCENTILES.items()}


def tail_ratio(values: Sequence[float]) -> Estimate:
    """p99 over p50: how much slower the tail is than the median.

    Its interval is from order statistics and conservative: p50 and p99 each lie between their ranks in 97.5% of runs,
    so both do in at least 95%, and the ratio lies between the extreme ratios of the bounds. Nothing is random.
    """
    n, tail_probability = len(values), TAIL_PROBABILITY / 2
    min_n = math.ceil(math.log(tail_probability) / math.log(0.99))
    if n < min_n:
        return Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=min_n, n=n))
    ordered = sorted(values)
    (low50, high50), (low99, high99) = ci_ranks(0.5, n, tail_probability), ci_ranks(0.99, n, tail_probability)
    if math.isinf(ordered[high99 - 1]):
        return Estimate(None, reason=_infinite(ReasonCode.P99_UPPER_BOUND_INFINITE, ordered))
    if ordered[low50 - 1] <= 0:
        return Estimate(None, reason=reason(ReasonCode.MEDIAN_MAY_BE_ZERO))
    ratio = nearest_rank(ordered, 0.99) / nearest_rank(ordered, 0.5)
    return Estimate(ratio, ordered[low99 - 1] / ordered[high50 - 1], ordered[high99 - 1] / ordered[low50 - 1], n)


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


def intervals_overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two estimates cannot be told apart; both need an interval."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        raise ValueError(f"an estimate without an interval cannot be compared: {a}, {b}")
    return a.low <= b.high and b.low <= a.high


def _infinite(code: ReasonCode, ordered: Sequence[float]) -> Reason:
    return reason(code, failed=sum(map(math.isinf, ordered)), n=len(ordered))
