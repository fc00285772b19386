"""Concurrent requests -> one forward pass: a bounded queue and the one thread that runs the network.

While the batcher is idle, a single image is run by its caller's own thread, where the engine allows that: to hand it
over and back would take a tenth of a millisecond. One pass runs at a time, in either thread.

Requests take turns, one image a turn, so that a single image that comes after a batch of 64 is in the next pass.
A pass waits for more requests only after a pass with several callers, who tend to come back at once, and no longer
than `batch_wait_s` after its end. A single request starts as it comes.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.client_connection import ClientConnection
from service.errors import QueueFull, RequestAbandoned, ServiceUnavailable

SMOOTHING = 0.2  # weight of the latest pass in the running mean of its cost
MAX_WAIT_S = 30.0  # the time-out of the slowest front, Heroku's router; after it the response would be lost


@dataclass(frozen=True)
class BatchResult:
    """The rows of one request. Times are seconds of time.perf_counter()."""

    rows: list[np.ndarray]  # [classes] for each image
    started: float  # of the first pass
    ended: float  # of the last


class PendingRequest:
    """One request's images, from the queue to their answers."""

    __slots__ = (
        *("done", "ended", "error", "abandoned", "remaining"),
        *("connection", "images", "rows", "started", "scheduled"),
    )

    def __init__(self, images: Sequence[np.ndarray], connection: ClientConnection):
        self.images = images
        self.connection = connection
        self.scheduled = 0  # images that went into a pass
        self.remaining = len(images)  # images without a row
        self.rows: list[np.ndarray] = [_NO_ROW] * len(images)
        self.started = math.inf
        self.ended = 0.0
        self.error: BaseException | None = None
        self.abandoned = False  # nobody waits any longer: its time is over
        self.done = threading.Lock()  # held until the last row is there: a bare lock wakes its one waiter soonest
        self.done.acquire()

    def answer(self, index: int, row: np.ndarray, started: float, ended: float, error: BaseException | None) -> None:
        """Store one image's row or failure; the last one wakes the caller."""
        self.rows[index] = row
        self.started, self.ended = min(self.started, started), max(self.ended, ended)
        if self.error is None:
            self.error = error
        self.remaining -= 1
        if not self.remaining:
            self.done.release()

    def drop(self) -> None:
        """End it, between two passes, without the rows that it lacks."""
        self.done.release()

    def result(self) -> BatchResult:
        """The rows. Raises what the network raised, or ClientDisconnected."""
        if self.remaining:
            self.connection.check()
        if self.error is not None:
            raise self.error
        return BatchResult(self.rows, self.started, self.ended)


_NO_ROW = np.empty(0, np.float32)
BatchItem = tuple[PendingRequest, int]  # one image of a pass: its request and its index there


