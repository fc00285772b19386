"""Intervals are those of the textbook, and are missing where the sample is too small."""

import math

import numpy as np
import pytest
from scipy.special import betainc

from eval.codes import ReasonCode, reason
from eval.stats.intervals import (
    Estimate,
    ci_ranks,
    early_stopping_bound,
    early_stopping_bounds,
    early_stopping_min_n,
    effective_sample_size,
    holm_adjust,
    instance_numbers,
    min_sample_size,
    nearest_rank,
    percentile,
    percentiles,
    proportion,
    tail_ratio,
)


@pytest.mark.parametrize(("p", "n"), [(0.50, 6), (0.90, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_an_interval_exists_from_a_known_sample_size_on(p, n):
    assert min_sample_size(p) == n
    assert ci_ranks(p, n)[0] >= 1
    assert ci_ranks(p, n)[1] <= n
    assert not (ci_ranks(p, n - 1)[0] >= 1 and ci_ranks(p, n - 1)[1] <= n - 1)


@pytest.mark.parametrize(
    ("n", "low", "high"), [(1000, 983, 997), (2000, 1971, 1989), (10_000, 9880, 9920)], ids=lambda value: str(value)
)
def test_ranks_around_the_99th_percentile(n, low, high):
    assert ci_ranks(0.99, n) == (low, high)


def test_percentile_has_value_interval_and_sample_size():
    found = percentile(np.random.default_rng(4).permutation(np.arange(1.0, 1001.0)), 0.95)
    assert (found.value, found.n, found.high_is_max) == (950.0, 1000, False)
    assert 925 < found.low < 945 and 955 < found.high < 975  # binomial alone: 936 to 964


def test_upper_end_that_is_the_largest_sample_is_marked():
    found = percentile([float(x) for x in range(1000)], 0.99)  # slower and slower: it knows little of its tail
    assert (found.high, found.high_is_max) == (999.0, True)


def test_independent_samples_are_worth_as_many():
    rng = np.random.default_rng(8)
    sizes = [effective_sample_size(rng.random(2000) < 0.05) for _ in range(300)]
    assert np.mean([2000 / size for size in sizes]) == pytest.approx(1, abs=0.1)


def test_samples_that_repeat_are_worth_one_each():
    rng = np.random.default_rng(9)
    sizes = [effective_sample_size(np.repeat(rng.random(200) < 0.3, 10)) for _ in range(300)]
    assert np.mean([2000 / size for size in sizes]) == pytest.approx(10, rel=0.1)


def test_a_fraction_of_all_or_none_has_the_largest_size():
    assert effective_sample_size(np.zeros(100, bool)) == effective_sample_size(np.ones(100, bool)) == 400


def test_too_small_a_sample_has_no_percentile_but_a_reason():
    assert percentile([1.0] * 40, 0.95).reason == reason(ReasonCode.TOO_FEW_SAMPLES, needed=72, n=40)
    assert percentile([], 0.5).reason == reason(ReasonCode.TOO_FEW_SAMPLES, needed=6, n=0)


def test_each_percentile_has_its_own_floor():
    found = percentiles([1.0] * 72)
    assert [found[p].value for p in ("p50", "p90", "p95", "p99")] == [1.0, 1.0, 1.0, None]


def test_intervals_cover_the_true_percentile_at_their_level():
    rng = np.random.default_rng(1)
    truth = math.log(20)  # the 95th percentile of an exponential
    found = [percentile(rng.exponential(size=400).tolist(), 0.95) for _ in range(400)]
    assert sum(e.low <= truth <= e.high for e in found) / 400 > 0.93


def test_infinite_percentile_is_missing_with_the_failure_count():
    found = percentile([1.0] * 90 + [math.inf] * 10, 0.95)
    assert found.reason == reason(ReasonCode.INFINITE, failed=10, n=100)


def test_a_percentile_whose_interval_is_infinite_is_missing_too():
    found = percentile([1.0] * 98 + [math.inf] * 2, 0.95)
    assert found.reason == reason(ReasonCode.UPPER_BOUND_INFINITE, failed=2, n=100)


def test_few_failures_leave_the_median():
    assert percentile([1.0] * 98 + [math.inf] * 2, 0.5).value == 1.0


@pytest.mark.parametrize(
    ("n", "p", "rank"), [(10, 0.9, 9), (20, 0.95, 19), (100, 0.99, 99), (5, 0.5, 3), (1, 0.99, 1), (1000, 0.57, 570)]
)
def test_nearest_rank_is_not_moved_by_rounding(n, p, rank):
    assert nearest_rank(list(range(1, n + 1)), p) == rank


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (9500, 10_000, 0.9456, 0.9541),
        (1900, 2000, 0.9396, 0.9587),
        (950, 1000, 0.9347, 0.9619),
        (190, 200, 0.9104, 0.9726),
        (9302, 10_000, 0.9250, 0.9350),
    ],
)
def test_wilson_intervals(right, n, low, high):
    found = proportion(right, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_a_share_of_nothing_is_missing():
    assert proportion(0, 0, ReasonCode.NO_RESPONSES).reason == reason(ReasonCode.NO_RESPONSES)


def test_dependence_widens_the_interval():
    rng = np.random.default_rng(9)
    values = rng.lognormal(3, 0.3, 2000)
    alike = values * np.repeat(rng.lognormal(0, 0.3, 20), 100)
    wide, narrow = (percentile(samples, 0.95) for samples in (alike, rng.permutation(alike)))
    assert wide.value == narrow.value and wide.low < narrow.low and wide.high > narrow.high


def held_with_instances(assign, runs=200):
    """In how many runs the interval of p50 holds 1, told of the instances and not; each has a level of its own."""
    rng, told, untold = np.random.default_rng(11), 0, 0
    for _ in range(runs):
        of = assign(rng)
        values = rng.lognormal(0, 0.05, len(of)) * rng.lognormal(0, 0.03, of.max() + 1)[of]
        told += holds(percentile(values, 0.5, instance_numbers(of.tolist())))
        untold += holds(percentile(values, 0.5))
    return told / runs, untold / runs


def holds(found):
    return found.low <= 1 <= found.high


def test_the_variance_between_six_instances_is_in_the_interval():
    told, untold = held_with_instances(lambda rng: np.repeat(np.arange(6), 100))
    assert told >= 0.92 > untold


def test_instances_that_respond_in_turn_are_in_the_interval():
    told, untold = held_with_instances(lambda rng: rng.permutation(np.repeat(np.arange(8), 75)))
    assert told >= 0.92 and untold < 0.6


def test_fewer_than_five_instances_do_not_tell_their_variance():
    assert instance_numbers("aabbccdd") is None
    assert instance_numbers(["b", "a", None, "c", "a", "d", "e"]).tolist() == [0, 1, 1, 2, 1, 3, 4]


def test_few_samples_count_as_independent():
    low, high = ci_ranks(0.5, 12)
    assert percentile([float(x) for x in range(1, 13)], 0.5) == Estimate(6.0, low, high, 12)


# MLPerf's early stopping


@pytest.mark.parametrize(
    ("p", "counts"),
    [
        (0.5, [7, 11, 14]), (0.9, [44, 64, 81]), (0.95, [90, 130, 165]), (0.99, [459, 662, 838]),
        (0.999, [4603, 6636, 8403]),
    ],
)  # fmt: skip
def test_the_counts_are_those_of_mlperf(p, counts):
    assert [early_stopping_min_n(p, over) for over in range(3)] == counts


def test_the_count_is_the_smallest_that_the_rule_allows():
    for over in (0, 1, 5, 40):
        within = early_stopping_min_n(0.97, over) - over
        assert betainc(within, over + 1, 0.97) <= 0.01 < betainc(within - 1, over + 1, 0.97)


def test_a_bound_needs_enough_samples_of_worth():
    values = np.random.default_rng(2).permutation(np.arange(1.0, 3001.0))
    too_few = reason(ReasonCode.TOO_FEW_SAMPLES, needed=662, n=661)
    assert early_stopping_bound(values[:661], 0.99).reason == too_few
    assert 2970 < early_stopping_bound(values, 0.99).value < 3000
    found = early_stopping_bound(np.sort(values), 0.99).reason  # slower and slower
    assert found.code is ReasonCode.TOO_FEW_EFFECTIVE_SAMPLES and found.values["effective_n"] < 100


def test_early_stopping_bound_is_too_low_in_1_of_100_runs():
    dice, truth = np.random.default_rng(3), math.log(20)
    bounds = [early_stopping_bound(dice.exponential(size=2000).tolist(), 0.95).value for _ in range(500)]
    assert sum(bound < truth for bound in bounds) <= 12
    assert np.median(bounds) < math.log(40)  # and it is no wild one


def test_failures_certify_nothing():
    found = early_stopping_bounds(([1.0] * 69 + [math.inf]) * 30)
    assert found["p50"] == Estimate(1.0, n=2100)
    assert found["p99"].reason == reason(ReasonCode.INFINITE, failed=30, n=2100)


# Tail to median


def test_interval_of_the_tail_ratio_covers_the_truth():
    dice, truth = np.random.default_rng(5), math.log(100) / math.log(2)  # of an exponential
    found = [tail_ratio(dice.exponential(size=1000).tolist()) for _ in range(300)]
    assert sum(e.low <= truth <= e.high for e in found) >= 0.95 * 300
    assert np.median([e.high - e.low for e in found]) < 0.8 * truth


def test_tail_ratio_of_few_or_failed_requests_has_a_reason():
    assert tail_ratio([1.0] * 436).reason == reason(ReasonCode.TOO_FEW_SAMPLES, needed=437, n=436)
    assert tail_ratio([1.0] * 437) == Estimate(1.0, 1.0, 1.0, 437, high_is_max=True)
    infinite = reason(ReasonCode.P99_UPPER_BOUND_INFINITE, failed=10, n=500)
    assert tail_ratio([1.0] * 490 + [math.inf] * 10).reason == infinite


# Many tests at once


def test_holm_adjusts_as_in_the_textbook():
    assert holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjust([0.9, 0.8]) == [1.0, 1.0]
    assert holm_adjust([]) == []
