"""Scheduled times of requests. Pure: the same rate and seed give the same times."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence


def poisson_arrivals(rate_rps: float, duration_s: float, seed: str | int) -> tuple[float, ...]:
    """Arrival times of a Poisson process, in seconds from 0 to `duration_s`."""
    rng = random.Random(f"poisson:{seed}")
    arrivals_s = itertools.accumulate(rng.expovariate(rate_rps) for _ in itertools.count())
    return tuple(itertools.takewhile(lambda arrival_s: arrival_s < duration_s, arrivals_s))


def ramp_arrivals(rate_rps: float, duration_s: float, seed: str | int) -> tuple[float, ...]:
    """Arrival times of a Poisson process whose rate grows linearly from 0 to `rate_rps`.

    By inversion: the expected number of arrivals until t is rate_rps * t^2 / (2 * duration_s).
    """
    unit_rate_arrivals = poisson_arrivals(1.0, rate_rps * duration_s / 2, f"ramp:{seed}")
    return tuple(math.sqrt(2 * duration_s * expected_count / rate_rps) for expected_count in unit_rate_arrivals)


MAX_JITTER_FRACTION, MAX_JITTER_S = 0.05, 30.0  # random extra length of an idle gap: of its length, and in all


def idle_arrivals(targets: Sequence[str], repeats: int, gap_s: float, seed: int) -> list[tuple[float, str]]:
    """Time and target of each request after an idle gap, in seconds from the last request before.

    The gaps of all targets run at the same time. Each is longer than `gap_s` by a random jitter, so that the requests
    are not synchronized with a platform's timers or with each other.
    """
    rng = random.Random(f"idle:{seed}")
    max_jitter_s = min(gap_s * MAX_JITTER_FRACTION, MAX_JITTER_S)
    times_by_target = {
        name: itertools.accumulate(gap_s + rng.uniform(0, max_jitter_s) for _ in range(repeats)) for name in targets
    }
    return sorted((time_s, name) for name, times_s in times_by_target.items() for time_s in times_s)
