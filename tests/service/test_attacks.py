"""Hostile traffic against the real server, direct and through the VM's nginx; a small network of our own behind it.

Statuses, counts and CPU time are asserted, never how long something took.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from PIL import Image

from infra.local.health import free_ports
from infra.local.nginx import find_nginx, nginx_process
from service import schema
from tests.helpers import costly_files
from tests.helpers.pressure import grey_png, request_bytes
from tests.helpers.running_service import Server, multipart, png_of, ready_service

pytestmark = pytest.mark.integration

PNG = grey_png(3)
CPU_LIMIT_S = 2.0  # of a core, for one request: the promise
SLOW = 300  # connections of one address
UNDER_THE_LIMIT = 280  # of them, with which nginx takes more
HEAD, BODY = request_bytes(PNG).split(b"\r\n\r\n", 1)
CHUNKED = HEAD.partition(b"\r\nContent-Length")[0] + b"\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    command = (sys.executable, "-c", "from service.server import serve; serve('tests.helpers.pressure_app:app')")
    with ready_service(tmp_path_factory.mktemp("attacks") / "log", command) as server:
        yield server


@pytest.fixture(scope="module")
def proxied(server, tmp_path_factory):
    """The same service behind the VM's nginx."""
    nginx = find_nginx() or pytest.skip("nginx is missing: apt-get install nginx-light")
    (port,) = free_ports(1)
    launch = nginx_process(nginx, tmp_path_factory.mktemp("nginx"), port, server.port)
    with subprocess.Popen(launch.command) as process:
        front = Server(port, process, server.log)
        try:
            while not front.ready():
                assert process.poll() is None
            yield front
        finally:
            process.terminate()


@pytest.fixture(autouse=True)
def alive_afterwards(server):
    yield
    assert server.post("/predict", PNG, "image/png").status == 200
    assert "Traceback" not in server.log.read_text()


def worker_of(server) -> psutil.Process:
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


def cpu_s(server) -> float:
    times = worker_of(server).cpu_times()
    return times.user + times.system


def check_refusal(reply, status: int, says: str):
    assert reply.status == status, reply.body[:300]
    assert reply.headers["Content-Type"] == schema.PROBLEM_TYPE
    assert says in reply.json["detail"]


# One costly request

LARGE, FOUR_K = Image.new("RGBA", (6000, 4000)), Image.new("RGBA", (3840, 2160))
COSTLY = [
    pytest.param(costly_files.many_scans(4000), 422, "4000 scans; at most 64", id="scans"),
    pytest.param(costly_files.many_scans(20_000), 422, "segments", id="more scans"),
    pytest.param(costly_files.jpeg_padding(4_000_000), 422, "too many parts", id="padding"),
    pytest.param(costly_files.broken_off_and_filled(8_000_000), 422, "lacks pixels at its end", id="fill bytes"),
    pytest.param(costly_files.png_profiles(15_000), 422, "over 64 compressed texts or profiles", id="profiles"),
    pytest.param(costly_files.jpeg_with_exif(costly_files.overlapping_exif(60_000, 2**20)), 200, "", id="EXIF"),
    pytest.param(costly_files.encoded(LARGE, "PNG"), 200, "", id="large PNG"),
    pytest.param(costly_files.encoded(FOUR_K, "WEBP", lossless=True, method=0), 200, "", id="large WebP"),
    pytest.param(costly_files.encoded(Image.new("CMYK", (4800, 3600)), "JPEG", progressive=True), 200, "", id="CMYK"),
]


@pytest.mark.parametrize(("data", "status", "says"), COSTLY)
def test_no_file_takes_over_two_seconds_of_a_core(server, data, status, says):
    before = cpu_s(server)
    reply = server.post("/predict", data, "image/png")
    assert cpu_s(server) - before < CPU_LIMIT_S
    if status == 200:
        assert reply.status == 200
    else:
        check_refusal(reply, status, says)


def test_a_batch_of_large_images_is_refused_within_its_budget(server):
    before = cpu_s(server)
    reply = server.post("/predict/batch", *multipart(*[("image", png_of(6000, 4000), f"{i}.png") for i in range(64)]))
    assert cpu_s(server) - before < CPU_LIMIT_S
    check_refusal(reply, 422, "part 2 ('1.png'): the images up to this one are 48.0 million")


