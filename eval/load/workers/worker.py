"""A worker process: sends the shards that it is given, over connections that it keeps for the whole run.

It ends when its connection to the run does, and so with the run, whatever ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

from eval.load.client import Client
from eval.load.open_loop import run_open_loop
from eval.load.pauses import Heartbeat
from eval.load.workers import messages
from eval.load.workers.shard import Shard
from eval.samples.model import Sample
from eval.validation import parse_json


class Worker:
    """Sends one shard at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, run_start: float, max_stall_s: float
    ):
        self._reader, self._writer, self._run_start = reader, writer, run_start
        self._heartbeat = Heartbeat(on_pause=lambda pause: self._say(messages.Paused(pause)), max_stall_s=max_stall_s)
        self._clients: dict[str, Client] = {}  # by target, for the whole run
        self._shard: Shard | None = None
        self._sending: asyncio.Task[None] | None = None
        self._stopped = False

    async def serve(self) -> None:
        """Do as told until the run ends."""
        parse_json("{}")  # imports pydantic now
        gc.collect()
        gc.freeze()
        gc.disable()
        async with contextlib.AsyncExitStack() as stack:
            self._say(messages.Ready())
            while (message := await messages.receive(self._reader)) is not None:
                if isinstance(message, Shard):
                    await self._plan(message, stack)
                elif isinstance(message, messages.Start):
                    self._sending = asyncio.create_task(self._send(message.at))
                elif isinstance(message, messages.Stop):
                    self._stopped = True
                elif isinstance(message, messages.Cancel):
                    await self._cancel()
                    self._say(messages.Cancelled())
            await self._cancel()

    async def _plan(self, shard: Shard, stack: contextlib.AsyncExitStack) -> None:
        self._shard, self._stopped = shard, False
        if client := self._clients.get(shard.target_name):
            client.use_credentials(shard.signer, shard.scrub)
        else:
            self._clients[shard.target_name] = await stack.enter_async_context(shard.client(self._run_start))
        gc.collect()
        self._say(messages.Planned())

    async def _send(self, start: float) -> None:
        assert self._shard
        shard, heartbeat = self._shard, self._heartbeat

        def record(sample: Sample) -> None:
            self._say(heartbeat.marked(sample, self._run_start))

        def missed(scheduled_at: float) -> bool:
            return heartbeat.paused_between(scheduled_at, scheduled_at)

        try:
            async with heartbeat.beating():
                await run_open_loop(
                    self._clients[shard.target_name], shard.requests, shard.offsets_s, start, shard.max_in_flight,
                    record, missed, lambda: self._stopped,
                )  # fmt: skip
            self._say(messages.Done())
        except Exception as error:  # whatever it is, the run has to know, and its text is read there alone
            self._say(messages.Failed(shard.scrub(f"{type(error).__name__}: {error}")))

    async def _cancel(self) -> None:
        if self._sending:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def _say(self, message: object) -> None:
        self._writer.write(messages.pack(message))


async def serve(connection: socket.socket, run_start: float, max_stall_s: float) -> None:
    """Be a worker of the run at the other end of the connection. max_stall_s: what is no pause yet."""
    reader, writer = await asyncio.open_connection(sock=connection)
    await Worker(reader, writer, run_start, max_stall_s).serve()
