"""What a queue and pauses make of times in the service: which request waits how long. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Seconds = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class PeriodicStalls:
    """Every so often all work stands still, as in a collection of garbage or when a quota of CPU time is used up.

    The first pause begins `every_s` after the beginning. None where `every_s` or `pause_s` is 0.
    """

    every_s: float
    stall_s: float

    def __bool__(self) -> bool:
        return bool(self.every_s and self.stall_s)

    def work_done(self, elapsed_s: float | np.ndarray) -> np.ndarray:
        """Seconds of work that are possible in the first so many seconds."""
        elapsed = np.asarray(elapsed_s, float)
        n_stalls = np.floor(elapsed / self.every_s)
        work_before = self.every_s + (n_stalls - 1) * (self.every_s - self.stall_s)
        work_after = np.maximum(0.0, elapsed - n_stalls * self.every_s - self.stall_s)
        return np.where(n_stalls < 1, elapsed, work_before + work_after)

    def finish_time(self, work_s: float | np.ndarray) -> np.ndarray:
        """Seconds since the beginning after which so many seconds of work are done: the inverse."""
        work = np.asarray(work_s, float)
        n_stalls = np.maximum(0, np.ceil((work - self.every_s) / (self.every_s - self.stall_s)))
        return work + n_stalls * self.stall_s


def waiting_times(service_s: Seconds, gaps_s: Seconds, servers: int = 1) -> np.ndarray:
    """Seconds that each request waits, first come first served. `gaps_s` are between arrivals, the first before all.

    One server: Lindley's recursion, all at once; the wait is how far the sum of (service before, minus gap) stands
    above its lowest point so far. Several: each request takes the server that is free first (Kiefer and Wolfowitz).
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
    """Seconds from arrival to answer: waiting, service and pauses. Without `servers` nobody waits for anybody.

    A pause stops all work, so the queue is reckoned on a clock that stands still with it.
    """
    arrivals = np.cumsum(gaps_s)
    if not stalls:
        return service_s + (waiting_times(service_s, gaps_s, servers) if servers else 0.0)
    work_at_arrival = stalls.work_done(arrivals)
    waiting = waiting_times(service_s, np.diff(work_at_arrival, prepend=0.0), servers) if servers else 0.0
    return stalls.finish_time(work_at_arrival + waiting + service_s) - arrivals
