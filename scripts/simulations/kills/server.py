"""The mock endpoint in this process, which counts each request, and knows when nothing of a run is under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from eval.mock_server.behaviour import MockEndpoint
from eval.mock_server.http_protocol import Connection
from eval.mock_server.profile import EndpointProfile
from scripts.benchmarks.http_messages import HOST


class CountingServer:
    """One endpoint, of one run."""

    def __init__(self, endpoint: MockEndpoint):
        self.endpoint, self.url = endpoint, ""
        self._connections: set[Connection] = set()
        self._closed = asyncio.Event()
        self.is_reached = False  # by a first request

    def arrived(self) -> Counter[str]:
        """How often each image was posted, by its SHA-256."""
        return Counter(self.endpoint.image_counts)

    async def idle(self) -> None:
        """Wait until all that was sent is counted: until every connection is closed, by processes that have ended."""
        while self._connections:
            self._closed.clear()
            await self._closed.wait()

    def connect(self) -> Connection:
        """A client's connection."""
        server, loop = self, asyncio.get_running_loop()

        class Counted(Connection):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                server._connections.add(self)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                server.is_reached |= bool(server.endpoint.image_counts)

            def connection_lost(self, exc: Exception | None) -> None:
                server._connections.discard(self)
                server._closed.set()

        return Counted(self.endpoint, loop)


@contextlib.asynccontextmanager
async def counting_server(profile: EndpointProfile) -> AsyncIterator[CountingServer]:
    """A running endpoint."""
    loop = asyncio.get_running_loop()
    server = CountingServer(MockEndpoint(profile, loop.time()))
    listener = await loop.create_server(server.connect, HOST, 0)
    server.url = f"http://{HOST}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
