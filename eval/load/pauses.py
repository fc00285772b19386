"""Pauses of the client: while it stood still, what it measured is not the target's.

A laptop's lid is closed, a scheduler stops the process, a core is taken away, the process itself computes for too long:
a timer that comes late shows them all. While a machine is suspended the monotonic clock stands still, and the boot
clock does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from eval.samples.model import PAUSED, TIME_TO_FIRST_PREDICTION, Sample

BEAT_S = 0.05
MAX_STALL_S = 0.25  # by which a beat may come late
SUSPENDED, COMPUTING, STOPPED = "suspended", "computing", "stopped"  # the machine; this process itself; it by others
CAUSES = (SUSPENDED, COMPUTING, STOPPED)
THIS_PROCESS, THIS_MACHINE = "this process", "this machine"
COMPUTING_SHARE = 0.5  # of a pause that this process has computed, if it was itself the cause


@dataclass(frozen=True)
class Clocks:
    """One look at them, in seconds."""

    monotonic_s: float  # of time.perf_counter()
    boot_s: float  # runs on while the machine is suspended
    cpu_s: float  # that this process has used

    @classmethod
    def read(cls) -> Clocks:
        now = time.perf_counter()
        boot = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else now  # Linux alone has it
        return cls(now, boot, time.process_time())


@dataclass(frozen=True)
class ClientPause:
    """One pause, between two beats of time.perf_counter()."""

    start: float
    end: float
    duration_s: float  # longer than that where the machine was suspended
    cause: str
    whose: str = THIS_PROCESS  # or a worker's; of SUSPENDED the machine's


class Heartbeat:
    """Looks at the clocks in every pass of the event loop that it gets, and remembers each pause."""

    def __init__(
        self,
        read: Callable[[], Clocks] = Clocks.read,
        on_pause: Callable[[ClientPause], None] | None = None,
        max_stall_s: float | None = None,
    ):
        """max_stall_s: by which a beat may come late (default: MAX_STALL_S)."""
        self._max_stall_s = MAX_STALL_S if max_stall_s is None else max_stall_s
        self.pauses: list[ClientPause] = []
        self._read, self._on_pause = read, on_pause
        self._last: Clocks | None = None  # of the last beat; None: it does not beat

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat in the background."""
        self._last = self._read()
        task = asyncio.create_task(self._beat_regularly())
        try:
            yield
        finally:
            task.cancel()
            self._last = None

    async def _beat_regularly(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat()

    def beat(self) -> None:
        """Note whether the time since the last beat was a pause."""
        if self._last is None:
            return
        last, now = self._last, self._read()
        self._last = now
        elapsed_s = now.boot_s - last.boot_s
        if elapsed_s <= BEAT_S + self._max_stall_s:
            return
        running_s = now.monotonic_s - last.monotonic_s
        if elapsed_s - running_s > self._max_stall_s:
            cause = SUSPENDED
        elif now.cpu_s - last.cpu_s > COMPUTING_SHARE * running_s:
            cause = COMPUTING
        else:
            cause = STOPPED
        whose = THIS_MACHINE if cause == SUSPENDED else THIS_PROCESS
        pause = ClientPause(last.monotonic_s, now.monotonic_s, elapsed_s, cause, whose)
        if self._on_pause:
            self._on_pause(pause)  # which may write for as long as a pause: that is a part of this one, and no next one
            self._last = self._read()
            pause = replace(pause, end=self._last.monotonic_s)
        self.pauses.append(pause)

    def paused_between(self, start: float, end: float) -> bool:
        """Whether a pause has touched this time, now included."""
        self.beat()
        return any(pause.start <= end and start <= pause.end for pause in reversed(self.pauses))

    def marked(self, sample: Sample, run_start: float) -> Sample:
        """The sample, as of a pause if one has touched its request, or what was before it since the restart."""
        end = run_start + sample.scheduled_s + sample.latency_ms / 1000
        start_ms = sample.startup_ms.get(TIME_TO_FIRST_PREDICTION, 0.0)  # of a restarted service
        if sample.error != "dropped" and self.paused_between(end - max(start_ms, sample.latency_ms) / 1000, end):
            return replace(sample, phase=PAUSED)
        return sample
