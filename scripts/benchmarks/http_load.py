"""HTTP/1.1 load from one thread: a closed loop of so many callers, or an open loop at a fixed rate.

Raw sockets and epoll, with the parser of Node.js for the responses: a request costs some 20 us, so that on a core of
its own the client is faster than any server measured here. Connections stay open; every label is checked.
"""

from __future__ import annotations

import gc
import heapq
import select
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle

import httptools

from scripts.benchmarks.http_messages import HOST, QUEUE_FULL, Request, ResponseReader

READ_BYTES = 65536
BROKEN = select.EPOLLERR | select.EPOLLHUP

# Faults of a request, beside those of its response
CANNOT_CONNECT, CONNECTION_LOST = "cannot connect", "connection lost"

POLL_S = 0.05  # longest poll, so that the clock is read in between
DEFAULT_RETRY_S, MAX_RETRY_S = 0.1, 1.0  # after a 503 without Retry-After; after any
MIN_SAMPLES = {0.5: 20, 0.99: 100}  # fewest successes for which a quantile is reported
MAX_CONNECTIONS = 3000  # of an open loop
MAX_BURST = 100  # requests sent before responses are read again
CLIENT_TIMEOUT_S = 10.0  # after which its callers disconnect
TIMED_OUT, NOT_SENT = f"no response in {CLIENT_TIMEOUT_S:g} s", "not sent: too many connections open"


class ServerGone(Exception):
    """Nothing listens on the port any more."""


@dataclass(frozen=True)
class LoadResult:
    """The result of a load within its window."""

    succeeded: int  # responses with the correct label whose last byte came within the window
    window_s: float
    p50_ms: float | None  # to the last byte, of successes; None: too few, or too many still open
    p99_ms: float | None
    errors: dict[str, int]  # by kind, warm-up and drain included
    open_at_end: int  # requests without a response when the window ended
    client_cpu: float  # fraction of its core that the client needed
    drained: bool  # whether every request ended soon after the window

    @property
    def rate_rps(self) -> float:
        return self.succeeded / self.window_s


def quantile_ms(latencies_s: Sequence[float], open_s: Sequence[float], q: float) -> float | None:
    """The q-quantile in milliseconds of sorted latencies; requests open for longer count as slower than any.

    None when there are too few latencies, or when it lies among the requests that are still open.
    """
    if len(latencies_s) < MIN_SAMPLES[q]:
        return None
    value = latencies_s[min(int(q * len(latencies_s)), len(latencies_s) - 1)]
    slower = sum(age > value for age in open_s)
    index = int(q * (len(latencies_s) + slower))
    return latencies_s[index] * 1000 if index < len(latencies_s) else None


@dataclass(eq=False)
class _Connection:
    """A connection and its request in flight."""

    socket: socket.socket
    reader: ResponseReader = field(default_factory=ResponseReader)
    request: Request | None = None  # None: idle
    started_at: float = 0.0  # of the request: the send time, or in an open loop the scheduled one
    unsent: bytes = b""
    connected: bool = False


