"""An endpoint whose truth is known, to check the harness against: `./cloudtrial mock-endpoint --truth truth.json`.

It speaks the wire contract, for one picture as the body of POST /predict, and is as slow, as wrong and as faulty as
its truth says. Any bytes will do as a picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import selectors
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.errors import EvalError
from eval.mock_server.behaviour import COUNTS_PATH, MockEndpoint
from eval.mock_server.http_protocol import Connection
from eval.mock_server.profile import EndpointProfile

ROOT = Path(__file__).resolve().parents[2]
SHUTDOWN_TIMEOUT_S = 10.0  # that a mock endpoint gets to end


class MicrosecondSelector(selectors.DefaultSelector):
    """Waits to the microsecond: epoll alone rounds up to whole milliseconds, and every answer would be late by half."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            select.select([self.fileno()], [], [], timeout)
        return super().select(0)


async def serve(profile: EndpointProfile, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
    """Answer until SIGTERM or Ctrl-C."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    endpoint = MockEndpoint(profile, loop.time())
    server = await loop.create_server(lambda: Connection(endpoint, loop), host, port, backlog=1024, ssl=ssl_context)
    print(f"http{'s' if ssl_context else ''}://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


@contextlib.contextmanager
def running_mock_endpoint(profile: EndpointProfile, *options: str) -> Iterator[str]:
    """The address of a mock endpoint that knows this truth, in a process of its own. Raises EvalError.

    `options` are of its command line, such as "--core", "1".
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(profile.to_json()))
        command = [sys.executable, "-m", "eval.mock_server", "--truth", str(path), *options]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                if url := process.stdout.readline().strip():
                    yield url
            finally:
                process.terminate()
                stderr_text = _stop_and_show_stderr(process)
            if not url:
                raise EvalError(f"the mock endpoint did not start: {stderr_text}")


def _stop_and_show_stderr(process: subprocess.Popen[str]) -> str:
    """Wait for its end. Gives what it wrote as errors, and shows it."""
    try:
        _, stderr_text = process.communicate(timeout=SHUTDOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr_text = process.communicate()
    sys.stderr.write(stderr_text)
    return stderr_text.strip()


def request_counts(url: str) -> dict[str, Any]:
    """What it was sent: number of predictions, of each image by sha256, what was given, its instances."""
    with urllib.request.urlopen(url + COUNTS_PATH, timeout=10) as response:
        return json.load(response)
