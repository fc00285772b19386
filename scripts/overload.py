"""Ten times the load that the service can bear, for a minute: what is still answered, how late, and the way back.

    python -m scripts.overload [--engine onnx] [--times 10] [--seconds 60]

gunicorn as it is deployed runs on one core, the client on another. First a closed loop of 64 finds the largest
goodput. Then requests are sent at a multiple of that rate whether or not earlier ones are answered, each on an idle
connection or a new one, by clients who hang up after PATIENCE_S. A 503 is not asked again. What the client could not
send in time (one core of Python sends some 10,000 a second) is said: the load is what was really offered.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from service.settings import ENGINES, Settings

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "eval" / "golden" / "000-airplane.png"
SERVER_CORE, CLIENT_CORE = 0, 1
CONCURRENCY, CALIBRATION_S = 64, 8.0
MOST_CONNECTIONS = 3000
PATIENCE_S = 10.0
RECOVERY_S = 10.0  # that it is looked for at most
MIB = 2**20

STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSING = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(eq=False)
class Line:
    """One connection."""

    sock: socket.socket
    asked: float = 0.0  # when the request was due; 0: none is open
    received: bytes = b""
    connected: bool = False


@dataclass
class Outcome:
    """What became of the requests."""

    latencies_s: list[float] = field(default_factory=list)  # of answers with 200, from the time they were due
    others: Counter[str] = field(default_factory=Counter)  # status, or what went wrong, -> requests
    late_s: float = 0.0  # the most by which a request was sent too late
    seconds: float = 0.0

    def rate(self) -> float:
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s) or [float("nan")]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class Client:
    """Sends the one request over many connections, from one thread."""

    def __init__(self, port: int, request: bytes):
        self._address, self._request = ("127.0.0.1", port), request
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}
        self._idle: deque[Line] = deque()
        self._open: deque[tuple[float, Line]] = deque()  # requests by when they were due
        self.outcome = Outcome()

    def closed_loop(self, callers: int, seconds: float) -> Outcome:
        """So many requests at once, each sent when one is answered."""
        began = time.perf_counter()
        until = began + seconds
        while (now := time.perf_counter()) < until:
            while len(self._lines) - len(self._idle) < callers:
                self._send(now)
            self._listen(0.05)
        return self._finish(began)

    def open_loop(self, rate: float, seconds: float) -> Outcome:
        """A request every 1/rate seconds."""
        began, sent = time.perf_counter(), 0
        total = int(rate * seconds)
        while sent < total:
            now = time.perf_counter()
            for _ in range(100):  # then listen again
                due = began + sent / rate
                if sent >= total or due > now:
                    break
                self.outcome.late_s = max(self.outcome.late_s, now - due)
                self._send(due)
                sent += 1
            self._listen(max(0.0, min(0.05, began + sent / rate - time.perf_counter())))
        return self._finish(began)

    def _finish(self, began: float) -> Outcome:
        self.outcome.seconds = time.perf_counter() - began
        for line in list(self._lines.values()):
            self._end(line)
        return self.outcome

    def _send(self, due: float) -> None:
        if self._idle:
            line = self._idle.pop()
        elif len(self._lines) < MOST_CONNECTIONS:
            line = Line(socket.socket())
            line.sock.setblocking(False)
            line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.sock.connect_ex(self._address)
            self._lines[line.sock.fileno()] = line
            self._epoll.register(line.sock.fileno(), select.EPOLLOUT)
        else:
            self.outcome.others["not sent: too many connections open"] += 1
            return
        line.asked, line.received = due, b""
        self._open.append((due, line))
        if line.connected:
            self._write(line)

    def _write(self, line: Line) -> None:
        line.connected = True
        try:
            line.sock.send(self._request)  # small enough for any empty buffer
            self._epoll.modify(line.sock.fileno(), select.EPOLLIN)
        except OSError as error:
            self._fail(line, error)

    def _listen(self, timeout_s: float) -> None:
        for number, event in self._epoll.poll(timeout_s):
            line = self._lines.get(number)
            if line is None:
                continue
            if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
                self._write(line)
            else:
                self._read(line)
        patience = time.perf_counter() - PATIENCE_S
        while self._open and self._open[0][0] < patience:
            due, line = self._open.popleft()
            if line.asked == due:
                self.outcome.others[f"no answer in {PATIENCE_S:g} s"] += 1
                self._end(line)

    def _read(self, line: Line) -> None:
        try:
            data = line.sock.recv(65536)
        except OSError as error:
            self._fail(line, error)
            return
        line.received += data
        head, found, body = line.received.partition(b"\r\n\r\n")
        if not data:
            self._fail(line, ConnectionError("closed"))
        elif found and (length := LENGTH.search(head)) and len(body) >= int(length[1]):
            self._answered(line, STATUS.match(head), bool(CLOSING.search(head)))

    def _answered(self, line: Line, status: re.Match[bytes] | None, closing: bool) -> None:
        if status and status[1] == b"200":
            self.outcome.latencies_s.append(time.perf_counter() - line.asked)
        else:
            self.outcome.others[status[1].decode() if status else "no HTTP"] += 1
        line.asked = 0.0
        if closing:
            self._end(line)
        else:
            self._idle.append(line)

    def _fail(self, line: Line, error: OSError) -> None:
        if line.asked:
            self.outcome.others[type(error).__name__] += 1
        else:
            self._idle.remove(line)
        self._end(line)

    def _end(self, line: Line) -> None:
        line.asked = 0.0
        del self._lines[line.sock.fileno()]
        line.sock.close()


@contextmanager
def server(engine: str) -> Iterator[tuple[int, psutil.Process]]:
    """The service on its core; gives its port and the process that computes."""
    env = os.environ | {"ENGINE": engine, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "gunicorn", "--config", "service/gunicorn.conf.py", "--bind", f"fd://{fd}"]
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command, "service.wsgi:app"],
            cwd=ROOT,
            env=env,
            pass_fds=(fd,),
            stdout=log,
            stderr=log,
        )
        port = listener.getsockname()[1]
    try:
        if not answers(port, 120):
            raise SystemExit(f"overload: the service with ENGINE={engine} did not start")
        yield port, psutil.Process(process.pid).children()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def answers(port: int, timeout_s: float) -> bool:
    """Whether GET /readyz is answered with 200 in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(20).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def recovery_s(port: int, request: bytes) -> float:
    """From now until a prediction is answered with 200."""
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < RECOVERY_S:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.settimeout(RECOVERY_S)
                connection.sendall(request)
                if connection.recv(20).startswith(b"HTTP/1.1 200"):
                    return time.perf_counter() - began
        except OSError:
            pass
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.overload", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--engine", choices=ENGINES, default="onnx")
    parser.add_argument("--times", type=float, default=10, help="of the largest goodput that is offered")
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args()
    body = PICTURE.read_bytes()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    os.sched_setaffinity(0, [CLIENT_CORE])
    with server(asked.engine) as (port, worker):
        Client(port, request).closed_loop(CONCURRENCY, 2.0)  # warm-up
        best = Client(port, request).closed_loop(CONCURRENCY, CALIBRATION_S)
        before = worker.memory_info().rss
        under = Client(port, request).open_loop(best.rate() * asked.times, asked.seconds)
        back_s, after = recovery_s(port, request), worker.memory_info().rss
    limits = Settings()
    bound_ms = (limits.max_queue + limits.batch_max) / best.rate() * 1000
    offered = (len(under.latencies_s) + sum(under.others.values())) / under.seconds
    for line in (
        f"{asked.engine}: {best.rate():.0f}/s at a concurrency of {CONCURRENCY}, p99 {best.quantile_ms(0.99):.0f} ms",
        f"offered: {offered / best.rate():.1f} times that for {under.seconds:.0f} s, at most {under.late_s:.3f} s late",
        f"goodput: {under.rate() / best.rate():.2f} of it, {under.rate():.0f}/s; the others: {dict(under.others)}",
        f"p50 {under.quantile_ms(0.5):.0f}, p99 {under.quantile_ms(0.99):.0f} ms; a full queue takes {bound_ms:.0f} ms",
        f"memory: {before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after",
        f"recovery: {back_s * 1000:.0f} ms from the last request to an answered one",
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
