"""A process of a twin with all its children: pinned to cores, restarted, measured, ended for certain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

PINNED_EXEC = Path(__file__).with_name("pinned_exec.py")
LOG_TAIL_LINES = 12
GRACE_PERIOD_S = 12  # from SIGTERM to SIGKILL: more than DRAIN_S of service/server.py
KILL_S = 2  # until the kernel has removed a killed process
POLL_S = 0.02
MIB = 1024 * 1024
INHERITED_VARIABLES = ("LANG", "LD_LIBRARY_PATH", "TMPDIR")  # of this shell's; the environment is bare otherwise
PEAK_RSS = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class Process:
    """A command in a session of its own, which Ctrl-C in the terminal does not reach."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, cpus: Sequence[int], log: Path):
        self.log = log
        self._command = (
            *(sys.executable, "-I", "-S", str(PINNED_EXEC), str(os.getpid()), ",".join(map(str, cpus))),
            *command,
        )
        self._env = dict(env)
        self._cwd = cwd
        self._peak_mib = 0.0
        log.unlink(missing_ok=True)  # a link of that name would be followed
        log.touch(exist_ok=False)
        self.start()

    def start(self) -> None:
        """Start the command; again, when it has ended and was reaped. It ends with the thread that does this."""
        self._log_start = self.log.stat().st_size
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self._command,
                env=bare_environment() | self._env,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self._reaped = False

    def exit_status(self) -> int | None:
        """How it ended, or None while it runs."""
        return self._popen.poll()

    def crashed(self) -> bool:
        """Whether it ended by itself: it was not stopped."""
        return not self._reaped and self.exit_status() is not None

    def peak_memory_mib(self) -> float:
        """Peak memory since it was first started, children included; while it does not run, the last value read.

        Sums each process's own high-water mark, so that pages which they share count once in each: an upper bound.
        Where there is no /proc (macOS) it is the largest sum of resident sizes at the moments of asking: a lower bound.
        """
        if not self._reaped:
            self._peak_mib = max(self._peak_mib, sum(_peak_bytes(pid) for pid in self.members()) / MIB)
        return self._peak_mib

    def members(self) -> list[int]:
        """The process and its children, as far as they run."""
        return [pid for pid in psutil.pids() if _is_live_member(pid, self.pid)]

    def terminate(self) -> None:
        """Send SIGTERM; it may finish its open requests."""
        self.peak_memory_mib()
        if self.exit_status() is None:
            self._popen.terminate()

    def reap(self, grace_s: float = GRACE_PERIOD_S) -> None:
        """Wait for its end; after the grace period kill it and its children."""
        if self._reaped:
            return  # its PID may be another process's by now
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        deadline = time.monotonic() + KILL_S
        while self.members() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self._reaped = True

    def log_tail(self) -> str:
        """The last lines of what it printed since it was last started."""
        with self.log.open(errors="replace", encoding="utf-8") as lines:
            lines.seek(self._log_start)
            return "".join(deque(lines, LOG_TAIL_LINES)).rstrip()


class CpuClock:
    """The CPU time of processes that run already. A read takes a microsecond: it can stand between two requests."""

    def __init__(self, pids: Iterable[int]):
        self._clock_ids = [clock_id for pid in pids if (clock_id := _cpu_clock_id(pid)) is not None]
        self._last_s = self._read_s()

    def lap_ms(self) -> float | None:
        """Since it was made, or since the last call; None where the system does not say (macOS), or one has ended."""
        last_s, self._last_s = self._last_s, self._read_s()
        return None if last_s is None or self._last_s is None else round((self._last_s - last_s) * 1000, 3)

    def _read_s(self) -> float | None:
        try:
            return sum(map(time.clock_gettime, self._clock_ids)) if self._clock_ids else None
        except OSError:
            return None


def _cpu_clock_id(pid: int) -> int | None:
    """POSIX's clock of another process's CPU time, of all its threads."""
    clock_id = ctypes.c_int()
    try:
        return clock_id.value if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock_id)) == 0 else None
    except AttributeError:  # a system without it
        return None


def bare_environment() -> dict[str, str]:
    """The environment of a platform's process: programs beside this Python first, and no setting of this shell."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH") or os.defpath))
    return {"PATH": path} | {name: os.environ[name] for name in INHERITED_VARIABLES if os.environ.get(name)}


def _is_live_member(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess, PermissionError):
        return False


def _peak_bytes(pid: int) -> int:
    try:
        if sys.platform != "linux":
            return psutil.Process(pid).memory_info().rss
        match = PEAK_RSS.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
        return int(match[1]) * 1024 if match else 0
    except (OSError, psutil.Error):
        return 0  # it has just ended
