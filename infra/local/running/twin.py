"""One running twin: measured, stopped, started again at the same address."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from infra.local.health import wait_until_ready
from infra.local.process import CpuClock, Process
from infra.targets import AWS_SAGEMAKER, Target
from service.engines.names import twin_name
from service.schema import PING, READYZ

READY_TIMEOUT_S = 120  # at most; a target's own limit where that is lower


@dataclass(frozen=True)
class Restart:
    """When a twin was started again, by time.perf_counter()."""

    started_at: float  # just before its process
    ready_at: float  # first success of /readyz


@dataclass(frozen=True)
class Twin:
    """One target with one engine, running here."""

    target: Target
    engine: str  # as ENGINE has it
    model: str  # the name of what it serves
    url: str
    port: int  # of the URL
    startup_ms: float  # from starting the process to the first success of /readyz
    cpus: int  # cores that it is pinned to; all of the machine's where pinning is impossible (macOS)
    proxy: str | None  # "nginx", or None without one
    processes: tuple[Process, ...]  # of its instance, the service first
    title: str  # as people write it
    platform: tuple[Process, ...] = ()  # the platform's own in front, whose memory and CPU time are not the instance's
    ship: Callable[[], str] | None = None  # stages what the store's alias points to now; returns the version

    @property
    def name(self) -> str:
        return twin_name(self.target.name, self.engine)

    @property
    def pid(self) -> int:
        """The service's first process."""
        return self.processes[0].pid

    @property
    def everything(self) -> tuple[Process, ...]:
        """Its processes, and the platform's in front."""
        return (*self.processes, *self.platform)

    def peak_memory_mib(self) -> float:
        """Peak memory of its instance so far; see Process.peak_memory_mib for how exact it is."""
        return sum(process.peak_memory_mib() for process in self.processes)

    def cpu_clock(self) -> CpuClock:
        """The CPU time of its instance, from now until one of them ends or is started again."""
        return CpuClock(pid for process in self.processes for pid in process.members())

    def fits(self) -> bool:
        """Whether that fits the target's memory."""
        return fits(self.target, self.peak_memory_mib())

    def log_tail(self) -> str:
        """The last lines that the service printed."""
        return self.processes[0].log_tail()

    def alive(self) -> bool:
        """Whether all of its processes run."""
        return all(process.exit_status() is None for process in self.everything)

    def crashed(self) -> bool:
        """Whether one of them has ended by itself, rather than because the twin was stopped to be started again."""
        return any(process.crashed() for process in self.everything)

    def stop(self, everything: bool = False) -> None:
        """End the service as its platform does: SIGTERM, a time of grace, SIGKILL. What is in front stays.

        With `everything` it goes too, and the next start is one from nothing. Any thread may call this.
        """
        stop_all(self.everything if everything else self.processes[:1])

    def start(self) -> float:
        """Start what does not run, at the same address. Returns time.perf_counter() just before.

        Does not wait until it is ready. Call it in the thread that entered the context: see pinned_exec.py.
        """
        ended = [process for process in self.everything if process.exit_status() is not None]
        for process in ended:
            process.reap()  # its children
        started_at = time.perf_counter()
        for process in ended:
            process.start()
        return started_at

    def restart(self, everything: bool = False) -> Restart:
        """Stop it, or what is left of it, start it and wait until it is ready.

        Raises TwinError when that fails; however this is left early, nothing of the twin runs then.
        """
        try:
            self.stop(everything)
            started_at = self.start()
            wait_until_ready(self.port, self.everything, ready_timeout_s(self.target), ready_route(self.target))
        except BaseException:
            self.stop(everything=True)
            raise
        return Restart(started_at, time.perf_counter())

    def release(self) -> str | None:
        """What brings a new version of the store's model to a platform that ships it: stage it, and start again.

        Returns the version; None, with nothing done, of a twin that follows the store by itself. Raises as `restart`.
        """
        if self.ship is None:
            return None
        version = self.ship()
        self.restart()
        return version


@dataclass(frozen=True)
class Twins:
    """The running twins, and why the others could not be started."""

    running: list[Twin] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # twin's name -> reason, with the last lines of its log


def fits(target: Target, peak_mib: float) -> bool:
    """Whether a process of this size fits the target's memory."""
    return peak_mib <= target.memory_mib


def ready_timeout_s(target: Target) -> float:
    """How long after its start a twin has to be ready."""
    return min(target.boot_timeout_s, READY_TIMEOUT_S)


def ready_route(target: Target) -> str:
    """What tells that a twin is ready, at its port."""
    return PING if target is AWS_SAGEMAKER else READYZ


def stop_all(processes: Sequence[Process]) -> None:
    """End them all at once, then wait for each."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.reap()
