"""What a live cloud runs: a version that answers over HTTP, the front that leads to one, and a stream of requests."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

BOOT_S = 0.3
PERIOD_S = 0.01  # of the stream


class _Server(ThreadingHTTPServer):
    """A port of its own, served until `stop`."""

    request_queue_size = 64

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Version(_Server):
    """One deployed version: its port is open at once, it is ready after BOOT_S, a broken one never."""

    def __init__(self, git_sha: str, model_sha256: str, *, broken: bool):
        self.git_sha, self.model_sha256 = git_sha, model_sha256
        self.broken = broken
        self.boot()
        super().__init__(_VersionHandler)

    def boot(self) -> None:
        """From the start on."""
        self.ready_at_s = float("inf") if self.broken else time.monotonic() + BOOT_S

    @property
    def ready(self) -> bool:
        return time.monotonic() >= self.ready_at_s

    def wait(self) -> bool:
        """Waits for the end of its boot. Returns whether it is ready."""
        time.sleep(BOOT_S)
        return self.ready


class Front(_Server):
    """The address that clients know. It leads to `version`, or nowhere."""

    version: Version | None = None

    def __init__(self) -> None:
        super().__init__(_FrontHandler)


class _Handler(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


class _VersionHandler(_Handler):
    def do_GET(self) -> None:
        version = cast(Version, self.server)
        reported = {"git_sha": version.git_sha, "model": {"sha256": version.model_sha256}}
        self.answer(200 if version.ready else 503, json.dumps(reported).encode())


class _FrontHandler(_Handler):
    def do_GET(self) -> None:
        version = cast(Front, self.server).version
        if version is None:
            return self.answer(503, b"")
        try:
            with urllib.request.urlopen(f"http://{version.address}{self.path}", timeout=10) as response:
                return self.answer(response.status, response.read())
        except OSError:
            return self.answer(502, b"")


@dataclass
class Stream:
    """What came of each request, in the order in which they were sent: who answered; None: it was lost."""

    answers: list[str | None] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.answers.count(None)

    @property
    def gaps(self) -> int:
        """How many times answers ceased."""
        pairs = zip(["", *self.answers], self.answers, strict=False)
        return sum(before is not None and now is None for before, now in pairs)

    @property
    def versions(self) -> list[str]:
        """Who answered, the first one first."""
        return list(dict.fromkeys(each for each in self.answers if each))


@contextmanager
def stream_of_requests(front: Front) -> Iterator[Stream]:
    """Asks one after the other, every PERIOD_S where answers are as quick, from before the block until after it."""
    stream, end = Stream(), threading.Event()

    def ask() -> None:
        while not end.wait(PERIOD_S):
            try:
                with urllib.request.urlopen(f"http://{front.address}/predict", timeout=10) as response:
                    stream.answers.append(json.loads(response.read())["git_sha"])
            except OSError:
                stream.answers.append(None)

    client = threading.Thread(target=ask, daemon=True)
    client.start()
    try:
        yield stream
    finally:
        time.sleep(10 * PERIOD_S)  # some answers of the end
        end.set()
        client.join()
