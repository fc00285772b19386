"""The ASGI application that granian calls: waits for clients without a thread, and runs the WSGI application in one.

A body is read here before a thread is taken: within BODY_TIMEOUT_S, and from one budget of bytes for all bodies. Then
the WSGI application answers from memory. Meanwhile the connection is watched: work for a client that has disconnected
is dropped. An answer to a wrong token waits here.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from service import schema
from service.client_connection import ClientConnection
from service.errors import BadRequest, ClientDisconnected, Problem, RequestTimeout
from service.web.middleware import (
    CLIENT_CONNECTION,
    DELAY_S,
    DRAIN_BYTES,
    DRAIN_TIMEOUT_S,
    PROBLEM,
    RECEIVED_AT,
    SHORT_BODY_BYTES,
    BodyBudget,
    Environ,
    RequestMiddleware,
    Response,
    too_large,
)

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 30.0  # for a body, from its head to its last byte
CLOSE_S = 0.1  # hyper may miss the end of a body that is dropped while its answer is written, and stay connected
WATCH_AFTER_S = 0.1  # requests that last longer are watched, which costs some 0.1 ms
REFUSALS_PER_CLOSE = 32  # one of so many closes its connection: who waits to be accepted gets the place
OTHER_THREADS = 4  # for whatever is no prediction: all of it is short
PROBES = (schema.HEALTHZ, schema.READYZ, schema.PING, schema.V2_LIVE, schema.V2_READY)


@dataclass(slots=True)
class Body:
    """A request's body as far as it has come."""

    receive: Receive
    budget: BodyBudget
    data: bytearray = field(default_factory=bytearray)
    reserved_bytes: int = 0
    ended: bool = False  # read to its end, or its sender is gone

    async def read(self, declared: int | None) -> bytes:
        """All of it. Raises Problem for one that is too long, too slow or incomplete, or finds no memory."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while not self.ended and len(self.data) != declared:
                    await self._read_more(declared)
        except TimeoutError:
            self.ended = True  # it is not waited for any longer
            received = f"{len(self.data)} bytes of the body came within {BODY_TIMEOUT_S:g} s"
            raise RequestTimeout(f"only {received}; send it faster, or a smaller image") from None
        self.ended = True
        content, self.data = bytes(self.data), bytearray()
        return content

    async def _read_more(self, declared: int | None) -> None:
        message = await self.receive()
        if message["type"] == "http.disconnect":  # or a chunk that is none
            self.ended = True
            expected = "" if declared is None else f" of {declared}"
            raise BadRequest(f"the body ended after {len(self.data)}{expected} bytes; send it again")
        self.ended = not message.get("more_body", False)
        chunk = message.get("body", b"")
        if len(self.data) + len(chunk) > schema.MAX_BODY_BYTES:
            raise too_large()
        if len(self.data) + len(chunk) > SHORT_BODY_BYTES:
            self.budget.take(len(chunk))
            self.reserved_bytes += len(chunk)
        self.data += chunk

    async def drain(self) -> None:
        """Read the rest and forget it: closing a connection with unread bytes resets it and loses the response."""
        left = DRAIN_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while not self.ended and left > 0:
                    message = await self.receive()
                    self.ended = not message.get("more_body", False)
                    left -= len(message.get("body", b""))
        self.ended = True

    def release(self) -> None:
        """Return its memory."""
        self.data = bytearray()
        self.budget.give_back(self.reserved_bytes)


class AsgiApp:
    """Calls the WSGI application for every request."""

    def __init__(self, wsgi: RequestMiddleware, web_threads: int):
        self._ending = False
        self._refusals = 0
        self._wsgi = wsgi
        self._state = wsgi.state
        self._predictions = ThreadPoolExecutor(web_threads, "prediction")
        self._others = ThreadPoolExecutor(OTHER_THREADS, "other")

    def end(self, *signalled: Any) -> None:
        """From now on every answer closes its connection."""
        self._ending = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._wsgi.is_full() and is_short_prediction(scope):
            await self._refuse(receive, send)
        else:
            await self._answer(wsgi_environ(scope), receive, send)

    async def _refuse(self, receive: Receive, send: Send) -> None:
        """Under overload most responses are this one, and the network needs the CPU: without WSGI, half its cost."""
        with suppress(Problem):
            await Body(receive, self._state.bodies).read(None)
        await self._send(send, self._wsgi.refusal())

    async def _answer(self, environ: Environ, receive: Receive, send: Send) -> None:
        body = Body(receive, self._state.bodies)
        try:
            response = await self._respond(environ, body)
            if delay_s := environ.get(DELAY_S):
                await asyncio.sleep(delay_s)
            if response:
                too_slow = isinstance(environ.get(PROBLEM), RequestTimeout)
                await self._send(send, response, closing=too_slow)
                if too_slow:
                    await asyncio.sleep(CLOSE_S)
        finally:
            body.release()
        if not body.ended and has_body(environ) and "HTTP_EXPECT" not in environ:  # who waits for 100 sends no more
            await body.drain()

    async def _send(self, send: Send, response: Response, *, closing: bool = False) -> None:
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self._refusals += 1
            closing |= self._refusals % REFUSALS_PER_CLOSE == 0
        await send_response(send, response, closing=closing or self._ending)

    async def _respond(self, environ: Environ, body: Body) -> Response | None:
        """The answer, or None when nobody waits for it any more."""
        is_post = environ["REQUEST_METHOD"] == "POST"
        if environ["PATH_INFO"] in PROBES and not is_post:
            return respond(self._wsgi, environ)  # whatever waits for a thread
        if not is_post or self._wsgi.refuses_head(environ) or not await self._read(environ, body):
            return await asyncio.wrap_future(self._others.submit(respond, self._wsgi, environ))
        connection = environ[CLIENT_CONNECTION] = ClientConnection()
        future = self._predictions.submit(respond, self._wsgi, environ)
        answer = asyncio.wrap_future(future)
        done, _ = await asyncio.wait((answer,), timeout=WATCH_AFTER_S)
        if not done:
            gone = asyncio.ensure_future(disconnect(body.receive))  # ends with the answer at the latest
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            connection.closed = not answer.done()
            if connection.closed and future.cancel():  # it had no thread yet
                self._state.metrics.error(ClientDisconnected.title)
                return None
        return await answer

    async def _read(self, environ: Environ, body: Body) -> bool:
        """Read the body. False: there is a PROBLEM."""
        declared = int(environ["CONTENT_LENGTH"]) if "CONTENT_LENGTH" in environ else None
        is_long = has_body(environ) and (declared is None or declared > SHORT_BODY_BYTES)
        try:
            if is_long:
                self._state.classifier.check_room()
            with self._state.metrics.in_flight.track_inprogress():
                content = await body.read(declared if has_body(environ) else 0)
        except Problem as problem:
            environ[PROBLEM] = problem
            return False
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(content), str(len(content))
        environ[RECEIVED_AT] = time.perf_counter()
        return True


def has_body(environ: Environ) -> bool:
    return "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ


def is_short_prediction(scope: Scope) -> bool:
    """Whether a program, not a browser, sends one image of a declared, small size."""
    if scope["path"] != schema.PREDICT or scope["method"] != "POST":
        return False
    headers = dict(scope["headers"])
    if b"origin" in headers:  # a browser's page, whose origin the answer may have to name
        return False
    length = headers.get(b"content-length", b"")
    return length.isdigit() and int(length) <= SHORT_BODY_BYTES and b"text/" not in headers.get(b"accept", b"")


async def disconnect(receive: Receive) -> None:
    """Returns once the client has disconnected or has its answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


def wsgi_environ(scope: Scope) -> Environ:
    """The environ of a request whose body is empty so far."""
    server, client = scope.get("server") or ("", 0), scope.get("client") or ("", 0)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": "/" + scope["path"].lstrip("/").encode().decode("latin-1"),  # as Flask's router reads //predict
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if b"_" not in name:  # or X_FORWARDED would count as X-Forwarded
            key, text = environ_key(name), value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


@lru_cache(256)
def environ_key(header: bytes) -> str:
    key = header.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def respond(wsgi: RequestMiddleware, environ: Environ) -> Response:
    """Call the WSGI application."""
    started: list[Any] = []
    chunks = wsgi(environ, lambda status, headers, *_: started.extend((status, headers)))
    try:
        body = b"".join(chunks)
    finally:
        if close := getattr(chunks, "close", None):
            close()
    status, headers = started
    return Response(int(status[:3]), headers, body)


async def send_response(send: Send, response: Response, *, closing: bool) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
