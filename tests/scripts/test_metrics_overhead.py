"""scripts/benchmarks/metrics_overhead/: its intervals, and that it measures the service with and without."""

import os

import numpy as np
import pytest

from scripts.benchmarks.metrics_overhead.__main__ import Block, interval, lines, measure_rounds, overhead
from scripts.paths import EXAMPLE_IMAGE, MODEL_DIR

pytestmark = pytest.mark.integration


def test_a_known_overhead_is_within_its_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        without = rng.lognormal(0, 0.5, 50)  # the machine, which both blocks of a pair share
        found = overhead(list(zip(without * 1.01 * rng.lognormal(0, 0.02, 50), without, strict=True)))
        inside += found.low <= 0.01 <= found.high
    assert 180 <= inside <= 199  # of 190 expected


def test_an_interval_is_students():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-3)


def test_the_lines_name_each_figure_with_its_interval():
    rounds = [  # without, with, and timed
        (Block(101, 2.0, 0.0), Block(100, 2.02, 0.0), Block(99, 2.04, 0.0202)),
        (Block(202, 1.0, 0.0), Block(200, 1.01, 0.0), Block(198, 1.02, 0.0101)),
    ]
    text = "\n".join(lines(rounds))
    assert "a request takes longer by +1.00% (+1.00% to +1.00%)" in text
    assert "processor time is more by +1.00% (" in text
    assert "spent on observation: +0.99% (" in text and "of these 15 us on it; 152 requests a second" in text


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the service and one for the client")
def test_blocks_that_are_timed_spend_time_on_observation():
    found = measure_rounds("onnx", MODEL_DIR, EXAMPLE_IMAGE, 2, 0.3)
    assert len(found) == 2
    for off, on, timed in found:
        assert off.observing_ms == on.observing_ms == 0 < timed.observing_ms < timed.cpu_ms
        assert off.cpu_ms > 0 and on.cpu_ms > 0 and off.rate_rps > 0 and on.rate_rps > 0
