"""A worker process: sends the shards that it is given, over connections that it keeps for the whole run.

It ends when its stream from the run does, and so with the run, whatever ends that. A link may be cut without a word: on
another machine it also ends when it has heard nothing for some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from dataclasses import dataclass

from eval.load.client import Client
from eval.load.open_files import raise_file_limit
from eval.load.open_loop import run_open_loop
from eval.load.pauses import ClientPause, Heartbeat
from eval.load.workers import handshake, messages
from eval.load.workers.shard import Shard
from eval.load.workers.stdio import RunReader, open_stdio
from eval.samples.model import Sample
from eval.validation import parse_json

SILENCE_CHECK_S = 0.5
CATCH_UP_S = 0.1  # after this process stood still, for what has come meanwhile to be read
NOT_HEARD = "it has heard nothing of the run for {:.0f} s"


@dataclass
class Times:
    """The run's clock, as this process has it."""

    setup: messages.Setup
    offset_s: float = 0.0  # that its own is ahead

    @property
    def run_start(self) -> float:
        """By its own clock."""
        return self.setup.run_start + self.offset_s


class Worker:
    """Sends one shard at a time."""

    def __init__(
        self,
        reader: RunReader,
        writer: asyncio.WriteTransport,
        stack: contextlib.AsyncExitStack,
        *,
        is_local: bool,
    ):
        """is_local: on the run's machine, and so of its code."""
        self._reader, self._writer, self._stack = reader, writer, stack
        self._is_local = is_local
        self._clients: dict[str, Client] = {}  # by target, for the whole run
        self._shard: Shard | None = None
        self._sending: asyncio.Task[None] | None = None
        self._stopped = False
        self.silent_for_s: float | None = None  # why it ended, if that was it

    async def serve(self) -> None:
        """Do as told until the run ends."""
        parse_json("{}")  # imports pydantic now
        self._say(handshake.describe_worker(with_code=not self._is_local))
        gc.collect()
        gc.freeze()
        gc.disable()
        setup = await messages.receive(self._reader)
        if not isinstance(setup, messages.Setup):
            return
        self._times = Times(setup)
        self._heartbeat = Heartbeat(on_pause=self._say_pause, max_stall_s=setup.max_stall_s)
        watch = asyncio.create_task(self._end_in_silence(setup.max_silence_s)) if setup.max_silence_s else None
        while (message := await messages.receive(self._reader)) is not None:
            await self._do(message)
        await self._cancel()
        if watch:
            watch.cancel()

    async def _do(self, message: object) -> None:
        match message:
            case messages.AskTime():
                self._say(messages.Time(time.perf_counter()))
            case Shard():
                await self._plan(message)
            case messages.Start(at, offset_s):
                self._times.offset_s = offset_s
                self._sending = asyncio.create_task(self._send(at + offset_s))
            case messages.Stop():
                self._stopped = True
            case messages.Cancel():
                await self._cancel()
                self._say(messages.Cancelled())

    async def _plan(self, shard: Shard) -> None:
        self._shard, self._stopped = shard, False
        if client := self._clients.get(shard.target_name):
            client.use_credentials(shard.signer, shard.scrub)
        else:
            raise_file_limit(shard.max_in_flight * (len(self._clients) + 1))
            client = await self._stack.enter_async_context(shard.client(self._times.run_start))
            self._clients[shard.target_name] = client
        gc.collect()
        self._say(messages.Planned())

    async def _send(self, start: float) -> None:
        """Send the shard. start: by this process's clock; samples have times since the run's start, by either."""
        assert self._shard
        shard, heartbeat, run_start = self._shard, self._heartbeat, self._times.run_start
        client = self._clients[shard.target_name]
        client.run_start = run_start

        def record(sample: Sample) -> None:
            self._say(heartbeat.marked(sample, run_start))

        def missed(scheduled_at: float) -> bool:
            return heartbeat.paused_between(scheduled_at, scheduled_at)

        try:
            async with heartbeat.beating():
                await run_open_loop(
                    client, shard.requests, shard.offsets_s, start, shard.max_in_flight, record, missed,
                    lambda: self._stopped,
                )  # fmt: skip
            self._say(messages.Done())
        except Exception as error:  # whatever it is, the run has to know, and its text is read there alone
            self._say(messages.Failed(shard.scrub(f"{type(error).__name__}: {error}")))

    async def _cancel(self) -> None:
        if self._sending:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _end_in_silence(self, max_silence_s: float) -> None:
        """End as at the end of the stream, when the run has not been heard for so long."""
        while True:
            await asyncio.sleep(SILENCE_CHECK_S)
            if time.perf_counter() - self._reader.heard_at > max_silence_s:
                await asyncio.sleep(CATCH_UP_S)
                if (silent_for_s := time.perf_counter() - self._reader.heard_at) > max_silence_s:
                    self.silent_for_s = silent_for_s
                    self._reader.end()
                    return

    def _say_pause(self, pause: ClientPause) -> None:
        offset_s = self._times.offset_s
        self._say(messages.Paused(pause.start - offset_s, pause.end - offset_s, pause.duration_s, pause.cause))

    def _say(self, message: object) -> None:
        self._writer.write(messages.to_line(message))


async def serve(*, is_local: bool) -> str | None:
    """Be a worker of the run at the other end of stdin and stdout. Returns why it ended, if not with the run."""
    reader, writer = await open_stdio()
    async with contextlib.AsyncExitStack() as stack:
        worker = Worker(reader, writer, stack, is_local=is_local)
        await worker.serve()
    return None if worker.silent_for_s is None else NOT_HEARD.format(worker.silent_for_s)
