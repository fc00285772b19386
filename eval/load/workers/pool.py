"""The run's side of its worker processes: starts them, gives them shards, and journals what they send at once.

Nothing is sent twice. A worker that ends takes with it what it had sent without an answer: nobody knows of these, so
they are missing, and the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from eval.errors import EvalError, WorkerLost
from eval.interruption import ENDING
from eval.load import pauses
from eval.load.open_loop import SampleSink
from eval.load.pauses import SUSPENDED, ClientPause
from eval.load.workers import messages
from eval.load.workers.shard import Shard, split
from eval.samples.model import Sample

ROOT = Path(__file__).resolve().parents[3]
READY_TIMEOUT_S = 60.0  # for a worker's imports, and to plan a shard
START_DELAY_S = 0.1  # from all being planned to the first request
END_GRACE_S = 30.0  # after the last request can have ended
CANCEL_TIMEOUT_S = 1.0  # to say what was answered before a run was interrupted
EXIT_TIMEOUT_S = 1.0
WORKER_LOST = "worker {} of {} (process {}) {}; what it had sent without an answer is missing: repeat it with --resume"


@dataclass(frozen=True)
class Process:
    """One worker, as the run sees it."""

    number: int  # from 1
    process: subprocess.Popen[bytes]
    writer: asyncio.StreamWriter
    listener: asyncio.Task[None]
    errors: IO[bytes]  # what it has written to stderr

    def how_it_ended(self) -> str:
        """In words, with its last line."""
        try:
            code = self.process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        self.errors.seek(0)
        last_lines = self.errors.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ": ".join([how, *last_lines])


class WorkerPool:
    """Worker processes that live as long as the run."""

    def __init__(
        self, count: int, run_start: float, on_pause: Callable[[ClientPause], None], scrub: Callable[[str], str] = str
    ):
        """run_start: of time.perf_counter(). on_pause: told of each time in which a worker stood still."""
        self.count = count
        self._arguments = run_start, pauses.MAX_STALL_S  # of a worker
        self._on_pause, self._scrub = on_pause, scrub
        self._inbox: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()  # number of the worker, and what it says
        self._processes: dict[int, Process] = {}
        self._files = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        """Start them, and wait until they are ready. Raises WorkerLost."""
        try:
            for number in range(1, self.count + 1):
                self._processes[number] = await self._start(number)
            await self._all_say(messages.Ready, READY_TIMEOUT_S)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._end()

    async def send_open_loop(self, shard: Shard, record: SampleSink, stopped: Callable[[], bool]) -> None:
        """Send it from all workers, and record each sample as it comes.

        `stopped` is asked after each sample; once it is true, nothing more is sent. Raises WorkerLost, and what
        `record` raises.
        """
        try:
            self._tell(split(shard, self.count))
            await self._all_say(messages.Planned, READY_TIMEOUT_S)
            self._tell([messages.Start(time.perf_counter() + START_DELAY_S)] * self.count)
            limit_s = shard.offsets_s[-1] + shard.timeout_s + END_GRACE_S
            await self._all_say(messages.Done, limit_s, record, stopped)
        except BaseException:
            await self._cancel(record)
            raise

    async def _all_say(
        self,
        what: type,
        timeout_s: float,
        record: SampleSink | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait until every worker has said it. Raises WorkerLost."""
        waiting, told_to_stop = set(self._processes), False
        try:
            async with asyncio.timeout(timeout_s):
                while waiting:
                    number, message = await self._inbox.get()
                    if isinstance(message, what):
                        waiting.discard(number)
                    elif isinstance(message, Sample) and record:
                        record(message)
                    else:
                        self._heed(number, message)
                    if stopped() and not told_to_stop:
                        told_to_stop = True
                        self._tell([messages.Stop()] * self.count)
        except TimeoutError:
            raise self._lost(min(waiting), f"has not answered for {timeout_s:.0f} s") from None

    def _heed(self, number: int, message: Any) -> None:
        if message is None:
            raise self._lost(number, self._processes[number].how_it_ended())
        if isinstance(message, messages.Failed):
            raise self._lost(number, f"failed: {message.text}")
        if isinstance(message, messages.Paused) and message.pause.cause != SUSPENDED:  # that, this process has seen
            self._on_pause(replace(message.pause, process=f"worker {number}"))

    def _lost(self, number: int, how: str) -> WorkerLost:
        pid = self._processes[number].process.pid
        return WorkerLost(self._scrub(WORKER_LOST.format(number, self.count, pid, how)))

    async def _cancel(self, record: SampleSink) -> None:
        """End the sending at once, and record what was answered."""
        self._tell([messages.Cancel()] * self.count)
        waiting = {number for number, each in self._processes.items() if each.process.poll() is None}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                while waiting:
                    number, message = await self._inbox.get()
                    if isinstance(message, Sample):
                        with contextlib.suppress(EvalError):  # of the cost limit, which has ended the run already
                            record(message)
                    elif message is None or isinstance(message, messages.Cancelled):
                        waiting.discard(number)

    def _tell(self, told: Sequence[object]) -> None:
        for each, message in zip(self._processes.values(), told, strict=True):
            each.writer.write(messages.pack(message))

    async def _start(self, number: int) -> Process:
        own, theirs = socket.socketpair()
        errors = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # it is one
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs, signals_blocked(ENDING):
            process = subprocess.Popen(
                [sys.executable, "-m", "eval.load.workers", *map(str, (theirs.fileno(), *self._arguments))],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=own)
        return Process(number, process, writer, asyncio.create_task(self._listen(number, reader)), errors)

    async def _listen(self, number: int, reader: asyncio.StreamReader) -> None:
        message: object = self
        while message is not None:
            message = await messages.receive(reader)
            self._inbox.put_nowait((number, message))

    async def _end(self) -> None:
        """The end of its connection ends a worker; one that does not heed it is killed."""
        for each in self._processes.values():
            each.listener.cancel()
            each.writer.close()
        await asyncio.to_thread(_wait_or_kill, [each.process for each in self._processes.values()])
        self._files.close()
        self._processes.clear()


def _wait_or_kill(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    deadline = time.perf_counter() + EXIT_TIMEOUT_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def signals_blocked(numbers: Iterable[int]) -> Iterator[None]:
    """A process started meanwhile never gets these signals, which a terminal sends to all processes of a command."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
