"""Concurrent requests -> one forward pass: a bounded queue and the one thread that runs the network.

At rest, a lone picture is run by its caller's own thread, where the engine allows that: to hand it over and back would
take a tenth of a millisecond. One pass runs at a time, whoever runs it.

Requests take turns, one picture a turn, so that a single picture that comes after a batch of 64 is in the next pass.
A pass never waits for company that is not to be expected: only after a pass with several callers, who tend to come
back at once, and no longer than `batch_wait_s` after its end. A lone request starts as it comes.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.schema import Busy, GaveUp

SMOOTHING = 0.2  # weight of the latest pass in the running mean of its cost
LONGEST_WAIT_S = 30.0  # as long as any platform's front waits (Heroku's router); after it nobody listens


@dataclass(frozen=True)
class Passes:
    """One request's share of the forward passes. Times are seconds of time.perf_counter()."""

    rows: list[np.ndarray]  # [classes] for each picture
    started: float  # of the first pass
    ended: float  # of the last


class Asked:
    """One request's pictures, from the queue to their answers."""

    __slots__ = (
        *("done", "ended", "error", "given_up", "left"),
        *("pictures", "rows", "started", "taken"),
    )

    def __init__(self, pictures: Sequence[np.ndarray]):
        self.pictures = pictures
        self.taken = 0  # pictures that went into a pass
        self.left = len(pictures)  # pictures without an answer
        self.rows: list[np.ndarray] = [_NO_ROW] * len(pictures)
        self.started = math.inf
        self.ended = 0.0
        self.error: BaseException | None = None
        self.given_up = False  # nobody waits any more
        self.done = threading.Lock()  # held until the answer is there: a bare lock wakes its one waiter soonest
        self.done.acquire()

    def answer(self, place: int, row: np.ndarray, started: float, ended: float, error: BaseException | None) -> None:
        """One picture's answer or failure; the last one wakes the caller."""
        self.rows[place] = row
        self.started, self.ended = min(self.started, started), max(self.ended, ended)
        if self.error is None:
            self.error = error
        self.left -= 1
        if not self.left:
            self.done.release()

    def passes(self) -> Passes:
        """The answer. Raises what the network raised."""
        if self.error is not None:
            raise self.error
        return Passes(self.rows, self.started, self.ended)


_NO_ROW = np.empty(0, np.float32)
Turn = tuple[Asked, int]  # one picture of a pass: whose, and which of them


