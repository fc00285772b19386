"""What a measurement of a mock endpoint should find, from its profile: simulated queues, rates and error fractions."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from eval.mock_server.profile import EndpointProfile, find_threshold
from eval.mock_server.profile_validation import FAULT_ERROR_KINDS
from eval.mock_server.stalls import PeriodicStalls

SIMULATED_REQUESTS = 200_000
MAX_RATE_RATIO = 1.002  # a search ends when its bounds are that close
Seconds = Sequence[float] | np.ndarray


def waiting_times(service_s: Seconds, gaps_s: Seconds, servers: int = 1) -> np.ndarray:
    """Seconds that each request waits, first come first served. `gaps_s` are between arrivals.

    One server: Lindley's recursion, vectorized. Several: each takes the first free server (Kiefer and Wolfowitz).
    """
    if servers == 1:
        random_walk = np.cumsum(np.concatenate([[0.0], np.asarray(service_s)[:-1] - np.asarray(gaps_s)[1:]]))
        return random_walk - np.minimum.accumulate(random_walk)
    server_free_at, waiting = [0.0] * servers, []
    for arrival, service in zip(np.cumsum(gaps_s).tolist(), np.asarray(service_s).tolist(), strict=True):
        start = max(arrival, server_free_at[0])
        heapq.heapreplace(server_free_at, start + service)
        waiting.append(start - arrival)
    return np.array(waiting)


def sojourn_times(service_s: np.ndarray, gaps_s: np.ndarray, servers: int | None, stalls: PeriodicStalls) -> np.ndarray:
    """Seconds from arrival to response: waiting, service and stalls. `servers` is None: no queue.

    A stall stops all work, so the queue is computed on a clock that stops with it.
    """
    arrivals = np.cumsum(gaps_s)
    if not stalls:
        return service_s + (waiting_times(service_s, gaps_s, servers) if servers else 0.0)
    work_at_arrival = stalls.work_done(arrivals)
    waiting = waiting_times(service_s, np.diff(work_at_arrival, prepend=0.0), servers) if servers else 0.0
    return stalls.finish_time(work_at_arrival + waiting + service_s) - arrivals


def mean_service_ms(profile: EndpointProfile) -> float:
    """The expected time in the service."""
    typical_ms = profile.median_ms
    if profile.sigma and profile.distribution == "gamma":
        shape = profile.sigma**-2
        typical_ms *= shape / float(gammaincinv(shape, 0.5))
    elif profile.sigma:
        typical_ms *= math.exp(profile.sigma**2 / 2)
    return typical_ms * (1 + profile.slow_share * (profile.slow_factor - 1))


def capacity_rps(profile: EndpointProfile) -> float:
    """The rate above which the queue grows without end."""
    if profile.servers is None:
        return math.inf
    working_fraction = 1 - profile.stall_ms / 1000 / profile.stall_every_s if profile.stalls else 1.0
    return profile.servers * working_fraction * 1000 / mean_service_ms(profile)


def sojourn_times_ms(profile: EndpointProfile, rate_rps: float) -> np.ndarray:
    """Times from arrival to response in a Poisson stream: queue, service and stalls, all warm. The same each time."""
    rng = np.random.default_rng((profile.seed, 95))
    service_s = profile.draw_service_times_ms(rng, SIMULATED_REQUESTS) / 1000
    gaps_s = rng.exponential(1, SIMULATED_REQUESTS) / rate_rps
    return sojourn_times(service_s, gaps_s, profile.servers, profile.stalls) * 1000


def max_rate_rps(profile: EndpointProfile, slo_ms: float, p: float = 0.95) -> float:
    """The highest rate at which the p-quantile is within the objective, to about one percent; 0 or infinity if none."""

    def misses_slo(rate_rps: float) -> bool:
        return float(np.quantile(sojourn_times_ms(profile, rate_rps), p)) > slo_ms

    highest_rps = capacity_rps(profile)
    lowest_rps = min(1.0, highest_rps * 1e-3)
    if misses_slo(lowest_rps):
        return 0.0
    if highest_rps == math.inf:
        return math.inf
    return find_threshold(misses_slo, lowest_rps, highest_rps, max_ratio=MAX_RATE_RATIO)


def error_fractions(profile: EndpointProfile) -> dict[str, float]:
    """The fraction of predictions that a client should count as each kind of failure."""
    fractions: dict[str, float] = {}
    for fault, fraction in profile.faults.items():
        kind = FAULT_ERROR_KINDS[fault]
        fractions[kind] = fractions.get(kind, 0.0) + fraction
    return fractions


def confusion_matrix(profile: EndpointProfile) -> np.ndarray:
    """How many of the labelled images of each true class, in rows, get each class. Exact."""
    matrix = np.zeros((len(profile.classes), len(profile.classes)), int)
    for sha256, label in profile.labels.items():
        matrix[label, profile.predicted_class(sha256)] += 1
    return matrix