class Batcher:
    """Runs the images of all callers; images that wait at the same time share a pass.

    caller_may_run: whether callers' threads may run passes too. Then a single image is run at once by its caller's.
    The batcher's own thread starts with the object, so a process that forks must make the object after the fork.
    `on_pass` is called after every pass that succeeded, with its images and its seconds.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        *,
        max_queue: int,
        batch_max: int,
        batch_wait_s: float = 0.0,
        caller_may_run: bool = False,
        max_wait_s: float = MAX_WAIT_S,
    ):
        self._run = run
        self._max_queue = max_queue
        self._batch_max = batch_max
        self._enough = min(batch_max, max_queue)  # images for which a pass waits at most
        self._batch_wait_s = batch_wait_s
        self._caller_may_run = caller_may_run
        self._max_wait_s = max_wait_s
        self.on_pass: Callable[[int, float], None] = lambda images, seconds: None
        self._queue: deque[PendingRequest] = deque()  # requests with unscheduled images
        self._depth = 0  # unscheduled images
        self._running = False  # whether a pass runs
        self._closed = False
        self._changed = threading.Condition(threading.Lock())  # guards the queue, its depth and _running
        self._wakes_at = 1  # requests in the queue that wake the thread; 0: it is busy
        self._callers = 0  # requests in the last pass or waiting at its end
        self._pass_ended = 0.0
        self._seconds_per_image = 0.0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether the batcher's thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread once all that is queued was run, and let go of the network. No caller may come later."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        del self._run
        self.on_pass = lambda images, seconds: None

    def depth(self) -> int:
        """Images in the queue, those of the running pass not counted."""
        return self._depth

    def has_room(self, images: int = 1, undecoded: int = 0) -> bool:
        """Whether so many more would be accepted; undecoded: images that wait as well, but not yet here."""
        queued = self._depth + undecoded
        return not queued or queued + images <= self._max_queue

    def run(self, images: Sequence[np.ndarray], connection: ClientConnection | None = None) -> BatchResult:
        """Wait for the network's answers.

        Raises QueueFull at once, RequestAbandoned, ClientDisconnected, or what the network raised. One caller's images
        are queued together or not at all. An empty queue accepts any number, so that a batch larger than MAX_QUEUE is
        possible.
        """
        request = PendingRequest(images, connection or ClientConnection())
        request.connection.check()
        with self._changed:
            if self._closed:
                raise ServiceUnavailable("this model has been replaced; send the request again")
            run_here = self._caller_may_run and self._at_rest() and len(images) == 1
            if run_here:
                self._running = True
            else:
                self._queue_up(request)
        if run_here:
            return self._run_alone(request)
        if not request.done.acquire(timeout=self._max_wait_s):
            request.abandoned = True
            message = f"no prediction within {self._max_wait_s:g} s; try again later"
            raise RequestAbandoned(message, self._retry_after_s())
        return request.result()

    def _at_rest(self) -> bool:
        """No pass runs, no request waits, and no other caller is expected."""
        return not self._running and not self._queue and self._callers <= 1

    def _queue_up(self, request: PendingRequest) -> None:
        if self._depth and self._depth + len(request.images) > self._max_queue:
            raise self.queue_full(images=len(request.images))
        self._queue.append(request)
        self._depth += len(request.images)
        if not self._running and self._wakes_at and self._enough_for(self._wakes_at):
            self._changed.notify()

    def _run_alone(self, request: PendingRequest) -> BatchResult:
        """One image's pass, in this thread."""
        try:
            self._pass([(request, 0)])
        finally:
            with self._changed:
                self._end(1)
                if self._queue:
                    self._changed.notify()
        return request.result()

    def _end(self, finished: int) -> None:
        """Note the end of a pass that finished this many requests."""
        self._running = False
        self._callers, self._pass_ended = finished + len(self._queue), time.perf_counter()

    def queue_full(self, undecoded: int = 0, images: int = 1) -> QueueFull:
        """The refusal of this many images, which did not fit a moment ago; undecoded as above."""
        depth = max(self._depth + undecoded, self._max_queue - images + 1)  # it may have emptied meanwhile
        full, seconds = f"queue full ({depth}/{self._max_queue})", self._retry_after_s()
        return QueueFull(f"{full} for {images} more input{'s' * (images > 1)}; try again in {seconds} s", seconds)

    def _retry_after_s(self) -> int:
        """Seconds until the present queue is empty."""
        return max(1, math.ceil(self._depth * self._seconds_per_image))

    def _work(self) -> None:
        while not self._closed or self._queue:
            batch = self._next_batch()
            if batch:
                self._pass(batch)
            with self._changed:
                self._end(sum(index + 1 == len(request.images) for request, index in batch))

    def _next_batch(self) -> list[BatchItem]:
        """The next images, at most one pass of them; blocks until there is one."""
        with self._changed:
            self._wait_for(1, None)
            wait_s = self._pass_ended + self._batch_wait_s - time.perf_counter()
            if self._callers > 1 and wait_s > 0:
                self._wait_for(self._callers, wait_s)
            batch: list[BatchItem] = []
            while self._queue and len(batch) < self._batch_max:
                request = self._queue.popleft()
                if request.abandoned or request.connection.closed:
                    self._depth -= len(request.images) - request.scheduled
                    request.drop()
                    continue
                batch.append((request, request.scheduled))
                request.scheduled += 1
                self._depth -= 1
                if request.scheduled < len(request.images):
                    self._queue.append(request)
            self._running = True
            return batch

    def _wait_for(self, requests: int, timeout_s: float | None) -> None:
        """Wait until no pass runs and this many requests wait, or enough images for a pass."""
        self._wakes_at = requests
        self._changed.wait_for(lambda: not self._running and self._enough_for(requests), timeout_s)
        self._wakes_at = 0

    def _enough_for(self, requests: int) -> bool:
        return len(self._queue) >= requests or self._depth >= self._enough or self._closed

    def _pass(self, batch: list[BatchItem]) -> None:
        """Run the images in one pass; when that fails, one by one, so that one of them cannot fail the others."""
        started = time.perf_counter()
        try:
            images = [request.images[index] for request, index in batch]
            rows = self._run(images[0][None] if len(images) == 1 else np.stack(images))
            if len(rows) != len(batch):
                raise ValueError(f"the engine gave {len(rows)} rows for {len(batch)} images")
        except BaseException as error:
            if len(batch) == 1:
                (request, index), ended = batch[0], time.perf_counter()
                request.answer(index, _NO_ROW, started, ended, error)
            else:
                for item in batch:
                    self._pass([item])
            return
        ended = time.perf_counter()
        self._update_service_time((ended - started) / len(batch))
        for (request, index), row in zip(batch, rows, strict=True):
            request.answer(index, row, started, ended, None)
        self.on_pass(len(batch), ended - started)

    def _update_service_time(self, seconds: float) -> None:
        known = self._seconds_per_image or seconds
        self._seconds_per_image = known + SMOOTHING * (seconds - known)
