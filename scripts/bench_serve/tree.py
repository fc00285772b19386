"""A server's processes: started on their core, asked for the first time, weighed, ended for certain."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.errors import StartError
from infra.local.process import Process
from scripts.bench_serve.servers import Start
from scripts.bench_serve.wire import WRONG, Request, ask_once

START_LIMIT_S = 90.0
POLL_S = 0.002
GRACE_S = 3.0  # from SIGTERM to SIGKILL: nobody waits for an answer any more
KB = 1024  # as the kernel's "kB"
MB = 1_000_000

PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Exit|NoSuchFile|Fail)\b.*:")  # as a traceback ends
HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """What all processes of a server hold, in millions of bytes."""

    pss_mb: float  # pages that several processes share count in parts
    peak_rss_mb: float  # each process's own highest since its start, summed: an upper bound


class Tree:
    """A server's first process and whatever it started, sessions of their own included."""

    def __init__(self, start: Start, cpus: Sequence[int], log: Path):
        self.started_at = time.perf_counter()
        self._process = Process(start.launch.command, start.launch.env, start.cwd, cpus, log)
        self._seen: set[psutil.Process] = set()

    def first_answer_s(self, port: int, request: Request) -> float:
        """Ask until the answer is right; gives the time since the start of the process. Raises StartError."""
        deadline = self.started_at + START_LIMIT_S
        while (left_s := deadline - time.perf_counter()) > 0:
            with contextlib.suppress(TimeoutError):
                answer = ask_once(port, request, left_s)
                fault = answer.fault(request) if answer else "no answer"
                if fault is None:
                    return time.perf_counter() - self.started_at
                if fault == WRONG:
                    raise StartError(f"answered {answer and answer.label!r} where {request.label!r} is right")
            if (status := self._process.exit_status()) is not None:
                raise StartError(f"ended with status {status}: {self.last_words()}")
            time.sleep(POLL_S)
        raise StartError(f"gave no right answer within {START_LIMIT_S:.0f} s: {self.last_words()}")

    def ended(self) -> bool:
        """Whether the first process has."""
        return self._process.exit_status() is not None

    def last_words(self) -> str:
        """The last line of its log, or the last of it that names an error."""
        lines = [line.strip() for line in self._process.log_tail().splitlines()] or ["it said nothing"]
        return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])

    def memory(self) -> Memory:
        """What its processes hold now."""
        pids = [process.pid for process in self._members()]
        return Memory(
            pss_mb=sum(_kib("smaps_rollup", pid, PSS) for pid in pids) * KB / MB,
            peak_rss_mb=sum(_kib("status", pid, HIGH_WATER) for pid in pids) * KB / MB,
        )

    def stop(self) -> None:
        """End it, and every process that it ever had as far as we have seen."""
        self._members()
        self._process.terminate()
        self._process.reap(GRACE_S)
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil looks whether the number is still that process's
        psutil.wait_procs(list(self._seen), GRACE_S)

    def _members(self) -> list[psutil.Process]:
        """The live ones. psutil finds children by their parent, whatever session they are in."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            self._seen |= {first, *first.children(recursive=True)}
        return [process for process in self._seen if process.is_running()]


def _kib(file: str, pid: int, pattern: re.Pattern[str]) -> int:
    try:
        match = pattern.search(Path(f"/proc/{pid}/{file}").read_text())
    except OSError:  # it has just ended, or is a zombie
        return 0
    return int(match[1]) if match else 0
