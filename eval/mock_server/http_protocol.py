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
INFINITE_BODY_CHUNK = b"%x\r\n%b\r\n" % (65_536, b" " * 65_536)  # one chunk
LOGIN_PATH = "/login"
KEEP_ALIVE, CLOSE, ABORT, NO_RESPONSE, STREAM_FOREVER = (
    "keep",
    "close",
    "abort",
    "silent",
    "pour",
)  # what follows the answer's bytes


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    body: bytes
    close_requested: bool = False  # the client wants the connection to be closed


@dataclass(frozen=True)
class Reply:
    """What goes over the wire, and when."""

    due_s: float  # time of the event loop
    data: bytes
    action: str = KEEP_ALIVE


class Responder(Protocol):
    """Who gives the replies."""

    def reply(self, request: Request, arrived_s: float) -> Reply: ...


def parse_request(buffer: bytearray) -> Request | None:
    """The next whole request, taken out of the buffer; None while it is not all there. Raises MalformedRequest."""
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise MalformedRequest(f"the head is over {MAX_HEAD_BYTES} bytes")
        return None
    request_line, *header_lines = buffer[:head_end].decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (header_line.partition(":") for header_line in header_lines)
    }
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > schema.MAX_BODY_BYTES or "transfer-encoding" in headers:
        raise MalformedRequest(f"the oracle needs a Content-Length of at most {schema.MAX_BODY_BYTES}")
    total_bytes = head_end + 4 + int(length)
    if len(buffer) < total_bytes:
        return None
    body = bytes(buffer[head_end + 4 : total_bytes])
    del buffer[:total_bytes]
    try:
        method, target, _ = request_line.split(" ")
    except ValueError:
        raise MalformedRequest("the first line is not HTTP") from None
    path, _, query = target.partition("?")
    return Request(method, path, query, body, headers.get("connection", "").lower() == "close")


def response(status: int, body: bytes, headers: str = "", media_type: str = "application/json") -> bytes:
    """An answer as it goes over the wire; `head` holds further header lines, each with its line end."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    ).encode() + body


def problem_response(status: int, detail: str, headers: str = "") -> bytes:
    """A problem document, as the service has it."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return response(status, json.dumps(document).encode(), headers, schema.PROBLEM_TYPE)


def fault_reply(fault: str, due_s: float, correct: bytes, headers: str, retry_after_s: int) -> Reply:
    """What is given instead of the right answer: a name of profile_validation.FAULTS. `head`: who answers."""
    retry_headers = f"{headers}Retry-After: {retry_after_s}\r\n"
    match fault:
        case "http_4xx":
            return Reply(due_s, problem_response(422, "the oracle does not like this picture", headers))
        case "http_429":
            return Reply(due_s, problem_response(429, "the oracle was asked too often", retry_headers))
        case "http_5xx":
            return Reply(due_s, problem_response(503, "the oracle is too busy", retry_headers))
        case "wrong_shape":
            return Reply(due_s, response(200, b'{"id": 3, "label": "cat", "probabilities": [1]}', headers))
        case "not_json":
            return Reply(due_s, response(200, b"<html>all is well</html>", headers, "text/html"))
        case "login":
            return Reply(due_s, response(302, b"", f"Location: {LOGIN_PATH}\r\n", "text/html"))
        case "endless":
            return Reply(due_s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", STREAM_FOREVER)
        case "not_http":
            return Reply(due_s, b"SSH-2.0-OpenSSH_9.9\r\n", CLOSE)
        case "torn":
            return Reply(due_s, correct[: correct.index(b"\r\n\r\n") + 10], CLOSE)
        case "hang_up":
            return Reply(due_s, b"", ABORT)
        case "never":
            return Reply(due_s, b"", NO_RESPONSE)
    raise ValueError(fault)


class Connection(asyncio.Protocol):
    """One client's connection: each request is answered when its reply is due."""

    transport: asyncio.Transport

    def __init__(self, responder: Responder, loop: asyncio.AbstractEventLoop):
        self._responder = responder
        self._loop = loop
        self._buffer = bytearray()
        self._may_write = True
        self._streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream protocol is given a Transport

    def data_received(self, data: bytes) -> None:
        arrived_s = self._loop.time()
        self._buffer += data
        try:
            while (request := parse_request(self._buffer)) is not None:
                reply = self._responder.reply(request, arrived_s)
                send = partial(self._send, reply.data, reply.action, request.close_requested)
                if reply.due_s > arrived_s:
                    self._loop.call_at(reply.due_s, send)
                else:
                    send()
        except MalformedRequest as error:
            self._send(problem_response(400, str(error)), CLOSE, True)

    def _send(self, data: bytes, action: str, close: bool) -> None:
        if self.transport.is_closing() or action == NO_RESPONSE:
            return
        if action == ABORT:
            self.transport.abort()
            return
        self.transport.write(data)
        if action == STREAM_FOREVER:
            self._streaming = True
            self._stream()
        elif action == CLOSE or close:
            self.transport.close()

    def _stream(self) -> None:
        """On and on, as fast as somebody reads."""
        if self._may_write and not self.transport.is_closing():
            self.transport.write(INFINITE_BODY_CHUNK)
            self._loop.call_later(0.001, self._stream)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        if self._streaming:
            self._stream()