JSON_BODIES = [
    pytest.param(b'{"img":[' + b"[]," * 5_500_000 + b"[]]}", id="empty lists"),
    pytest.param(b'{"img":' + json.dumps([[[1, 2, 3]] * 1000] * 1000).encode() + b"}", id="pixels"),
    pytest.param(b'{"image":"",' + b'"a":1,' * 2_000_000 + b'"b":1}', id="keys"),
    pytest.param(b"[" * 16_000_000, id="depth"),
    pytest.param(b'"' * 16_000_000, id="quotes"),
]


@pytest.mark.parametrize("body", JSON_BODIES)
def test_json_of_many_values_is_refused_unparsed(server, body):
    before_s, before_bytes = cpu_s(server), worker_of(server).memory_info().rss
    check_refusal(server.post("/predict", body, schema.JSON_TYPE), 413, "pixels as lists may be at most 1 MiB")
    assert cpu_s(server) - before_s < CPU_LIMIT_S
    assert worker_of(server).memory_info().rss - before_bytes < 8 * schema.MAX_BODY_BYTES


FEW_VALUES = [
    pytest.param(b'{"image":"A' + b" " * 8_000_000 + b'A"}', "is not base64: it has ' ' at character 1", id="blanks"),
    pytest.param(b'{"img":["' + b"x" * 900_000 + b'"' + b',"y"' * 30_000 + b"]}", "not a number", id="a long text"),
]


@pytest.mark.parametrize(("body", "says"), FEW_VALUES)
def test_json_of_long_texts_is_refused_at_its_own_cost(server, body, says):
    before_s, before_bytes = cpu_s(server), worker_of(server).memory_info().rss
    check_refusal(server.post("/predict", body, schema.JSON_TYPE), 422, says)
    assert cpu_s(server) - before_s < CPU_LIMIT_S
    assert worker_of(server).memory_info().rss - before_bytes < 8 * schema.MAX_BODY_BYTES


def test_a_large_file_in_base64_is_still_read(server):
    noise = Image.effect_noise((2500, 2500), 200)
    data = base64.b64encode(costly_files.encoded(noise.convert("RGB"), "BMP")[: 11 * 2**20])
    reply = server.post("/predict", b'{"image":"' + data + b'"}', schema.JSON_TYPE)
    check_refusal(reply, 422, "damaged or cut short")  # it was parsed and decoded up to its end


