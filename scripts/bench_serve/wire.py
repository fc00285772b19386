"""A picture's request and its answer as they go over the wire, HTTP/1.1."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

HOST = "127.0.0.1"
READ_BYTES = 65536
BOUNDARY = "picture-follows"

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
CLOSING = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
LABEL = re.compile(rb'"label": *"([^"]*)"')  # the first one of an answer

BUSY = "503"
WRONG = "wrong answer"


@dataclass(frozen=True)
class Request:
    """One picture's request, as it goes over the wire, and the only right answer."""

    data: bytes
    label: bytes


@dataclass(frozen=True)
class Form:
    """How a server wants a picture."""

    path: str
    part: str | None = None  # the name of a multipart form's field; None: the raw bytes

    def request(self, picture: bytes, media_type: str, label: str) -> Request:
        """The picture's request."""
        body, kind = picture, media_type
        if self.part:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{self.part}"; filename="picture"\r\n'
            body = f"{head}Content-Type: {media_type}\r\n\r\n".encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
            kind = f"multipart/form-data; boundary={BOUNDARY}"
        lines = (f"POST {self.path} HTTP/1.1", f"Host: {HOST}", "Accept: application/json", f"Content-Type: {kind}",
                 f"Content-Length: {len(body)}", "", "")  # fmt: skip
        return Request("\r\n".join(lines).encode() + body, label.encode())


@dataclass(frozen=True)
class Answer:
    """A whole one."""

    status: int
    label: bytes | None
    closing: bool  # whether the server closes the connection after it
    retry_after_s: float | None

    def fault(self, request: Request) -> str | None:
        """What is wrong with it, None when nothing is."""
        if self.status == 200:
            return None if self.label == request.label else WRONG
        return BUSY if self.status == 503 else f"status {self.status}"


def read_answer(data: bytes) -> Answer | None:
    """The answer, or None while a part of it is to come yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, body = data[: end + 2], end + 4
    if length := LENGTH.search(head):
        if len(data) < body + int(length[1]):
            return None
    elif CHUNKED.search(head) and not data.endswith(b"0\r\n\r\n", body):
        return None
    status, label = STATUS.match(head), LABEL.search(data, body)
    wait = RETRY_AFTER.search(head)
    return Answer(
        status=int(status[1]) if status else 0,
        label=label[1] if label else None,
        closing=CLOSING.search(head) is not None,
        retry_after_s=float(wait[1]) if wait else None,
    )


def ask_once(port: int, request: Request, timeout_s: float) -> Answer | None:
    """One request on a connection of its own; None when nobody listens, or it breaks off. Raises TimeoutError."""
    try:
        with socket.create_connection((HOST, port), timeout_s) as connection:
            connection.sendall(request.data)
            got = b""
            while chunk := connection.recv(READ_BYTES):
                got += chunk
                if answer := read_answer(got):
                    return answer
    except TimeoutError:
        raise
    except OSError:
        pass
    return None
