"""Intervals are those of the textbook, and are missing where the sample is too small."""

import math

import numpy as np
import pytest

from eval.stats import least_n, nearest_rank, overlap, percentile, percentiles, proportion, ranks


@pytest.mark.parametrize(("p", "n"), [(0.50, 6), (0.90, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_an_interval_exists_from_a_known_sample_size_on(p, n):
    assert least_n(p) == n
    assert ranks(p, n)[0] >= 1
    assert ranks(p, n)[1] <= n
    assert not (ranks(p, n - 1)[0] >= 1 and ranks(p, n - 1)[1] <= n - 1)


@pytest.mark.parametrize(
    ("n", "low", "high"), [(1000, 983, 997), (2000, 1971, 1989), (10_000, 9880, 9920)], ids=lambda value: str(value)
)
def test_ranks_around_the_99th_percentile(n, low, high):
    assert ranks(0.99, n) == (low, high)


def test_a_percentile_has_its_value_its_interval_and_its_sample_size():
    found = percentile([float(x) for x in range(1000, 0, -1)], 0.99).to_json()
    assert found == {"value": 990.0, "low": 983.0, "high": 997.0, "n": 1000}


def test_too_small_a_sample_has_no_percentile_but_a_reason():
    assert percentile([1.0] * 40, 0.95).to_json() == {"value": None, "reason": "needs n >= 72, have 40"}
    assert percentile([], 0.5).to_json() == {"value": None, "reason": "needs n >= 6, have 0"}


def test_each_percentile_has_its_own_floor():
    found = percentiles([1.0] * 72)
    assert [found[p]["value"] for p in ("p50", "p90", "p95", "p99")] == [1.0, 1.0, 1.0, None]


def test_intervals_hold_the_true_percentile_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    truth = math.log(20)  # the 95th percentile of an exponential
    found = [percentile(rng.exponential(size=400).tolist(), 0.95) for _ in range(400)]
    assert sum(e.low <= truth <= e.high for e in found) / 400 > 0.93


def test_an_infinite_percentile_is_missing_with_the_number_of_failures():
    found = percentile([1.0] * 90 + [math.inf] * 10, 0.95)
    assert found.to_json() == {"value": None, "reason": "it is infinite: 10 of 100 requests failed"}


def test_a_percentile_whose_interval_is_infinite_is_missing_too():
    found = percentile([1.0] * 98 + [math.inf] * 2, 0.95)
    assert found.reason == "the upper end of its interval is infinite: 2 of 100 requests failed"


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
    assert proportion(0, 0, "answers").to_json() == {"value": None, "reason": "no answers"}


def test_overlapping_intervals_cannot_be_told_apart():
    a, b, c = ({"low": low, "high": high} for low, high in ((1, 3), (2.9, 5), (3.1, 4)))
    assert overlap(a, b)
    assert overlap(b, a)
    assert not overlap(a, c)
