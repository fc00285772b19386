"""The client: so many requests at once over connections that stay open, each sent when the one before is answered.

One thread, raw sockets, epoll: a request costs it some 40 us, so that on a core of its own it is faster than any
server here. A lone request it awaits without sleeping: to be woken takes a virtual processor 0.2 ms, which would count
as the server's. Every answer's label is checked. A 503 is asked again after its Retry-After, at most a second later.
"""

from __future__ import annotations

import gc
import heapq
import select
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle

from scripts.bench_serve.wire import BUSY, HOST, READ_BYTES, Request, read_answer

TIMEOUT_S = 5.0  # to connect
POLL_S = 0.05  # at most between two looks at the clock
REFUSED_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # after a 503 without Retry-After; after any
LEAST_FOR = {0.5: 20, 0.99: 100}  # answers below which a quantile is not told


class ServerGone(Exception):
    """Nothing listens there any more."""


@dataclass(frozen=True)
class Measured:
    """What a window saw of a load."""

    answered: int  # right answers whose last byte came within the window
    window_s: float
    p50_ms: float | None  # from the send to the last byte; None: too few answers, or too many still open
    p99_ms: float | None
    errors: dict[str, int]  # by kind, warm-up and drain included
    open_at_end: int  # requests without an answer when the window ended
    client_cpu: float  # share of its core that the client needed
    drained: bool  # whether all were answered soon after the window

    @property
    def per_second(self) -> float:
        return self.answered / self.window_s


def quantile_ms(latencies_s: Sequence[float], open_s: Sequence[float], q: float) -> float | None:
    """The q-quantile in milliseconds of sorted latencies; requests open for longer count as slower than any.

    None when there are too few answers, or when it lies among those that are still open.
    """
    if len(latencies_s) < LEAST_FOR[q]:
        return None
    value = latencies_s[min(int(q * len(latencies_s)), len(latencies_s) - 1)]
    slower = sum(age > value for age in open_s)
    place = int(q * (len(latencies_s) + slower))
    return latencies_s[place] * 1000 if place < len(latencies_s) else None


@dataclass
class _Connection:
    """One of them, and the request that is under way on it."""

    socket: socket.socket
    request: Request | None = None  # None: it rests
    sent_at: float = 0.0
    got: bytes = b""

    def send(self, request: Request) -> None:
        self.request, self.got = request, b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request.data)


@dataclass
class Load:
    """A closed loop of `concurrency` requests."""

    port: int
    requests: Sequence[Request]
    concurrency: int
    errors: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._next: Iterator[Request] = cycle(self.requests)
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._paused: list[tuple[float, int]] = []  # a heap of (when to ask again, file number)
        self._latencies_s: list[float] = []
        self._counting = False
        self._idle_s = 0.0  # spent in looking for an answer without sleeping

    def run(
        self, warmup_s: float, window_s: float, drain_s: float, at_end: Callable[[], None] = lambda: None
    ) -> Measured:
        """Warm up, measure, then wait at most `drain_s` for what is open. `at_end` is called while it still is.

        Raises ServerGone.
        """
        try:
            with _no_collecting():
                for _ in range(self.concurrency):
                    self._ask(self._connect())
                self._work_until(time.perf_counter() + warmup_s)
                self._counting, cpu_s, began = True, time.thread_time() - self._idle_s, time.perf_counter()
                self._work_until(began + window_s)
                self._counting, took_s = False, time.perf_counter() - began
                cpu_s = time.thread_time() - self._idle_s - cpu_s
                open_s = [began + took_s - c.sent_at for c in self._connections.values() if c.request]
                at_end()
                drained = self._drain(drain_s)
        finally:
            self.close()
        latencies_s = sorted(self._latencies_s)
        p50_ms, p99_ms = (quantile_ms(latencies_s, open_s, q) for q in LEAST_FOR)
        return Measured(len(latencies_s), took_s, p50_ms, p99_ms, dict(self.errors), len(open_s), cpu_s / took_s,
                        drained)  # fmt: skip

    def close(self) -> None:
        """Close every connection, whatever is under way."""
        for connection in self._connections.values():
            connection.socket.close()
        self._connections.clear()
        self._poll.close()

    def _connect(self) -> _Connection:
        try:
            made = socket.create_connection((HOST, self.port), TIMEOUT_S)
        except OSError as error:
            raise ServerGone(f"cannot connect to port {self.port}: {error.strerror or error}") from None
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(made.fileno(), select.EPOLLIN)
        connection = self._connections[made.fileno()] = _Connection(made)
        return connection

    def _ask(self, connection: _Connection) -> None:
        with suppress(ConnectionError):  # the poll will tell
            connection.send(next(self._next))

    def _work_until(self, end: float) -> None:
        while (now := time.perf_counter()) < end:
            while self._paused and self._paused[0][0] <= now:
                self._ask(self._connections[heapq.heappop(self._paused)[1]])
            if self.concurrency == 1 and not self._paused:
                ready = self._poll.poll(0)
                self._idle_s += 0 if ready else time.perf_counter() - now
            else:
                due = self._paused[0][0] if self._paused else end
                ready = self._poll.poll(max(0.0, min(due - now, end - now, POLL_S)))
            for fd, _ in ready:
                self._receive(self._connections[fd], asking=True)

    def _drain(self, limit_s: float) -> bool:
        end = time.perf_counter() + limit_s
        while any(c.request for c in self._connections.values()):
            if time.perf_counter() > end:
                return False
            for fd, _ in self._poll.poll(POLL_S):
                self._receive(self._connections[fd], asking=False)
        return True

    def _receive(self, connection: _Connection, *, asking: bool) -> None:
        """Take what has come; judge it when it is whole, and send the next."""
        try:
            chunk = connection.socket.recv(READ_BYTES)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._lost(connection, asking=asking)
            return
        connection.got = connection.got + chunk if connection.got else chunk
        answer, request = read_answer(connection.got), connection.request
        if answer is None or request is None:
            return
        now = time.perf_counter()
        connection.request = None
        fault = answer.fault(request)
        if fault:
            self.errors[fault] += 1
        elif self._counting:
            self._latencies_s.append(now - connection.sent_at)
        if answer.closing:
            connection = self._again(connection)
        if asking and fault == BUSY:
            pause_s = REFUSED_PAUSE_S if answer.retry_after_s is None else answer.retry_after_s
            heapq.heappush(self._paused, (now + min(pause_s, LONGEST_PAUSE_S), connection.socket.fileno()))
        elif asking:
            self._ask(connection)

    def _lost(self, connection: _Connection, *, asking: bool) -> None:
        """The server has closed it. That is its right between two requests, and an error within one."""
        if connection.request is None:
            if asking:
                self._paused = [(due, fd) for due, fd in self._paused if fd != connection.socket.fileno()]
                heapq.heapify(self._paused)
                self._ask(self._again(connection))
            else:
                self._forget(connection)
            return
        self.errors["connection lost"] += 1
        if asking:
            self._ask(self._again(connection))
        else:
            self._forget(connection)

    def _again(self, connection: _Connection) -> _Connection:
        """A new connection in its place."""
        self._forget(connection)
        return self._connect()

    def _forget(self, connection: _Connection) -> None:
        fd = connection.socket.fileno()
        self._poll.unregister(fd)
        del self._connections[fd]
        connection.socket.close()


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Python's collector would stop the client for milliseconds at a time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def median(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return statistics.median(values) if values else None
