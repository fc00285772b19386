"""A real gunicorn with the real app, and an HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 120
SECRETS = ("API_TOKEN", "ENGINE", "MODEL_DIR", "MAX_QUEUE", "BATCH_MAX", "BATCH_WAIT_MS", "GIT_SHA", "WEB_THREADS")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen
    log: Path

    def ask(self, method: str, path: str, body=None, headers=None, timeout: float = 60) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: bytes, kind: str | None = None, **headers) -> Reply:
        return self.ask("POST", path, body, headers | ({"Content-Type": kind} if kind else {}))

    def post_form(self, path: str, *parts: tuple, **headers) -> Reply:
        body, kind = multipart(*parts)
        return self.post(path, body, kind, **headers)


@contextmanager
def gunicorn(log: Path, app: str = "service.wsgi:app", command: Sequence[str] = (), **settings) -> Iterator[Server]:
    """The app as it is deployed. The socket is bound here: the first request waits until the app is there.

    `command` starts it in another way; it takes gunicorn's options.
    """
    env = {name: value for name, value in os.environ.items() if name not in SECRETS} | settings
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log.open("wb") as output:
        port, fd = listener.getsockname()[1], listener.fileno()
        command = command or (sys.executable, "-m", "gunicorn", "--config", "service/gunicorn.conf.py", app)
        words = [*command, "--bind", f"fd://{fd}"]
        process = subprocess.Popen(words, cwd=ROOT, env=env, pass_fds=(fd,), stdout=output, stderr=output)
    try:
        yield Server(port, process, log)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def ready_gunicorn(log: Path, app: str = "service.wsgi:app", **settings) -> Iterator[Server]:
    """The same, once it is ready."""
    with gunicorn(log, app, **settings) as server:
        try:
            reply = server.ask("GET", "/readyz", timeout=START_TIMEOUT_S)
        except OSError as error:
            raise AssertionError(f"not ready ({error}):\n{log.read_text()}") from None
        assert reply.status == 200, log.read_text()
        yield server


def multipart(*parts: tuple) -> tuple[bytes, str]:
    """(name, data) is a field, (name, data, filename) a file; gives body and content type."""
    body = b""
    for name, data, *filename in parts:
        file = f'; filename="{filename[0]}"\r\nContent-Type: application/octet-stream' if filename else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def png_of(width: int, height: int) -> bytes:
    """A real one, all black, one bit a pixel: tiny as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze, rows = zlib.compressobj(9), b""
    row = bytes(1 + (width + 7) // 8)
    for _ in range(height):
        rows += squeeze.compress(row)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows + squeeze.flush()) + chunk(b"IEND", b"")
