"""When requests are due. Pure: the same rate and seed give the same times."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence


def poisson_arrivals(rate_rps: float, duration_s: float, seed: str | int) -> tuple[float, ...]:
    """Times of a Poisson process of that rate, in seconds from 0 to `length_s`."""
    rng = random.Random(f"poisson:{seed}")
    arrivals_s = itertools.accumulate(rng.expovariate(rate_rps) for _ in itertools.count())
    return tuple(itertools.takewhile(lambda arrival_s: arrival_s < duration_s, arrivals_s))


def ramp_arrivals(rate_rps: float, duration_s: float, seed: str | int) -> tuple[float, ...]:
    """Times of a Poisson process whose rate grows evenly from nothing to `rate_rps`.

    By inversion: the expected number of arrivals until t is rate * t^2 / (2 * length).
    """
    unit_rate_arrivals = poisson_arrivals(1.0, rate_rps * duration_s / 2, f"ramp:{seed}")
    return tuple(math.sqrt(2 * duration_s * expected_count / rate_rps) for expected_count in unit_rate_arrivals)


MAX_JITTER_FRACTION, MAX_JITTER_S = 0.05, 30.0  # of a gap, and at most: by how much the gaps are longer than asked for


def idle_arrivals(targets: Sequence[str], repeats: int, gap_s: float, seed: int) -> list[tuple[float, str]]:
    """When each target is asked after having been left alone, seconds from the last request of the run so far.

    The gaps of all targets run at the same time. Each is a little longer than `gap_s`, by a time thrown anew, so that
    the requests keep no step with a platform's clocks, nor with one another.
    """
    rng = random.Random(f"idle:{seed}")
    max_jitter_s = min(gap_s * MAX_JITTER_FRACTION, MAX_JITTER_S)
    due_times_by_target = {
        name: itertools.accumulate(gap_s + rng.uniform(0, max_jitter_s) for _ in range(repeats)) for name in targets
    }
    return sorted((due_s, name) for name, times in due_times_by_target.items() for due_s in times)