@pytest.mark.parametrize("filler", [b"\r\n", b"\r", b"\n--edge", b"--edge\r\n", b"\r\n--edge\r\n\r\n"])
def test_no_form_takes_over_two_seconds_of_a_core(server, filler):
    body, kind = multipart(("image", filler * (4_000_000 // len(filler)), "a.png"))
    before = cpu_s(server)
    assert 400 <= server.post("/predict", body, kind).status < 500
    assert cpu_s(server) - before < CPU_LIMIT_S


# Many


def test_health_is_told_while_many_images_are_decoded(server):
    medium = costly_files.encoded(Image.new("RGB", (1400, 1400)), "PNG")
    with ThreadPoolExecutor(100) as pool:
        calls = [pool.submit(server.post, "/predict", medium, "image/png") for _ in range(100)]
        healthy = [server.get("/healthz").status for _ in range(10)]
        statuses = {call.result(120).status for call in calls}
    assert healthy == [200] * 10
    assert 200 in statuses
    assert statuses <= {200, 503}


@contextmanager
def held_open(port: int, sent: bytes, count: int = SLOW, receive_bytes: int = 2**16):
    """So many connections that have sent this and wait."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.socket()) for _ in range(count)]
        for connection in connections:
            connection.settimeout(60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            connection.connect(("127.0.0.1", port))
            connection.sendall(sent)
        yield connections


SLOW_SENDERS = [
    pytest.param(HEAD[:30], id="heads"),
    pytest.param(HEAD + b"\r\n\r\n" + BODY[:1], id="bodies"),
    pytest.param(CHUNKED + b"5\r\nab", id="chunks"),
]


@pytest.mark.parametrize("sent", SLOW_SENDERS)
def test_slow_senders_do_not_stop_another_client(server, sent):
    with held_open(server.port, sent) as connections:
        for _ in range(3):
            assert server.post("/predict", PNG, "image/png").status == 200
            assert server.get("/healthz").status == 200
            for connection in connections[:50]:
                connection.sendall(b"a")


@pytest.mark.parametrize("sent", SLOW_SENDERS)
def test_slow_senders_do_not_stop_another_client_of_nginx(server, proxied, sent):
    with held_open(proxied.port, sent, UNDER_THE_LIMIT):
        for _ in range(3):
            assert proxied.post("/predict", PNG, "image/png").status == 200


PAGES = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50  # of some 10 kB each: more than the kernel buffers


def test_slow_readers_do_not_stop_another_client(server):
    with held_open(server.port, PAGES, receive_bytes=4096):
        for _ in range(3):
            assert server.post("/predict", PNG, "image/png").status == 200


def test_slow_readers_do_not_stop_another_client_of_nginx(server, proxied):
    with held_open(proxied.port, PAGES, UNDER_THE_LIMIT, receive_bytes=4096):
        for _ in range(3):
            assert proxied.post("/predict", PNG, "image/png").status == 200


def test_nginx_limits_the_requests_of_one_address(proxied):
    with held_open(proxied.port, HEAD + b"\r\n\r\n" + BODY[:1], 301) as connections:
        (refused, *_), _, _ = select.select(connections, [], [])  # whichever nginx took last
        reply = refused.recv(65536)
        assert reply.startswith(b"HTTP/1.1 429 ")
        assert b"application/problem+json" in reply
        assert b"over 300 requests of one address at once" in reply


def test_nginx_refuses_longer_bodies_with_a_problem_document(proxied):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n"
    with held_open(proxied.port, head, 1) as (connection,):
        reply = connection.recv(65536)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["status"] == 413


# Requests that are none


def post(*headers: bytes, body: bytes = b"", line: bytes = b"POST /predict HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", *headers, b"", body])


def get(*headers: bytes, line: bytes = b"GET /healthz HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", *headers, b"", b""])


LENGTH, CODED = b"Content-Length: 5", b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
MALFORMED = {
    **{f"length {value!r}": post(b"Content-Length: " + value, body=b"hello") for value in (
        b"", b"-1", b"+5", b"5,5", b"5, 6", b"0x5", b"5.0", b"5e0", b"five", b"5 5", b"1_0", b"99999999999999999999",
        b"\xb2", b"5;", b"'5'", b" ", b"NaN",
    )},
    "two lengths": post(LENGTH, b"Content-Length: 6", body=b"hello!"),
    "length and chunked": post(LENGTH, CODED, body=CHUNKS),
    "chunked and length": post(CODED, LENGTH, body=CHUNKS),
    **{f"coding {value!r}": post(b"Transfer-Encoding: " + value, body=CHUNKS) for value in (
        b"identity", b"gzip", b"chunked, identity", b"chunked, gzip", b"xchunked", b"chunked;q=1", b"", b"chunked\x0b",
        b'"chunked"', b"chunked chunked",
    )},
    **{f"chunk {chunk!r}": post(CODED, body=chunk) for chunk in (
        b"zz\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5hello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello", b"5\r\nhelloX\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"5 5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n", b"5\r\nhel",
    )},
    **{f"line {line!r}": get(line=line) for line in (
        b"GET", b"GET /healthz", b"GET  /healthz HTTP/1.1", b"GET /healthz HTTP/9.9", b"GET /healthz HTTP/1.1 x",
        b"GET /heal thz HTTP/1.1", b"GET /healthz http/1.1", b"G\x00T /healthz HTTP/1.1", b"G(T /healthz HTTP/1.1",
        b"GET /\x00 HTTP/1.1", b"\xff\xfe /healthz HTTP/1.1", b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0", b"GET /healthz HTTP/0.9", b"GET /healthz HTTP/2",
    )},
    **{f"header {header!r}": get(header) for header in (
        b"no colon", b": no name", b"sp ace: x", b"x : y", b"x\x00y: z", b"x: y\x00z", b"x\ry: z", b"(x): y",
        b"\xffx: y",
        b" folded: x", b"x: \x7f\x01",
    )},
    "a long head": get(b"x: " + b"y" * 200_000),
    "many headers": get(*[b"x%d: y" % i for i in range(5000)]),
    "a long path": get(line=b"GET /" + b"a" * 200_000 + b" HTTP/1.1"),
}  # fmt: skip


def exchange(port: int, sent: bytes) -> bytes:
    """What comes back until the server closes, after this and nothing more."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                received += more
        except OSError:  # it was reset
            pass
    return received


def test_there_are_sixty_malformed_requests():
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused_and_ends_its_connection(server, sent):
    hidden = sent + b"GET /version HTTP/1.1\r\nHost: hidden\r\n\r\n"
    received = exchange(server.port, hidden)
    assert received == b"" or received.startswith(b"HTTP/1.1 4") or received.startswith(b"HTTP/1.0 4"), received[:200]
    assert b"engine_details" not in received
