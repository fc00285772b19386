from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from eval.mock_server.profile import EndpointProfile
from eval.plan.rate_search import (
    SearchStep,
    estimate_max_rate,
    evaluate_step,
    max_remaining_steps,
    next_rate,
    rate_bracket,
)
from tests.helpers.expected_measurements import max_rate_rps, sojourn_times
from tests.helpers.synthetic_run import make_sample


def step(rate_rps, held):
    p95_ms = 10.0 if held else 900.0
    return SearchStep(rate_rps, 200, 0, p95_ms, p95_ms, p95_ms, held)


def search(limit_rps, start_rps=10.0, most=24):
    """A search of a target that holds up to `limit_rps`."""
    steps = []
    while (rate := next_rate(steps, start_rps, most)) is not None:
        steps.append(step(rate, rate <= limit_rps))
    return steps


@pytest.mark.parametrize("limit_rps", [0.31, 7.0, 10.0, 57.0, 3200.0])
def test_the_search_closes_in_on_the_limit_from_both_sides(limit_rps):
    held, broke = rate_bracket(search(limit_rps))
    assert held <= limit_rps < broke
    assert broke / held <= 1.05


def simulated_search(truth, slo_ms, rng, start_rps=60.0, step_s=10.0):
    """A search of a queue that is computed, not waited for: no neighbour on the machine can slow it down."""
    steps = []
    while (rate_rps := next_rate(steps, start_rps, 24)) is not None:
        count = int(rate_rps * step_s)
        gaps_s = rng.exponential(1 / rate_rps, count)
        latencies_ms = (
            sojourn_times(truth.draw_service_times_ms(rng, count) / 1000, gaps_s, truth.servers, truth.stalls) * 1000
        )
        samples = [
            make_sample(i, latency_ms=float(ms), scheduled_s=float(at))
            for i, (ms, at) in enumerate(zip(latencies_ms, np.cumsum(gaps_s), strict=True))
        ]
        steps.append(evaluate_step(rate_rps, samples, slo_ms))
    return estimate_max_rate(steps, slo_ms)


def test_the_search_finds_the_rate_that_the_queue_can_bear():
    truth = EndpointProfile(seed=5, median_ms=5, sigma=0.2, servers=1)
    limit_rps = max_rate_rps(truth, 30.0)
    searches = [simulated_search(truth, 30.0, np.random.default_rng(seed)) for seed in range(8)]
    assert all(it.low <= it.value <= it.high for it in searches)
    assert sum(it.low <= limit_rps <= it.high for it in searches) >= 7
    assert np.median([it.value for it in searches]) == pytest.approx(limit_rps, rel=0.05)


def test_search_ends_for_a_target_that_never_passes_or_fails():
    assert estimate_max_rate(search(0.0), 200).value is None
    assert len(search(math.inf)) == 24


def test_next_rate_depends_on_past_steps_so_a_search_can_resume():
    steps = search(57.0)
    for done in range(len(steps)):
        assert next_rate(steps[:done], 10.0, 24) == steps[done].rate_rps


def samples(count, latency_ms, failed=0):
    return [make_sample(i, latency_ms=latency_ms, error="http_5xx" if i < failed else None) for i in range(count)]


def test_step_fails_when_p95_misses_the_slo_or_too_many_fail():
    assert evaluate_step(10, samples(200, 199.0), 200).passed
    assert not evaluate_step(10, samples(200, 201.0), 200).passed
    assert evaluate_step(10, samples(200, 20.0, failed=2), 200).passed
    assert not evaluate_step(10, samples(200, 20.0, failed=3), 200).passed


def test_failures_count_as_endless():
    assert evaluate_step(10, samples(200, 20.0, failed=30), 200).p95_ms == math.inf


def test_max_rate_lies_between_conclusive_pass_and_failure():
    unsure = SearchStep(40.0, 200, 0, 190.0, 150.0, 260.0, passed=True)
    it = estimate_max_rate([step(10.0, True), step(20.0, True), step(80.0, False), unsure], 200)
    assert (it.value, it.low, it.high) == (40.0, 20.0, 80.0)


def test_a_rate_that_broke_within_doubt_is_tried_once_more():
    hiccup = SearchStep(20.0, 200, 0, 430.0, 130.0, 650.0, passed=False, conclusive=False)
    assert next_rate([step(10.0, True), hiccup], 10.0, 24) == 20.0
    assert next_rate([step(10.0, True), hiccup, step(20.0, True)], 10.0, 24) == 40.0
    assert next_rate([step(10.0, True), hiccup, hiccup], 10.0, 24) == pytest.approx(200**0.5)
    assert rate_bracket([step(10.0, True), hiccup, step(20.0, True)]) == (20.0, None)


def test_step_is_conclusive_on_one_side_or_with_many_failures():
    assert evaluate_step(10, samples(200, 100.0), 200).conclusive
    assert evaluate_step(10, samples(200, 300.0), 200).conclusive
    assert evaluate_step(10, samples(200, 100.0, failed=9), 200).conclusive
    two_failed = evaluate_step(10, samples(150, 20.0, failed=2), 200)  # 44 of 100 steps of a target that fails 1%
    assert not two_failed.passed and not two_failed.conclusive
    assert next_rate([two_failed], 10.0, 24) == 10.0
    mixed = [*samples(190, 100.0), *samples(10, 900.0)]
    assert not evaluate_step(10, mixed, 200).conclusive


def test_a_lucky_step_above_a_broken_one_does_not_count():
    assert rate_bracket([step(10.0, True), step(20.0, False), step(40.0, True)]) == (10.0, 20.0)


def noisy_search(rng):
    """A search whose steps err now and then, as those of a busy machine do."""
    steps, limit_rps = [], 10 ** rng.uniform(-2, 4)
    while (rate_rps := next_rate(steps, 10.0, 24)) is not None:
        passed = rate_rps <= limit_rps * rng.uniform(0.5, 1.5)
        steps.append(SearchStep(rate_rps, 200, 0, 1.0, 1.0, 1.0, passed, conclusive=rng.random() < 0.5))
    return steps


def test_no_search_takes_more_steps_than_it_was_said_to():
    rng = random.Random(1)
    for steps in (noisy_search(rng) for _ in range(500)):
        bounds = [max_remaining_steps(steps[:done], 10.0, 24) for done in range(len(steps) + 1)]
        assert all(bound >= len(steps) - done for done, bound in enumerate(bounds))
        assert all(later < earlier for earlier, later in itertools.pairwise(bounds)) and bounds[-1] == 0


def test_the_first_failure_bounds_what_is_left_of_a_search():
    doubled = [step(10.0, True), step(20.0, True)]
    assert max_remaining_steps(doubled, 10.0, 24) == 22
    assert max_remaining_steps([*doubled, step(40.0, False)], 10.0, 24) == 8
