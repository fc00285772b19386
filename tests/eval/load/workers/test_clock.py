"""How far another machine's clock is from the run's: whatever the link does, the truth lies in what is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.load.workers.clock import (
    MAX_SYNC_S,
    MIN_CLOCK_SAMPLES,
    ClockOffset,
    ClockSample,
    estimate_offset,
    is_enough,
    offset_fault,
)

DELAYS_S = st.floats(0, 10)
OFFSETS_S = st.floats(-1e7, 1e7)
ROUNDING_S = 1e-8  # of seconds since a machine's start, in a float


def clock_sample(sent_at: float, there_s: float, back_s: float, offset_s: float) -> ClockSample:
    """One over a link that takes so long, with a clock that is ahead by so much."""
    return ClockSample(sent_at, sent_at + there_s + offset_s, sent_at + there_s + back_s)


@given(OFFSETS_S, st.lists(st.tuples(st.floats(0, 1e6), DELAYS_S, DELAYS_S), min_size=1, max_size=30))
def test_the_true_offset_is_within_the_uncertainty(offset_s, links):
    found = estimate_offset(clock_sample(*link, offset_s) for link in links)
    assert abs(found.offset_s - offset_s) <= found.uncertainty_s + ROUNDING_S


@given(OFFSETS_S, st.lists(st.tuples(st.floats(0, 1e6), DELAYS_S, DELAYS_S), min_size=2, max_size=30))
def test_more_exchanges_know_no_less(offset_s, links):
    samples = [clock_sample(*link, offset_s) for link in links]
    some = estimate_offset(samples[:-1])
    assert estimate_offset(samples).uncertainty_s <= some.uncertainty_s


@given(OFFSETS_S, st.floats(0, 1e6), DELAYS_S)
def test_equal_ways_there_and_back_show_the_offset_itself(offset_s, sent_at, way_s):
    found = estimate_offset([clock_sample(sent_at, way_s, way_s, offset_s)])
    assert found.offset_s == pytest.approx(offset_s, abs=ROUNDING_S)


@given(OFFSETS_S, st.floats(0, 1e6), DELAYS_S, DELAYS_S)
def test_a_clock_that_is_ahead_seems_so_by_as_much(ahead_s, sent_at, there_s, back_s):
    as_here, ahead = (estimate_offset([clock_sample(sent_at, there_s, back_s, offset)]) for offset in (0.0, ahead_s))
    assert ahead.offset_s - as_here.offset_s == pytest.approx(ahead_s, abs=ROUNDING_S)


def test_more_is_asked_of_a_busy_machine_but_not_for_ever():
    slow, quick = clock_sample(0.0, 0.02, 0.02, 0.0), clock_sample(0.0, 0.001, 0.001, 0.0)
    assert [is_enough([quick] * count, 0.1) for count in (MIN_CLOCK_SAMPLES - 1, MIN_CLOCK_SAMPLES)] == [False, True]
    assert not is_enough([slow] * MIN_CLOCK_SAMPLES, MAX_SYNC_S) and is_enough(
        [slow, *[slow] * MIN_CLOCK_SAMPLES, quick], 1.0
    )
    assert is_enough([slow], MAX_SYNC_S + 0.1) and not is_enough([], MAX_SYNC_S + 0.1)


def test_a_clock_that_is_not_known_to_5_ms_is_refused():
    assert offset_fault("10.0.0.2/1", ClockOffset(3.0, 0.005)) is None
    fault = offset_fault("10.0.0.2/1", ClockOffset(3.0, 0.0071)) or ""
    assert "the clock of 10.0.0.2/1 is known to 7.1 ms only" in fault and "nearer" in fault and "\n" not in fault
