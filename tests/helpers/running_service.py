"""The real service, and an HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.health import free_ports

ROOT = Path(__file__).resolve().parents[2]
SERVE = (sys.executable, "-m", "service.server")
START_TIMEOUT_S = 120
SETTINGS = (
    "ALLOWED_ORIGINS",
    "PROTECT_STATUS",
    "API_TOKEN",
    "ENGINE",
    "MODEL_DIR",
    "MAX_QUEUE",
    "BATCH_MAX",
    "BATCH_WAIT_MS",
    "GIT_SHA",
    "DEPLOYMENT",
    "WEB_THREADS",
    "KEEP_ALIVE_S",
    "MODEL_STORE",
    "MODEL",
    "MODEL_POLL_S",
    "MANAGE_TOKEN",
    "FEEDBACK_MEMORY",
    "KEEP_IMAGES",
    "KEEP_IMAGES_MB",
)


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

    def ready(self) -> bool:
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def get(self, path: str, **headers) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: bytes, kind: str | None = None, **headers) -> Reply:
        return self.ask("POST", path, body, headers | ({"Content-Type": kind} if kind else {}))

    def post_form(self, path: str, *parts: tuple, **headers) -> Reply:
        body, kind = multipart(*parts)
        return self.post(path, body, kind, **headers)


@contextmanager
def started_service(log: Path, command: Sequence[str] = SERVE, **settings: str) -> Iterator[Server]:
    """The service as it is deployed, still loading. `command` starts it in another way."""
    (port,) = free_ports(1)
    env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    env |= {"HOST": "127.0.0.1", "PORT": str(port)} | settings
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        yield Server(port, process, log)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def ready_service(log: Path, command: Sequence[str] = SERVE, **settings: str) -> Iterator[Server]:
    """The same, once it is ready."""
    with started_service(log, command, **settings) as server:
        give_up = time.monotonic() + START_TIMEOUT_S
        while not server.ready():
            assert time.monotonic() < give_up and server.process.poll() is None, f"not ready:\n{log.read_text()}"
            time.sleep(0.01)
        yield server


def metrics_without_instance(text: str) -> dict[str, float]:
    """Series as they are written -> value, without the label that every one of a process has alike."""
    bare = re.sub(r'\{instance="[0-9a-f]+"\}|(?<=\{)instance="[0-9a-f]+",|,instance="[0-9a-f]+"', "", text)
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in bare.splitlines() if line[0] != "#")
    }


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
