"""A worker's side of its stream: stdin and stdout, of the run itself or of sshd."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import Iterable
from typing import SupportsIndex


class RunReader(asyncio.StreamReader):
    """What the run says, and when it has said something last."""

    def __init__(self) -> None:
        super().__init__()
        self.heard_at = time.perf_counter()
        self._ended = False

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Part of a message has come."""
        self.heard_at = time.perf_counter()
        if not self._ended:
            super().feed_data(data)

    def end(self) -> None:
        """As at the end of the stream: what still comes is not read."""
        self._ended = True
        self.feed_eof()


async def open_stdio() -> tuple[RunReader, asyncio.WriteTransport]:
    """The run's messages, and the way back to it. From now on stdin is empty, and what is printed goes to stderr."""
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    reader = RunReader()
    protocol, loop = asyncio.StreamReaderProtocol(reader), asyncio.get_running_loop()
    if stat.S_ISSOCK(os.fstat(outgoing).st_mode):  # one for both ways, as the run itself makes it
        os.close(incoming)
        transport, _ = await loop.create_connection(lambda: protocol, sock=socket.socket(fileno=outgoing))
        return reader, transport
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(incoming, "rb", 0))
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(outgoing, "wb", 0))
    return reader, transport
