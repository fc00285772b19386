"""An endpoint with a known profile, to check measurements against: `./cloudtrial mock-endpoint --profile FILE`.

It serves the wire contract for one image as the body of POST /predict, with the latencies, faults and accuracy of its
profile. It accepts any bytes as an image.
"""

from __future__ import annotations

import asyncio
import signal
import ssl

from eval.mock_server.behaviour import MockEndpoint
from eval.mock_server.http_protocol import Connection
from eval.mock_server.profile import EndpointProfile


async def serve(profile: EndpointProfile, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    endpoint = MockEndpoint(profile, loop.time())
    server = await loop.create_server(lambda: Connection(endpoint, loop), host, port, backlog=1024, ssl=ssl_context)
    print(f"http{'s' if ssl_context else ''}://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()
