"""HTTP/1.1 as far as the oracle needs it: requests with a Content-Length, one after another on a connection.

Written for this, because it has to answer thousands of requests a second beside the client that measures it, and has
to be able to break every rule of HTTP.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Protocol

from eval.errors import MalformedRequest
from service import schema

MAX_HEAD_BYTES = 65_536
ENDLESS = b"%x\r\n%b\r\n" % (65_536, b" " * 65_536)  # one chunk
LOGIN = "/login"
KEEP, CLOSE, ABORT, SILENT, POUR = "keep", "close", "abort", "silent", "pour"  # what follows the answer's bytes


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    body: bytes
    last: bool = False  # the client wants the connection to be closed


@dataclass(frozen=True)
class Reply:
    """What goes over the wire, and when."""

    due: float  # time of the event loop
    data: bytes
    then: str = KEEP


class Answering(Protocol):
    """Who gives the replies."""

    def reply(self, request: Request, arrived: float) -> Reply: ...


def take_request(buffer: bytearray) -> Request | None:
    """The next whole request, taken out of the buffer; None while it is not all there. Raises MalformedRequest."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise MalformedRequest(f"the head is over {MAX_HEAD_BYTES} bytes")
        return None
    line, *lines = buffer[:end].decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in lines)}
    length = fields.get("content-length", "0")
    if not length.isdecimal() or int(length) > schema.MAX_BODY_BYTES or "transfer-encoding" in fields:
        raise MalformedRequest(f"the oracle needs a Content-Length of at most {schema.MAX_BODY_BYTES}")
    whole = end + 4 + int(length)
    if len(buffer) < whole:
        return None
    body = bytes(buffer[end + 4 : whole])
    del buffer[:whole]
    try:
        method, target, _ = line.split(" ")
    except ValueError:
        raise MalformedRequest("the first line is not HTTP") from None
    path, _, query = target.partition("?")
    return Request(method, path, query, body, fields.get("connection", "").lower() == "close")


def response(status: int, body: bytes, head: str = "", media_type: str = "application/json") -> bytes:
    """An answer as it goes over the wire; `head` holds further header lines, each with its line end."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n{head}\r\n"
    ).encode() + body


def problem(status: int, detail: str, head: str = "") -> bytes:
    """A problem document, as the service has it."""
    facts = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return response(status, json.dumps(facts).encode(), head, schema.PROBLEM_TYPE)


def faulty(fault: str, due: float, right: bytes, head: str, retry_after_s: int) -> Reply:
    """What is given instead of the right answer: a name of profile_validation.FAULTS. `head`: who answers."""
    later = f"{head}Retry-After: {retry_after_s}\r\n"
    match fault:
        case "http_4xx":
            return Reply(due, problem(422, "the oracle does not like this picture", head))
        case "http_429":
            return Reply(due, problem(429, "the oracle was asked too often", later))
        case "http_5xx":
            return Reply(due, problem(503, "the oracle is too busy", later))
        case "wrong_shape":
            return Reply(due, response(200, b'{"id": 3, "label": "cat", "probabilities": [1]}', head))
        case "not_json":
            return Reply(due, response(200, b"<html>all is well</html>", head, "text/html"))
        case "login":
            return Reply(due, response(302, b"", f"Location: {LOGIN}\r\n", "text/html"))
        case "endless":
            return Reply(due, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", POUR)
        case "not_http":
            return Reply(due, b"SSH-2.0-OpenSSH_9.9\r\n", CLOSE)
        case "torn":
            return Reply(due, right[: right.index(b"\r\n\r\n") + 10], CLOSE)
        case "hang_up":
            return Reply(due, b"", ABORT)
        case "never":
            return Reply(due, b"", SILENT)
    raise ValueError(fault)


class Connection(asyncio.Protocol):
    """One client's connection: each request is answered when its reply is due."""

    transport: asyncio.Transport

    def __init__(self, oracle: Answering, loop: asyncio.AbstractEventLoop):
        self._oracle = oracle
        self._loop = loop
        self._buffer = bytearray()
        self._may_write = True
        self._pouring = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream protocol is given a Transport

    def data_received(self, data: bytes) -> None:
        arrived = self._loop.time()
        self._buffer += data
        try:
            while (request := take_request(self._buffer)) is not None:
                reply = self._oracle.reply(request, arrived)
                give = partial(self._give, reply.data, reply.then, request.last)
                if reply.due > arrived:
                    self._loop.call_at(reply.due, give)
                else:
                    give()
        except MalformedRequest as error:
            self._give(problem(400, str(error)), CLOSE, True)

    def _give(self, data: bytes, then: str, last: bool) -> None:
        if self.transport.is_closing() or then == SILENT:
            return
        if then == ABORT:
            self.transport.abort()
            return
        self.transport.write(data)
        if then == POUR:
            self._pouring = True
            self._pour()
        elif then == CLOSE or last:
            self.transport.close()

    def _pour(self) -> None:
        """On and on, as fast as somebody reads."""
        if self._may_write and not self.transport.is_closing():
            self.transport.write(ENDLESS)
            self._loop.call_later(0.001, self._pour)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        if self._pouring:
            self._pour()
