"""The run's side of its workers: gives them shards, and journals what they send at once.

Nothing is sent twice. A worker that ends takes with it what it had sent without an answer: nobody knows of these, so
they are missing, and the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from eval.errors import ClockUncertain, EvalError, InvalidInput, WorkerLost
from eval.load import pauses
from eval.load.client import RequestSpec
from eval.load.nodes.destinations import Node
from eval.load.open_loop import SampleSink
from eval.load.pauses import SUSPENDED, ClientPause
from eval.load.workers import handshake, messages
from eval.load.workers.clock import ClockOffset, ClockSample, estimate_offset, offset_fault
from eval.load.workers.cores import cores_warning
from eval.load.workers.process import LOCAL_COMMAND, Process, Processes, collect_clock_samples
from eval.load.workers.records import sender_record, with_clocks
from eval.load.workers.shard import Shard, split
from eval.samples.model import Sample, SenderRecord

READY_TIMEOUT_S = 60.0  # for a worker's imports, and to plan a shard
CLOCK_TIMEOUT_S = 8.0  # for all clock samples of a block
MAX_LOGINS = 8  # that one machine's sshd is asked for at a time: it drops some of more than 10 (MaxStartups)
START_DELAY_S = 0.1  # from all being planned to the first request, and the slowest link's round trip
END_GRACE_S = 30.0  # after the last request can have ended
CANCEL_TIMEOUT_S = 1.0  # to say what was answered before a run was interrupted
ALIVE_S = 2.0  # so often a worker on another machine hears that the run goes on
MAX_SILENCE_S = 6.0  # after which it ends
LOCAL_TITLE, NODE_TITLE = "worker {number} of {count} (process {{pid}})", "worker {{sender}}"
MISSING = "; what it had sent without an answer is missing: repeat it with --resume"

Task = tuple[Shard, dict[int, RequestSpec]]  # a worker's shard, and what it has not answered yet by index in the block


class WorkerPool:
    """Workers that live as long as the run, of this machine or of others."""

    def __init__(
        self,
        per_machine: int,
        run_start: float,
        on_pause: Callable[[ClientPause], None],
        scrub: Callable[[str], str] = str,
        nodes: Mapping[Node, Sequence[str]] | None = None,
        on_clocks: Callable[[], None] = lambda: None,
    ):
        """run_start: of time.perf_counter(). on_pause: told of each time in which a worker stood still.

        nodes: machines with the command that starts a worker there; None: this machine. on_clocks: called once
        `records` has a block's clocks, before it is sent.
        """
        self._nodes: Mapping[Node | None, Sequence[str]] = {**nodes} if nodes else {None: LOCAL_COMMAND}
        self.per_machine, self.is_local, self.count = per_machine, not nodes, per_machine * len(self._nodes)
        self.records: list[SenderRecord] = []  # of other machines
        self.warnings: list[str] = []  # of machines with fewer cores than workers
        self._run_start, self._on_pause, self._on_clocks, self._scrub = run_start, on_pause, on_clocks, scrub
        self._processes = Processes()
        self._ready: dict[Process, messages.Ready] = {}
        self._tasks: dict[Process, Task] = {}
        self._keepalive_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start them, and wait until they are ready. Raises EvalError."""
        try:
            numbers = range(1, self.per_machine + 1)
            at_once = self.per_machine if self.is_local else MAX_LOGINS
            for first in numbers[::at_once]:
                await self._start(numbers[first - 1 : first - 1 + at_once])
            if not self.is_local:
                self._check_nodes()
            max_silence_s = None if self.is_local else MAX_SILENCE_S
            self._tell_all(messages.Setup(self._run_start, pauses.MAX_STALL_S, max_silence_s))
            if not self.is_local:
                self._keepalive_task = asyncio.create_task(self._keep_alive())
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._end()

    async def _start(self, numbers: Sequence[int]) -> None:
        """Start the workers of these numbers on each machine."""
        for node, command in self._nodes.items():
            for number in numbers:
                title = (NODE_TITLE if node else LOCAL_TITLE).format(number=number, count=self.count)
                await self._processes.start(number, title, node, command)
        started = self._processes.all[len(self._ready) :]
        self._ready |= await self._wait_for_all(messages.Ready, READY_TIMEOUT_S, of=started)

    def _check_nodes(self) -> None:
        """Compare what they are with this machine, and record it. Raises EvalError."""
        own = handshake.describe_worker()
        for process, ready in self._ready.items():
            assert process.node
            if fault := handshake.incompatibility(process.node.name, ready, own):
                raise EvalError(fault)
        ready_of = {process.node: ready for process, ready in self._ready.items()}
        by_name = {node.name: ready_of[node] for node in self._nodes if node}  # in the order in which they were given
        self.records = [sender_record(name, self.per_machine, ready) for name, ready in by_name.items()]
        warnings = [cores_warning(self.per_machine, ready.cores, 0, name) for name, ready in by_name.items()]
        self.warnings = list(filter(None, warnings))

    def elsewhere(self) -> list[str]:
        """The names of those that are other machines than this one, as far as that is known."""
        boot_id = handshake.boot_id()
        others = [process for process, ready in self._ready.items() if ready.boot_id != boot_id]
        return sorted({process.node.name for process in others if process.node})

    async def send_open_loop(self, shard: Shard, record: SampleSink, stopped: Callable[[], bool]) -> None:
        """Send it from all workers, and record each sample as it comes.

        `stopped` is asked after each sample; once it is true, nothing more is sent. Raises WorkerLost, and what
        `record` raises.
        """
        parts = split(shard, self.count)
        self._tasks = {
            process: (part, {request.index_in_block: request for request in part.requests})
            for process, part in zip(self._processes.all, parts, strict=True)
        }
        try:
            for process, (part, _) in self._tasks.items():
                process.tell(part)
            await self._wait_for_all(messages.Planned, READY_TIMEOUT_S)
            offsets, slowest_s = await self._clocks()
            if not self.is_local:
                self.records = with_clocks(self.records, shard.requests[0].block_number, offsets)
                self._on_clocks()
            at = time.perf_counter() + START_DELAY_S + slowest_s
            for process in self._processes.all:
                process.tell(messages.Start(at, offsets.get(process, ClockOffset()).offset_s))
            limit_s = shard.offsets_s[-1] + shard.timeout_s + END_GRACE_S
            await self._wait_for_all(messages.Done, limit_s, record, stopped)
        except BaseException:
            await self._cancel(record)
            raise
        finally:
            self._tasks = {}

    async def _wait_for_all(
        self,
        what: type,
        timeout_s: float,
        record: SampleSink | None = None,
        stopped: Callable[[], bool] = lambda: False,
        of: Sequence[Process] | None = None,
    ) -> dict[Process, Any]:
        """Wait until every worker, or each of these, has said it; return what they said. Raises WorkerLost."""
        said: dict[Process, Any] = {}
        asked, told_to_stop = of or self._processes.all, False
        try:
            async with asyncio.timeout(timeout_s):
                while len(said) < len(asked):
                    process, message, _ = await self._processes.inbox.get()
                    if isinstance(message, what):
                        said[process] = message
                    elif isinstance(message, Sample) and record:
                        record(self._checked(process, message))
                    else:
                        self._handle(process, message)
                    if stopped() and not told_to_stop:
                        told_to_stop = True
                        self._tell_all(messages.Stop())
        except TimeoutError:
            silent = next(process for process in asked if process not in said)
            raise self._lost(silent, f" has not answered for {timeout_s:.0f} s") from None
        return said

    async def _clocks(self) -> tuple[dict[Process, ClockOffset], float]:
        """Of each worker on another machine; and the longest round trip in seconds. Raises WorkerLost."""
        clock_samples = {process: list[ClockSample]() for process in self._processes.all if process.node}
        try:
            async with asyncio.timeout(CLOCK_TIMEOUT_S):
                await collect_clock_samples(clock_samples, self._processes.inbox, self._handle)
        except TimeoutError:
            silent = min(clock_samples, key=lambda process: len(clock_samples[process]))
            raise self._lost(silent, f" has not said the time for {CLOCK_TIMEOUT_S:.0f} s") from None
        offsets = {process: estimate_offset(done) for process, done in clock_samples.items()}
        for process, offset in offsets.items():
            if fault := offset_fault(process.sender, offset):
                raise ClockUncertain(fault)
        return offsets, max((each.round_trip_s for done in clock_samples.values() for each in done), default=0.0)

    def _checked(self, process: Process, sample: Sample) -> Sample:
        """The sample with its sender. Raises WorkerLost for one that the worker cannot have."""
        shard, unanswered = self._tasks[process]
        request = unanswered.pop(sample.index_in_block, None)
        if request is None or not shard.matches_request(sample, request):
            raise self._lost(process, " has sent a sample of a request that it was not given")
        return replace(sample, sender=process.sender)

    def _handle(self, process: Process, message: Any) -> None:
        if message is None:
            raise self._lost(process, process.how_it_ended())
        if isinstance(message, InvalidInput):
            raise self._lost(process, f" has said what cannot be understood: {message}")
        if isinstance(message, messages.Failed):
            raise self._lost(process, f" failed: {message.text}")
        if isinstance(message, messages.Paused):
            self._handle_pause(process, message)

    def _handle_pause(self, process: Process, pause: messages.Paused) -> None:
        if pause.cause == SUSPENDED and process.node is None:
            return  # this process has seen it
        whose = f"the machine of {process.sender}" if pause.cause == SUSPENDED else process.title.partition(" of ")[0]
        self._on_pause(ClientPause(pause.start, pause.end, pause.duration_s, pause.cause, whose))

    def _lost(self, process: Process, how: str) -> WorkerLost:
        """how: goes on after its title."""
        return WorkerLost(self._scrub(f"{process.title}{how}{MISSING if self._tasks else ''}"))

    async def _cancel(self, record: SampleSink) -> None:
        """End the sending at once, and record what was answered."""
        self._tell_all(messages.Cancel())
        waiting = {process for process in self._processes.all if process.process.poll() is None}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                while waiting:
                    process, message, _ = await self._processes.inbox.get()
                    if isinstance(message, Sample):
                        with contextlib.suppress(EvalError):  # of the cost limit, which has ended the run already
                            record(self._checked(process, message))
                    elif message is None or isinstance(message, messages.Cancelled | InvalidInput):
                        waiting.discard(process)

    async def _keep_alive(self) -> None:
        """Let workers on other machines know that the run goes on: a cut link tells neither side."""
        while True:
            await asyncio.sleep(ALIVE_S)
            self._tell_all(messages.Alive())

    def _tell_all(self, message: object) -> None:
        for process in self._processes.all:
            process.tell(message)

    async def _end(self) -> None:
        if self._keepalive_task:
            self._keepalive_task.cancel()
        await self._processes.end()
