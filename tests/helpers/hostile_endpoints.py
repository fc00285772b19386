"""Endpoints that harm whoever measures them, each at a path of one server: http://HOST:PORT/MODE."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler

from tests.helpers.fake_endpoint import GOOD
from tests.helpers.http_server import http_server

ESCAPES = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J"
DEEP = b"[" * 200_000
BOMB = gzip.compress(bytes(50_000_000))
GOOD_VERSION = {"model": {"name": "fake", "version": "0123456789ab"}, "engine": "torch", "instance_id": "abc123"}
DRIP_S = 0.02  # between two bytes of a body without an end

Respond = Callable[[BaseHTTPRequestHandler], object]


def send(request: BaseHTTPRequestHandler, body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> None:
    request.wfile.write(
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nConnection: close\r\n%bContent-Length: %d\r\n\r\n%b"
        % (status, headers, len(body), body)
    )


def flood(request: BaseHTTPRequestHandler, head: bytes, piece: bytes, every_s: float = 0.0) -> None:
    """Send the piece until nobody reads."""
    request.wfile.write(head)
    while True:
        request.wfile.write(piece)
        time.sleep(every_s)


def good(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


def version(**changes: object) -> bytes:
    return json.dumps(GOOD_VERSION | changes).encode()


def header(name: bytes, value: bytes) -> Respond:
    return partial(send, body=good(), headers=b"%b: %b\r\n" % (name, value))


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

ODD_VERSIONS: dict[str, Respond] = {  # of which what is not understood is passed over
    "version-shapes": partial(
        send,
        body=version(
            model="resnet18",
            versions=["v1"],
            startup_ms="1200 ms",
            engine_details="cuda",
            cpus="2",
            instruction_sets="AVX2",
            instruction_limits=[],
            started_at=1732838400,
        ),
    ),
    "version-nested": partial(
        send, body=version(model={"name": ["resnet18"], "version": 3}, engine={"name": "triton"})
    ),
    "version-page": partial(send, body=b"<html>1.0.3</html>"),
    "version-deep": partial(send, body=DEEP),
    "version-nan": partial(send, body=version(startup_ms={"total": float("nan")})),
    "version-negative": partial(send, body=version(startup_ms={"total": -1e9})),
    "version-types": partial(send, body=version(versions="x")),
    "version-model": partial(send, body=version(model=["x"])),
    "version-digits": partial(send, body=version(cpus=10**400)),
    "version-list": partial(send, body=b"[1]"),
    "version-utf8": partial(send, body=b'{"engine": "\xff\xfe"}'),
    "version-surrogate": partial(send, body=b'{"engine": "\\ud800"}'),
    "version-keys": partial(send, body=version(versions={str(i): "1" for i in range(10_000)})),
    "version-time": partial(send, body=version(started_at="0001-01-01T00:00:00")),
    "version-endless": partial(flood, head=OK + b"Content-Type: application/json\r\n\r\n", piece=b" " * 65536),
    "version-bomb": partial(send, body=BOMB, headers=b"Content-Encoding: gzip\r\n"),
}
BAD_PREDICTIONS: dict[str, Respond] = {  # whose every request fails
    "predict-deep": partial(send, body=b'{"id":' + DEEP),
    "predict-nan": partial(send, body=good(probabilities=[float("nan")] * 10)),
    "predict-digits": partial(send, body=b'{"id":' + b"9" * 100_000 + b"}"),
    "predict-bomb": partial(send, body=BOMB, headers=b"Content-Encoding: gzip\r\n"),
    "predict-label": partial(send, body=good(label=ESCAPES * 1000)),
    "predict-endless": partial(flood, head=CHUNKED, piece=b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "predict-drip": partial(flood, head=CHUNKED, piece=b"1\r\n \r\n", every_s=DRIP_S),
    "predict-hints": partial(flood, head=b"", piece=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
    "predict-chunk": partial(send, body=b"", headers=b"Transfer-Encoding: chunked\r\n"),
    "predict-header": header(b"X-Filler", b"x" * 2_000_000),
    "predict-headers": partial(send, body=good(), headers=b"X-Filler: 1\r\n" * 100_000),
    "predict-status": partial(send, body=b"", status=b"99999 x"),
    "predict-problem": partial(
        send, body=json.dumps({"detail": ESCAPES * 10_000}).encode(), status=b"500 " + b"x" * 5000
    ),
    "predict-redirect": partial(send, body=b"", status=b"302 x", headers=b"Location: javascript:\x1b[31m\r\n"),
}
BAD_FIELDS: dict[str, Respond] = {  # whose predictions count, without what is wrong in their headers
    "timing-absurd": header(b"Server-Timing", b"total;dur=1e308, decode;dur=-5, queue;dur=nan, \x9b31m;dur=1"),
    "version-text": partial(send, body=good()),
    "timing-many": header(b"Server-Timing", b"a;dur=1," * 1000),
    "ordinal-digits": header(b"X-Request-Ordinal", b"9" * 4000),
    "instance-escapes": header(b"X-Instance-Id", b"\x1b[31m|`<script>@x"),
    "duplicate-keys": partial(send, body=b'{"id": 9, ' + good()[1:]),
}
VERSIONS = ODD_VERSIONS | {"version-text": partial(send, body=version(cpu_model=ESCAPES * 10_000, unknown=[[]]))}
MODES = {**dict.fromkeys(ODD_VERSIONS, partial(send, body=good())), **BAD_PREDICTIONS, **BAD_FIELDS}


def respond(request: BaseHTTPRequestHandler, _: bytes) -> None:
    _, mode, route = request.path.partition("?")[0].split("/", 2)
    request.close_connection = True
    with suppress(ConnectionError):
        if route == "version":
            VERSIONS.get(mode, partial(send, body=version()))(request)
        elif route == "readyz":
            send(request, b"{}")
        else:
            MODES[mode](request)


@contextmanager
def hostile_endpoints() -> Iterator[dict[str, str]]:
    """The address of each mode."""
    with http_server(respond) as port:
        yield {mode: f"http://127.0.0.1:{port}/{mode}" for mode in MODES}
