"""A small endpoint that speaks the wire contract, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

from eval.dataset.image_set import EncodedImage, ImageSet
from eval.samples.model import ImageEntry
from infra.models import DEFAULT_MODEL
from tests.conftest import picture_bytes

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CERTAIN = tuple(1.0 if i == 3 else 0.0 for i in range(10))
GOOD = {"id": 3, "label": "cat", "probability": 1.0, "probabilities": list(CERTAIN)}
HEADERS = {
    "X-Instance-Id": "abc123",
    "X-Model-Version": "0123456789ab",
    "Server-Timing": "decode;dur=0.5, queue;dur=0.1, inference;dur=7.25, total;dur=8",
}


def picture(index: int = 0, label: int = 3) -> EncodedImage:
    """A PNG, different for every index."""
    data = picture_bytes(size=(32, 32 + index))
    return EncodedImage(ImageEntry(f"cat/{index}.png", hashlib.sha256(data).hexdigest(), label), data, "image/png")


def image_set(count: int) -> ImageSet:
    """Pictures with the reference beside them, as the golden set has it."""
    pictures = tuple(picture(i) for i in range(count))
    return ImageSet("test pictures", CLASSES, pictures, (CERTAIN,) * count, "0123456789ab", model=DEFAULT_MODEL)


@dataclass
class Fake:
    """An endpoint in a thread. `mode` is read at every prediction."""

    url: str = ""
    mode: str = "good"
    posts: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)  # of /version and /readyz
    wanted_token: str = ""  # without which /version is closed
    engine: str | None = None  # as /version tells it
    logins: int = 0  # requests of the page that a redirect leads to
    on_post: Callable[[int], None] = lambda count: None  # told how many predictions were asked for, before each answer
    stop: Callable[[], None] = lambda: None  # close the port and every connection
    release: threading.Event = field(default_factory=threading.Event)

    async def predict(self, request: web.Request) -> web.StreamResponse:
        self.posts.append(request)
        self.bodies.append(await request.read())
        self.on_post(len(self.posts))
        return await getattr(self, f"_{self.mode}")(request)

    async def version(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if self.wanted_token and request.headers.get("Authorization") != f"Bearer {self.wanted_token}":
            return web.json_response({"status": 401}, status=401)
        told = {"engine": self.engine} if self.engine else {}
        return web.json_response({"model": {"name": "fake"}, "instance_id": "abc123"} | told)

    async def ready(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.json_response({"status": "ready"})

    async def login(self, _: web.Request) -> web.Response:
        self.logins += 1
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async def _good(self, _: web.Request, **changes) -> web.Response:
        return web.json_response(GOOD | changes, headers=HEADERS | {"X-Request-Ordinal": str(len(self.posts))})

    async def _html(self, _: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async def _redirect(self, _: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/login"})

    async def _unauthorised(self, request: web.Request) -> web.Response:
        problem = {"status": 401, "detail": f"wrong: {request.headers.get('Authorization')}"}
        return web.json_response(problem, status=401, content_type="application/problem+json")

    async def _gone(self, _: web.Request) -> web.Response:
        return web.json_response({"status": 404, "detail": "there is no '/predict/predict'"}, status=404)

    async def _not_allowed(self, _: web.Request) -> web.Response:
        return web.Response(status=405)

    async def _throttled(self, _: web.Request) -> web.Response:
        return web.Response(status=429, text="slow down")

    async def _broken(self, _: web.Request) -> web.Response:
        return web.Response(status=500, text="Internal error")

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.to_thread(self.release.wait)
        return await self._good(request)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 65536)
        return response

    async def _torn(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": 3')
        assert request.transport
        request.transport.close()
        return response

    async def _hangup(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    async def _not_http(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        request.transport.close()
        return web.Response()


def answering(**changes) -> str:
    """A mode that answers the good answer with changes."""
    name = f"answer_{hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:8]}"
    setattr(Fake, f"_{name}", lambda self, request: partial(Fake._good, self)(request, **changes))
    return name


@contextlib.contextmanager
def fake_endpoint(mode: str = "good", tls: ssl.SSLContext | None = None) -> Iterator[Fake]:
    """A running endpoint; with `tls`, over https."""
    fake, loop = Fake(mode=mode), asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/predict", fake.predict)
    app.router.add_get("/version", fake.version)
    app.router.add_get("/readyz", fake.ready)
    app.router.add_get("/login", fake.login)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        fake.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    fake.stop = lambda: asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    try:
        yield fake
    finally:
        fake.release.set()
        fake.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