class _Load(ABC):
    """Connections to one server, with at most one request on each at a time."""

    def __init__(self, port: int):
        self.port = port
        self.errors: Counter[str] = Counter()
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._latencies_s: list[float] = []
        self._counting = False

    @abstractmethod
    def _completed(self, started_at: float, fault: str | None, retry_after_s: float | None) -> None:
        """Called when a request has succeeded, or failed by a fault."""

    def _in_flight(self) -> int:
        return len(self._connections) - len(self._idle)

    def _send(self, request: Request, started_at: float) -> _Connection:
        """Send the request on an idle connection, or on a new one once it is connected."""
        connection = self._idle.pop() if self._idle else self._connect()
        connection.request, connection.started_at, connection.unsent = request, started_at, request.data
        if connection.connected:
            self._write(connection)
            if connection.unsent:
                self._epoll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return connection

    def _connect(self) -> _Connection:
        connection = _Connection(socket.socket())
        connection.socket.setblocking(False)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.socket.connect_ex((HOST, self.port))  # the poll reports the outcome
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return connection

    def _disconnect(self, connection: _Connection) -> None:
        connection.request = None
        del self._connections[connection.socket.fileno()]
        connection.socket.close()  # which takes it out of epoll, too

    def _write(self, connection: _Connection) -> None:
        with suppress(OSError):  # the poll reports a broken connection
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]

    def _poll(self, timeout_s: float) -> int:
        """Wait for events and handle them. Returns how many there were."""
        ready = self._epoll.poll(timeout_s)
        for fd, event in ready:
            connection = self._connections.get(fd)
            if connection is None:
                continue  # closed while an event before this one was handled
            if event & select.EPOLLOUT and not event & BROKEN:
                connection.connected = True
                self._write(connection)
                if not connection.unsent:
                    self._epoll.modify(fd, select.EPOLLIN)
            if event != select.EPOLLOUT:
                self._receive(connection)
        return len(ready)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
            response = connection.reader.feed(data) if data else None
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            data, response = b"", None
        if not data:
            self._lost(connection)
        elif response and connection.request:
            fault = response.fault(connection.request)
            if response.closes:
                self._disconnect(connection)
            else:
                connection.request = None
                self._idle.append(connection)
            self._completed(connection.started_at, fault, response.retry_after_s)

    def _lost(self, connection: _Connection) -> None:
        """The server has closed the connection: allowed between two requests, an error within one."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._disconnect(connection)
        else:
            self._disconnect(connection)
            self._completed(connection.started_at, CONNECTION_LOST if connection.connected else CANNOT_CONNECT, None)

    def _drain(self, limit_s: float) -> bool:
        """Wait for the open requests. Returns whether all ended in time."""
        end = time.perf_counter() + limit_s
        while self._in_flight():
            if time.perf_counter() > end:
                return False
            self._poll(POLL_S)
        return True

    def _close(self) -> None:
        """Close every connection, even with a request in flight."""
        for connection in list(self._connections.values()):
            self._disconnect(connection)
        self._epoll.close()

    def _result(self, window_s: float, open_s: Sequence[float], cpu_s: float, *, drained: bool) -> LoadResult:
        latencies_s = sorted(self._latencies_s)
        p50_ms, p99_ms = (quantile_ms(latencies_s, open_s, q) for q in MIN_SAMPLES)
        return LoadResult(len(latencies_s), window_s, p50_ms, p99_ms, dict(self.errors), len(open_s), cpu_s / window_s,
                          drained)  # fmt: skip


class ClosedLoop(_Load):
    """A fixed number of requests at once, each sent when the previous one has ended.

    With one at a time it polls without sleeping: waking takes a virtual processor 0.2 ms, which would count as the
    server's. A request refused with 503 is sent again after its Retry-After, at most a second later.
    """

    def __init__(self, port: int, requests: Sequence[Request], concurrency: int):
        super().__init__(port)
        self.concurrency = concurrency
        self._requests = cycle(requests)
        self._retries_at: list[float] = []  # a heap
        self._sending = True
        self._idle_s = 0.0  # spent polling without sleeping

    def run(
        self, warmup_s: float, window_s: float, drain_s: float, at_end: Callable[[], object] = lambda: None
    ) -> LoadResult:
        """Warm up, measure, call `at_end` under load, then drain for at most `drain_s`. Raises ServerGone."""
        try:
            with _gc_disabled():
                for _ in range(self.concurrency):
                    self._send(next(self._requests), time.perf_counter())
                self._run_until(time.perf_counter() + warmup_s)
                self._counting, cpu_s, started_at = True, time.thread_time() - self._idle_s, time.perf_counter()
                self._run_until(started_at + window_s)
                self._counting, self._sending, window_s = False, False, time.perf_counter() - started_at
                cpu_s = time.thread_time() - self._idle_s - cpu_s
                open_s = [started_at + window_s - c.started_at for c in self._connections.values() if c.request]
                at_end()
                drained = self._drain(drain_s)
        finally:
            self._close()
        return self._result(window_s, open_s, cpu_s, drained=drained)

    def _run_until(self, end: float) -> None:
        while (now := time.perf_counter()) < end:
            while self._retries_at and self._retries_at[0] <= now:
                heapq.heappop(self._retries_at)
                self._send(next(self._requests), now)
            if self.concurrency == 1 and not self._retries_at:
                if not self._poll(0):
                    self._idle_s += time.perf_counter() - now
            else:
                until = self._retries_at[0] if self._retries_at else end
                self._poll(max(0.0, min(until - now, end - now, POLL_S)))

    def _completed(self, started_at: float, fault: str | None, retry_after_s: float | None) -> None:
        now = time.perf_counter()
        if fault == CANNOT_CONNECT:
            raise ServerGone(f"cannot connect to port {self.port}")
        if fault:
            self.errors[fault] += 1
        elif self._counting:
            self._latencies_s.append(now - started_at)
        if not self._sending:
            return
        if fault == QUEUE_FULL:
            pause_s = DEFAULT_RETRY_S if retry_after_s is None else retry_after_s
            heapq.heappush(self._retries_at, now + min(pause_s, MAX_RETRY_S))
        else:
            self._send(next(self._requests), now)


class OpenLoop(_Load):
    """A request every 1/rate seconds, whether or not earlier ones have ended. Latency counts from the schedule."""

    def __init__(self, port: int, request: Request):
        super().__init__(port)
        self.max_send_delay_s = 0.0
        self._request = request
        self._timeouts: deque[tuple[float, _Connection]] = deque()  # requests sent, by scheduled time

    def run(self, rate_rps: float, duration_s: float, drain_s: float = 0.0) -> LoadResult:
        """Send for `duration_s`, then wait at most `drain_s` for open requests, of which only errors count."""
        started_at, cpu_s, sent, total = time.perf_counter(), time.thread_time(), 0, int(rate_rps * duration_s)
        self._counting = True
        try:
            while sent < total:
                now = time.perf_counter()
                due_count = min(total, int((now - started_at) * rate_rps) + 1)
                for index in range(sent, min(due_count, sent + MAX_BURST)):
                    self._send_due(started_at + index / rate_rps, now)
                    sent = index + 1
                self._poll(max(0.0, min(POLL_S, started_at + sent / rate_rps - time.perf_counter())))
                self._hang_up(time.perf_counter() - CLIENT_TIMEOUT_S)
            self._counting, now, cpu_s = False, time.perf_counter(), time.thread_time() - cpu_s
            open_s = [now - c.started_at for c in self._connections.values() if c.request]
            drained = self._drain(drain_s)
        finally:
            self._close()
        return self._result(now - started_at, open_s, cpu_s, drained=drained)

    def _send_due(self, due: float, now: float) -> None:
        self.max_send_delay_s = max(self.max_send_delay_s, now - due)
        if not self._idle and len(self._connections) >= MAX_CONNECTIONS:
            self.errors[NOT_SENT] += 1
        else:
            self._timeouts.append((due, self._send(self._request, due)))

    def _hang_up(self, before: float) -> None:
        while self._timeouts and self._timeouts[0][0] < before:
            due, connection = self._timeouts.popleft()
            if connection.request and connection.started_at == due:
                self.errors[TIMED_OUT] += 1
                self._disconnect(connection)

    def _completed(self, started_at: float, fault: str | None, retry_after_s: float | None) -> None:
        if fault:
            self.errors[fault] += 1
        elif self._counting:
            self._latencies_s.append(time.perf_counter() - started_at)


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Without Python's collector, which would stop the client for milliseconds at a time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
