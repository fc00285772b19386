"""Periodic stalls of the mock endpoint: how much work is done by when. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PeriodicStalls:
    """All work stops periodically, as in a garbage collection or when a quota of CPU time is used up.

    The first stall starts `every_s` after the start. There is none if `every_s` or `stall_s` is 0.
    """

    every_s: float
    stall_s: float

    def __bool__(self) -> bool:
        return bool(self.every_s and self.stall_s)

    def work_done(self, elapsed_s: float | np.ndarray) -> np.ndarray:
        """Seconds of work that are done within the first `elapsed_s` seconds."""
        elapsed = np.asarray(elapsed_s, float)
        n_stalls = np.floor(elapsed / self.every_s)
        work_before = self.every_s + (n_stalls - 1) * (self.every_s - self.stall_s)
        work_after = np.maximum(0.0, elapsed - n_stalls * self.every_s - self.stall_s)
        return np.where(n_stalls < 1, elapsed, work_before + work_after)

    def finish_time(self, work_s: float | np.ndarray) -> np.ndarray:
        """Seconds from the start after which `work_s` seconds of work are done: the inverse of `work_done`."""
        work = np.asarray(work_s, float)
        n_stalls = np.maximum(0, np.ceil((work - self.every_s) / (self.every_s - self.stall_s)))
        return work + n_stalls * self.stall_s
