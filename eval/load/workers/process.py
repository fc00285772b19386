"""The run's side of one worker: a child process with messages over its stdin and stdout, of this machine or by ssh."""

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from eval.errors import InvalidInput
from eval.interruption import ENDING
from eval.load.nodes.destinations import Node
from eval.load.nodes.ssh import explain_end, signal_name
from eval.load.workers import messages
from eval.load.workers.clock import ClockSample, is_enough
from eval.load.workers.shard import LOCAL
from eval.validation import printable_lines

ROOT = Path(__file__).resolve().parents[3]
LOCAL_COMMAND = (sys.executable, "-m", "eval.load.workers", LOCAL)
EXIT_TIMEOUT_S = 1.0
LAST_BYTES = 4096  # of stderr, which say why it ended

Inbox = asyncio.Queue[tuple["Process", Any, float]]  # who says what, and when it came, of time.perf_counter()


@dataclass(frozen=True, eq=False)
class Process:
    """One worker, as the run sees it."""

    sender: str  # as samples have it: its machine, and its number there
    node: Node | None  # None: of this machine
    title: str  # for people
    process: subprocess.Popen[bytes]
    writer: asyncio.StreamWriter
    errors: IO[bytes]  # what it has written to stderr

    def tell(self, message: object) -> None:
        """Send it a message. One that has ended hears nothing."""
        if not self.writer.is_closing():
            self.writer.write(messages.pack(message))

    def how_it_ended(self) -> str:
        """In words, after its title."""
        try:
            code = self.process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return " closed its connection"
        self.errors.seek(-min(LAST_BYTES, self.errors.seek(0, os.SEEK_END)), os.SEEK_END)
        last_text = self.errors.read().decode(errors="replace")
        if self.node:
            return f": {explain_end(self.node, code, last_text)}"
        how = f" was ended by {signal_name(-code)}" if code < 0 else f" ended with exit code {code}"
        return ": ".join([how, *printable_lines(last_text).strip().splitlines()[-1:]])


class Processes:
    """All workers of a run, and what they say."""

    def __init__(self) -> None:
        self.inbox: Inbox = asyncio.Queue()
        self.all: list[Process] = []
        self._listeners: list[asyncio.Task[None]] = []
        self._files = contextlib.ExitStack()

    async def start(self, number: int, title: str, node: Node | None, command: Sequence[str]) -> None:
        """Start the machine's worker of that number."""
        own, theirs = socket.socketpair()
        errors = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # it is one
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs, signals_blocked(ENDING):
            process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=errors,
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=own, limit=messages.MAX_LINE_BYTES)
        sender = f"{node.name if node else LOCAL}/{number}"
        started = Process(sender, node, title.format(sender=sender, pid=process.pid), process, writer, errors)
        self.all.append(started)
        self._listeners.append(asyncio.create_task(self._listen(started, reader)))

    async def _listen(self, process: Process, reader: asyncio.StreamReader) -> None:
        """Pass on what it says: messages, None at its end, or what is wrong with a line, which is the last then."""
        message: object = self
        while message is not None and not isinstance(message, InvalidInput):
            try:
                line = await messages.read_line(reader)
                now = time.perf_counter()
                message = line and messages.from_line(line)
            except InvalidInput as error:
                message, now = error, time.perf_counter()
            self.inbox.put_nowait((process, message, now))

    async def end(self) -> None:
        """The end of its stream ends a worker; one that does not heed it is killed."""
        for listener in self._listeners:
            listener.cancel()
        for each in self.all:
            each.writer.close()
        await asyncio.to_thread(_wait_or_kill, [each.process for each in self.all])
        self._files.close()
        self.all.clear()


async def collect_clock_samples(
    clock_samples: Mapping[Process, list[ClockSample]], inbox: Inbox, handle: Callable[[Process, Any], None]
) -> None:
    """Ask each of these processes for the time, again and again, and append what comes of it.

    handle: is told whatever else is said.
    """
    sent_at: dict[Process, float] = {}

    def ask(process: Process) -> None:
        sent_at[process] = time.perf_counter()
        process.tell(messages.AskTime())

    start, waiting = time.perf_counter(), set(clock_samples)
    for process in waiting:
        ask(process)
    while waiting:
        process, message, came_at = await inbox.get()
        if not isinstance(message, messages.Time) or process not in sent_at:
            handle(process, message)
            continue
        clock_samples[process].append(ClockSample(sent_at.pop(process), message.now, came_at))
        if is_enough(clock_samples[process], came_at - start):
            waiting.discard(process)
        else:
            ask(process)


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
