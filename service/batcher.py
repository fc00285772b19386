"""Concurrent requests -> one forward pass: a bounded queue and the one thread that runs the network."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from service.schema import Busy

SMOOTHING = 0.2  # weight of the latest pass in the running mean of its cost


@dataclass(frozen=True)
class Pass:
    """One picture's share of a forward pass. Times are seconds of time.perf_counter()."""

    probabilities: np.ndarray  # [classes]
    started: float
    ended: float


@dataclass(frozen=True, eq=False)
class Waiting:
    """A picture in the queue."""

    picture: np.ndarray
    done: Future[Pass] = field(default_factory=Future)


class Batcher:
    """Runs the pictures of all callers in order of arrival, those that wait together in one pass.

    The thread starts with the object, so a process that forks must make the object after the fork.
    """

    def __init__(
        self, run: Callable[[np.ndarray], np.ndarray], *, max_queue: int, batch_max: int, batch_wait_s: float = 0.0
    ):
        self._run = run
        self._max_queue = max_queue
        self._batch_max = batch_max
        self._batch_wait_s = batch_wait_s
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()  # guards the queue and the cost
        self._seconds_per_picture = 0.0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether anyone takes from the queue."""
        return self._thread.is_alive()

    def run(self, pictures: list[np.ndarray]) -> list[Pass]:
        """Wait for the network's answers. Raises Busy at once when the queue is full, or what the network raised.

        One caller's pictures are taken in together or not at all. An empty queue takes any number, so that a
        batch larger than the queue has its chance.
        """
        waiting = [Waiting(picture) for picture in pictures]
        with self._changed:
            if self._queue and len(self._queue) + len(waiting) > self._max_queue:
                raise self._busy()
            self._queue.extend(waiting)
            self._changed.notify()
        return [w.done.result() for w in waiting]

    def _busy(self) -> Busy:
        depth = len(self._queue)
        seconds = max(1, math.ceil(depth * self._seconds_per_picture))
        return Busy(f"{depth} pictures wait already, at most {self._max_queue} may; try again in {seconds} s", seconds)

    def _work(self) -> None:
        while True:
            batch = self._take()
            started = time.perf_counter()
            try:
                rows = self._run(np.stack([w.picture for w in batch]))
                ended = time.perf_counter()
                passes = [Pass(row, started, ended) for row in rows]
                for waiting, answer in zip(batch, passes, strict=True):
                    waiting.done.set_result(answer)
            except BaseException as error:  # only these callers hear of it; the next batch may well succeed
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
            else:
                self._learn((ended - started) / len(batch))

    def _take(self) -> list[Waiting]:
        """The next pictures, at most one pass of them; blocks until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue)
            if self._batch_wait_s:
                self._changed.wait_for(lambda: len(self._queue) >= self._batch_max, self._batch_wait_s)
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))]

    def _learn(self, seconds: float) -> None:
        with self._changed:
            known = self._seconds_per_picture or seconds
            self._seconds_per_picture = known + SMOOTHING * (seconds - known)