class Batcher:
    """Runs the pictures of all callers, those that wait together in one pass.

    any_thread: whether the callers' threads may run passes, too. Then a lone picture is run at once by its caller's.
    The batcher's own thread starts with the object, so a process that forks must make the object after the fork.
    Whoever sets `on_pass` is told of every pass that succeeded, by its pictures and its seconds.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        *,
        max_queue: int,
        batch_max: int,
        batch_wait_s: float = 0.0,
        any_thread: bool = False,
        longest_wait_s: float = LONGEST_WAIT_S,
    ):
        self._run = run
        self._max_queue = max_queue
        self._batch_max = batch_max
        self._enough = min(batch_max, max_queue)  # pictures for which a pass waits at most
        self._batch_wait_s = batch_wait_s
        self._any_thread = any_thread
        self._longest_wait_s = longest_wait_s
        self.on_pass: Callable[[int, float], None] = lambda pictures, seconds: None
        self._queue: deque[Asked] = deque()  # requests with pictures that are in no pass yet
        self._depth = 0  # these pictures
        self._running = False  # whether somebody runs a pass
        self._changed = threading.Condition(threading.Lock())  # guards the queue, its depth, and who runs
        self._wakes_at = 1  # requests in the queue for which the thread wants to be woken; 0: it is at work
        self._callers = 0  # who took part in the last pass or waited at its end
        self._pass_ended = 0.0
        self._seconds_per_picture = 0.0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether anyone takes from the queue."""
        return self._thread.is_alive()

    def depth(self) -> int:
        """Pictures that wait, those of the running pass not counted."""
        return self._depth

    def has_room(self) -> bool:
        """Whether one picture more would be taken in: to be asked before the work of decoding it."""
        return self._depth < self._max_queue

    def run(self, pictures: Sequence[np.ndarray]) -> Passes:
        """Wait for the network's answers.

        Raises Busy at once when the queue is full, GaveUp, or what the network raised. One caller's pictures are taken
        in together or not at all. An empty queue takes any number, so that a batch larger than it has its chance.
        """
        asked = Asked(pictures)
        with self._changed:
            alone = self._any_thread and self._at_rest() and len(pictures) == 1
            if alone:
                self._running = True
            else:
                self._queue_up(asked)
        if alone:
            return self._run_alone(asked)
        if not asked.done.acquire(timeout=self._longest_wait_s):
            asked.given_up = True
            raise GaveUp(f"no answer within {self._longest_wait_s:g} s; try again later", self._retry_after_s())
        return asked.passes()

    def _at_rest(self) -> bool:
        """Nobody runs or waits, and nobody else is expected."""
        return not self._running and not self._queue and self._callers <= 1

    def _queue_up(self, asked: Asked) -> None:
        if self._depth and self._depth + len(asked.pictures) > self._max_queue:
            raise self.busy()
        self._queue.append(asked)
        self._depth += len(asked.pictures)
        if not self._running and self._wakes_at and self._enough_for(self._wakes_at):
            self._changed.notify()

    def _run_alone(self, asked: Asked) -> Passes:
        """One picture's pass, in this thread."""
        try:
            self._pass([(asked, 0)])
        finally:
            with self._changed:
                self._end(1)
                if self._queue:
                    self._changed.notify()
        return asked.passes()

    def _end(self, finished: int) -> None:
        """A pass is over, by which so many requests were finished."""
        self._running = False
        self._callers, self._pass_ended = finished + len(self._queue), time.perf_counter()

    def busy(self) -> Busy:
        """The refusal."""
        depth, seconds = self._depth, self._retry_after_s()
        return Busy(f"{depth} pictures wait already, at most {self._max_queue} may; try again in {seconds} s", seconds)

    def _retry_after_s(self) -> int:
        """When what waits now will have been answered."""
        return max(1, math.ceil(self._depth * self._seconds_per_picture))

    def _work(self) -> None:
        while True:
            turns = self._take()
            if turns:
                self._pass(turns)
            with self._changed:
                self._end(sum(place + 1 == len(asked.pictures) for asked, place in turns))

    def _take(self) -> list[Turn]:
        """The next pictures, at most one pass of them; blocks until there is one."""
        with self._changed:
            self._wait_for(1, None)
            left_s = self._pass_ended + self._batch_wait_s - time.perf_counter()
            if self._callers > 1 and left_s > 0:
                self._wait_for(self._callers, left_s)
            turns: list[Turn] = []
            while self._queue and len(turns) < self._batch_max:
                asked = self._queue.popleft()
                if asked.given_up:
                    self._depth -= len(asked.pictures) - asked.taken
                    continue
                turns.append((asked, asked.taken))
                asked.taken += 1
                self._depth -= 1
                if asked.taken < len(asked.pictures):
                    self._queue.append(asked)
            self._running = True
            return turns

    def _wait_for(self, requests: int, timeout_s: float | None) -> None:
        """Until nobody else runs a pass, and so many requests wait, or enough pictures for one."""
        self._wakes_at = requests
        self._changed.wait_for(lambda: not self._running and self._enough_for(requests), timeout_s)
        self._wakes_at = 0

    def _enough_for(self, requests: int) -> bool:
        return len(self._queue) >= requests or self._depth >= self._enough

    def _pass(self, turns: list[Turn]) -> None:
        """Run the pictures in one pass; when that fails, one by one, so that one of them cannot fail the others."""
        started = time.perf_counter()
        try:
            pictures = [asked.pictures[place] for asked, place in turns]
            rows = self._run(pictures[0][None] if len(pictures) == 1 else np.stack(pictures))
            if len(rows) != len(turns):
                raise ValueError(f"the engine gave {len(rows)} rows for {len(turns)} pictures")
        except BaseException as error:
            if len(turns) == 1:
                (asked, place), ended = turns[0], time.perf_counter()
                asked.answer(place, _NO_ROW, started, ended, error)
            else:
                for turn in turns:
                    self._pass([turn])
            return
        ended = time.perf_counter()
        self._learn((ended - started) / len(turns))
        for (asked, place), row in zip(turns, rows, strict=True):
            asked.answer(place, row, started, ended, None)
        self.on_pass(len(turns), ended - started)

    def _learn(self, seconds: float) -> None:
        known = self._seconds_per_picture or seconds
        self._seconds_per_picture = known + SMOOTHING * (seconds - known)
