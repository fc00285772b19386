"""HTTP/1.1 of the mock endpoint.

Node.js's parser reads the requests: it keeps up with thousands a second beside the client that measures. Responses are
bytes written here, because faults have to break every rule of HTTP.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from http import HTTPStatus
from typing import Protocol

import httptools

from eval.errors import MalformedRequest
from service import schema

INFINITE_BODY_CHUNK = b"%x\r\n%b\r\n" % (65_536, b" " * 65_536)  # one chunk
LOGIN_PATH = "/login"


class ConnectionAction(Enum):
    """What happens to the connection with a response."""

    KEEP_ALIVE = auto()
    CLOSE = auto()
    ABORT = auto()  # reset, and no byte is sent
    NO_RESPONSE = auto()  # stays open, and no byte is sent
    STREAM_FOREVER = auto()  # an infinite body follows


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    body: bytes
    close_requested: bool = False  # the client wants the connection to be closed


@dataclass(frozen=True)
class Reply:
    """The bytes of a response, and when they are sent."""

    due_s: float  # time of the event loop
    data: bytes
    action: ConnectionAction = ConnectionAction.KEEP_ALIVE


class Responder(Protocol):
    """Decides the reply to a request."""

    def reply(self, request: Request, arrived_s: float) -> Reply: ...


class RequestReader:
    """Parses the requests of one connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._requests: list[Request] = []

    def feed(self, data: bytes) -> list[Request]:
        """Returns the requests that these bytes complete. Raises MalformedRequest."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise MalformedRequest(str(error.__context__ or error)) from None
        requests, self._requests = self._requests, []
        return requests

    # Called by the parser

    def on_message_begin(self) -> None:
        self._target, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > schema.MAX_BODY_BYTES:
            raise MalformedRequest(f"the body is over {schema.MAX_BODY_BYTES} bytes")

    def on_message_complete(self) -> None:
        path, _, query = self._target.decode("latin-1").partition("?")
        method, close_requested = self._parser.get_method().decode(), not self._parser.should_keep_alive()
        self._requests.append(Request(method, path, query, self._body, close_requested))


def response(status: int, body: bytes, headers: str = "", media_type: str = "application/json") -> bytes:
    """The bytes of a response. `headers`: further header lines, each with its line end."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    ).encode() + body


def problem_response(status: int, detail: str, headers: str = "") -> bytes:
    """A response with a problem document (RFC 9457), as the service sends it."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return response(status, json.dumps(document).encode(), headers, schema.PROBLEM_TYPE)


def fault_reply(fault: str, due_s: float, correct: bytes, headers: str, retry_after_s: int) -> Reply:
    """The reply of a fault (see FAULT_ERROR_KINDS) in place of the correct response. `headers`: the instance's."""
    retry_headers = f"{headers}Retry-After: {retry_after_s}\r\n"
    match fault:
        case "http_4xx":
            return Reply(due_s, problem_response(422, "the mock endpoint rejects this image", headers))
        case "http_429":
            return Reply(due_s, problem_response(429, "too many requests for the mock endpoint", retry_headers))
        case "http_5xx":
            return Reply(due_s, problem_response(503, "the mock endpoint is too busy", retry_headers))
        case "wrong_shape":
            return Reply(due_s, response(200, b'{"id": 3, "label": "cat", "probabilities": [1]}', headers))
        case "not_json":
            return Reply(due_s, response(200, b"<html>all is well</html>", headers, "text/html"))
        case "login":
            return Reply(due_s, response(302, b"", f"Location: {LOGIN_PATH}\r\n", "text/html"))
        case "endless":
            return Reply(
                due_s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ConnectionAction.STREAM_FOREVER
            )
        case "not_http":
            return Reply(due_s, b"SSH-2.0-OpenSSH_9.9\r\n", ConnectionAction.CLOSE)
        case "torn":
            return Reply(due_s, correct[: correct.index(b"\r\n\r\n") + 10], ConnectionAction.CLOSE)
        case "hang_up":
            return Reply(due_s, b"", ConnectionAction.ABORT)
        case "never":
            return Reply(due_s, b"", ConnectionAction.NO_RESPONSE)
    raise ValueError(fault)


class Connection(asyncio.Protocol):
    """One client's connection. Sends each reply when it is due."""

    transport: asyncio.Transport

    def __init__(self, responder: Responder, loop: asyncio.AbstractEventLoop):
        self._responder = responder
        self._loop = loop
        self._reader = RequestReader()
        self._may_write = True
        self._streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a stream protocol it is a Transport

    def data_received(self, data: bytes) -> None:
        arrived_s = self._loop.time()
        try:
            for request in self._reader.feed(data):
                reply = self._responder.reply(request, arrived_s)
                send = partial(self._send, reply.data, reply.action, request.close_requested)
                if reply.due_s > arrived_s:
                    self._loop.call_at(reply.due_s, send)
                else:
                    send()
        except MalformedRequest as error:
            self._send(problem_response(400, str(error)), ConnectionAction.CLOSE, True)

    def _send(self, data: bytes, action: ConnectionAction, close: bool) -> None:
        if self.transport.is_closing() or action is ConnectionAction.NO_RESPONSE:
            return
        if action is ConnectionAction.ABORT:
            self.transport.abort()
            return
        self.transport.write(data)
        if action is ConnectionAction.STREAM_FOREVER:
            self._streaming = True
            self._stream()
        elif action is ConnectionAction.CLOSE or close:
            self.transport.close()

    def _stream(self) -> None:
        """Send the infinite body as fast as the client reads it."""
        if self._may_write and not self.transport.is_closing():
            self.transport.write(INFINITE_BODY_CHUNK)
            self._loop.call_later(0.001, self._stream)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        if self._streaming:
            self._stream()
