"""Callers who never pause: each sends its next request as soon as it has its answer."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

LABELS = "abcdefghij"  # of pressure_app, by brightness


def grey_png(level: int) -> bytes:
    """A 32x32 PNG that pressure_app takes for LABELS[level]."""
    buffer = io.BytesIO()
    Image.new("L", (32, 32), round(level * 255 / (len(LABELS) - 1))).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def request_bytes(body: bytes, path: str = "/predict", kind: str = "image/png") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Heard:
    """What the callers were told."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # what no answer may be
    lost: int = 0  # sent on an open connection, and never answered
    turned_away: int = 0  # the same, on a connection that was made while the service was ending
    ending: bool = False
    instances: set[str] = field(default_factory=set)

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Raises IncompleteReadError or OSError when none comes."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def call(port: int, number: int, heard: Heard, go_on: Callable[[], bool]) -> None:
    """One caller, until `go_on` says no, or no connection can be had. A connection that ends is made anew."""
    level = number % len(LABELS)
    request, label = request_bytes(grey_png(level)), f'"label":"{LABELS[level]}"'.encode()
    while go_on():
        late = heard.ending
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        try:
            kept = True
            while kept and go_on():
                writer.write(request)
                status, headers, body = await read_answer(reader)
                heard.statuses[status] += 1
                heard.instances.add(headers["x-instance-id"])
                if status == 200 and label not in body:
                    heard.wrong.append(f"caller {number} got {body[:60]!r}")
                if status == 503 and not int(headers.get("retry-after", "0")) >= 1:
                    heard.wrong.append(f"503 without Retry-After: {headers}")
                kept = headers.get("connection") != "close"
        except (asyncio.IncompleteReadError, ConnectionError):
            heard.turned_away += late
            heard.lost += not late
        finally:
            writer.close()
