"""A server's processes: start them on their core, wait for the first response, measure memory, end them all."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.errors import StartError
from infra.local.process import PINNED_EXEC, Process
from scripts.benchmarks.http_messages import WRONG_LABEL, Request, send_once

START_LIMIT_S = 90.0
POLL_S = 0.002
GRACE_S = 3.0  # from SIGTERM to SIGKILL
MB = 1_000_000

ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Exit|NoSuchFile|Fail)\b.*:")  # the last line of a traceback


@dataclass(frozen=True)
class Start:
    """The first process of a server."""

    command: tuple[str, ...]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)  # on top of a platform's bare environment


class ProcessTree:
    """A server's first process and whatever it started, sessions of their own included."""

    def __init__(self, start: Start, cpus: Sequence[int], log: Path):
        self.started_at = time.perf_counter()
        self._process = Process(start.command, start.env, start.cwd, cpus, log)
        self._seen: set[psutil.Process] = set()

    def first_response_s(self, port: int, request: Request) -> float:
        """Send until the response is correct. Returns the time since the start of the process. Raises StartError."""
        deadline = self.started_at + START_LIMIT_S
        while (left_s := deadline - time.perf_counter()) > 0:
            with contextlib.suppress(TimeoutError):
                response = send_once(port, request, left_s)
                fault = response.fault(request) if response else "no response"
                if fault is None:
                    return time.perf_counter() - self.started_at
                if fault == WRONG_LABEL:
                    raise StartError(f"predicted {response and response.label!r}, but {request.label!r} is correct")
            if (status := self._process.exit_status()) is not None:
                raise StartError(f"ended with status {status}: {self.last_words()}")
            time.sleep(POLL_S)
        raise StartError(f"gave no correct response within {START_LIMIT_S:.0f} s: {self.last_words()}")

    def ended(self) -> bool:
        """Whether the first process has ended."""
        return self._process.exit_status() is not None

    def last_words(self) -> str:
        """The last line of its log that names an error; without one, the last line."""
        lines = [line.strip() for line in self._process.log_tail().splitlines()] or ["it wrote nothing"]
        return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])

    def pss_mb(self) -> float:
        """The proportional set size of its processes, in millions of bytes."""
        total = 0
        for process in self._members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / MB

    def stop(self) -> None:
        """End it, and every process of it that was ever observed."""
        self._members()
        self._process.terminate()
        self._process.reap(GRACE_S)
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil checks that the PID is still that process's
        psutil.wait_procs(list(self._seen), GRACE_S)

    def _members(self) -> list[psutil.Process]:
        """The running processes. psutil finds children by their parent, in any session."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            self._seen |= {first, *first.children(recursive=True)}
        return [process for process in self._seen if process.is_running()]


def pinned(cpu: int, *command: str) -> tuple[str, ...]:
    """The command pinned to a core; it ends with this process."""
    return (sys.executable, "-I", "-S", str(PINNED_EXEC), str(os.getpid()), str(cpu), *command)


@contextlib.contextmanager
def running(start: Start, cpus: Sequence[int], log: Path) -> Iterator[ProcessTree]:
    """The processes, ended in any case."""
    tree = ProcessTree(start, cpus, log)
    try:
        yield tree
    finally:
        tree.stop()
