"""What a queue and pauses make of times in the service: which request waits how long. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Seconds = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Pauses:
    """Every so often all work stands still, as in a collection of garbage or when a quota of CPU time is used up.

    The first pause begins `every_s` after the beginning. None where `every_s` or `pause_s` is 0.
    """

    every_s: float
    pause_s: float

    def __bool__(self) -> bool:
        return bool(self.every_s and self.pause_s)

    def worked(self, since_s: float | np.ndarray) -> np.ndarray:
        """Seconds of work that are possible in the first so many seconds."""
        since = np.asarray(since_s, float)
        turn = np.floor(since / self.every_s)
        before = self.every_s + (turn - 1) * (self.every_s - self.pause_s)
        after = np.maximum(0.0, since - turn * self.every_s - self.pause_s)
        return np.where(turn < 1, since, before + after)

    def ended(self, worked_s: float | np.ndarray) -> np.ndarray:
        """Seconds since the beginning after which so many seconds of work are done: the inverse."""
        worked = np.asarray(worked_s, float)
        turn = np.maximum(0, np.ceil((worked - self.every_s) / (self.every_s - self.pause_s)))
        return worked + turn * self.pause_s


def waits(service_s: Seconds, gaps_s: Seconds, servers: int = 1) -> np.ndarray:
    """Seconds that each request waits, first come first served. `gaps_s` are between arrivals, the first before all.

    One server: Lindley's recursion, all at once; the wait is how far the sum of (service before, minus gap) stands
    above its lowest point so far. Several: each request takes the server that is free first (Kiefer and Wolfowitz).
    """
    if servers == 1:
        walk = np.cumsum(np.concatenate([[0.0], np.asarray(service_s)[:-1] - np.asarray(gaps_s)[1:]]))
        return walk - np.minimum.accumulate(walk)
    free, found = [0.0] * servers, []
    for arrival, service in zip(np.cumsum(gaps_s).tolist(), np.asarray(service_s).tolist(), strict=True):
        start = max(arrival, free[0])
        heapq.heapreplace(free, start + service)
        found.append(start - arrival)
    return np.array(found)


def stays(service_s: np.ndarray, gaps_s: np.ndarray, servers: int | None, pauses: Pauses) -> np.ndarray:
    """Seconds from arrival to answer: waiting, service and pauses. Without `servers` nobody waits for anybody.

    A pause stops all work, so the queue is reckoned on a clock that stands still with it.
    """
    arrivals = np.cumsum(gaps_s)
    if not pauses:
        return service_s + (waits(service_s, gaps_s, servers) if servers else 0.0)
    worked = pauses.worked(arrivals)
    queued = waits(service_s, np.diff(worked, prepend=0.0), servers) if servers else 0.0
    return pauses.ended(worked + queued + service_s) - arrivals
