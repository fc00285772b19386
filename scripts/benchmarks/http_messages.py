"""The benchmarks' requests and responses over HTTP/1.1."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import httptools

HOST = "127.0.0.1"
BOUNDARY = "image-follows"
LABEL = re.compile(rb'"label": *"([^"]*)"')  # the first label of a response

# Faults of a response, beside "status N"
QUEUE_FULL, WRONG_LABEL = "503", "wrong answer"


@dataclass(frozen=True)
class Request:
    """One image's request, and the only correct label."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    label: str

    @cached_property
    def data(self) -> bytes:
        """The bytes on the wire."""
        headers = {"Host": HOST, **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body


@dataclass(frozen=True)
class UploadFormat:
    """How a server accepts an image."""

    path: str
    part: str | None = None  # the name of a multipart form's field; None: the raw bytes

    def request(self, image: bytes, media_type: str, label: str) -> Request:
        """The image's request."""
        body, content_type = image, media_type
        if self.part:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{self.part}"; filename="image"\r\n'
            body = f"{head}Content-Type: {media_type}\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
            content_type = f"multipart/form-data; boundary={BOUNDARY}"
        return Request(self.path, {"Accept": "application/json", "Content-Type": content_type}, body, label)


class Response(NamedTuple):
    """A complete response. A tuple, as tens of thousands a second are created."""

    status: int
    label: str | None
    closes: bool = False  # whether the server closes the connection after it
    retry_after_s: float | None = None

    def fault(self, request: Request) -> str | None:
        """The kind of its failure; None for a success."""
        if self.status == http.client.OK:
            return None if self.label == request.label else WRONG_LABEL
        return QUEUE_FULL if self.status == http.client.SERVICE_UNAVAILABLE else f"status {self.status}"


class ResponseReader:
    """Reads the responses of one connection, one after another."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body, self._response = b"", None
        self._retry_after_s: float | None = None

    def feed(self, data: bytes) -> Response | None:
        """The response that these bytes complete, if any. Raises httptools.HttpParserError."""
        self._parser.feed_data(data)
        response, self._response = self._response, None
        return response

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.isdigit():
            self._retry_after_s = float(value)

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        parser = self._parser
        self._response = Response(
            parser.get_status_code(), label_of(self._body), not parser.should_keep_alive(), self._retry_after_s
        )
        self._body, self._retry_after_s = b"", None


def label_of(body: bytes) -> str | None:
    """The first label in a response's body."""
    match = LABEL.search(body)
    return match[1].decode() if match else None


def send_once(port: int, request: Request, timeout_s: float) -> Response | None:
    """Send one request on its own connection; None if nothing listens or it breaks. Raises TimeoutError."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=timeout_s)) as connection:
        try:
            connection.request("POST", request.path, request.body, dict(request.headers))
            response = connection.getresponse()
            return Response(response.status, label_of(response.read()))
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            return None
