"""The service under more load than it can bear, told to end, or killed: real gunicorn, a small network of our own.

What is asserted are facts of counting and order. How much is still answered in time is measured, not tested:
`python -m scripts.benchmarks.overload`.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pressure_kit import LABELS, Heard, call, grey_png, request_bytes
from service_kit import multipart, ready_gunicorn

from service import schema
from service.worker import plain_request

pytestmark = pytest.mark.integration

QUEUE, BATCH, THREADS = 8, 4, 24
LIMITS = {"MAX_QUEUE": str(QUEUE), "BATCH_MAX": str(BATCH), "WEB_THREADS": str(THREADS)}
GRACE_S = 10  # that a platform gives from SIGTERM to SIGKILL
PNG = grey_png(3)


def pressed(tmp_path, **settings):
    return ready_gunicorn(tmp_path / "log", "pressure_app:app", PYTHONPATH="tests", **(LIMITS | settings))


@pytest.fixture
def gate(tmp_path):
    """While it exists, no pass ends."""
    gate = tmp_path / "gate"
    yield gate
    gate.unlink(missing_ok=True)


def metric(server, name: str) -> float:
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith(f"classifier_{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def until(fact, what: str):
    """Wait for it; 60 s are as good as for ever."""
    give_up = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < give_up, f"never: {what}"
        time.sleep(0.005)


def occupy(server, gate, pool):
    """A request in a pass that does not end."""
    gate.touch()
    first = pool.submit(server.post, "/predict", PNG, "image/png")
    until(gate.with_suffix(".entered").exists, "a pass")
    return first


def fill(server, pool):
    calls = [pool.submit(server.post, "/predict", PNG, "image/png") for _ in range(QUEUE)]
    until(lambda: metric(server, "queue_pictures") == QUEUE, "a full queue")
    return calls


def worker_of(server) -> psutil.Process:
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


# Too much


def test_a_full_queue_refuses_before_it_decodes_still_says_how_it_is_and_then_answers_all_it_took_in(tmp_path, gate):
    with pressed(tmp_path, GATE=str(gate)) as server, ThreadPoolExecutor(32) as pool:
        calls = [occupy(server, gate, pool), *fill(server, pool)]
        broken = multipart(("image", b"no picture", "a.png"))
        for path, sent in {
            "/predict": (b"no picture", "image/png"),
            "/": (b"no picture", "image/png"),
            "/predict/batch": broken,
        }.items():
            reply = server.post(path, *sent)
            assert (reply.status, reply.headers["Content-Type"]) == (503, schema.PROBLEM_TYPE)
            assert int(reply.headers["Retry-After"]) >= 1
            assert reply.json["detail"].startswith(f"{QUEUE} pictures wait already, at most {QUEUE} may")
        assert [server.get(path).status for path in ("/healthz", "/readyz", "/version", "/")] == [200] * 4
        gate.unlink()
        assert [call.result(60).status for call in calls] == [200] * (1 + QUEUE)
        assert server.post("/predict", b"no picture", "image/png").status == 415


def test_while_the_queue_is_full_a_plain_request_is_refused_by_its_bytes_and_every_other_one_as_ever(tmp_path, gate):
    plain, keep = {"Content-Type": "image/png"}, {"Connection": "keep-alive"}
    with pressed(tmp_path, GATE=str(gate)) as server, ThreadPoolExecutor(32) as pool:
        calls = [occupy(server, gate, pool), *fill(server, pool)]
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        def ask(path="/predict", body=PNG, **headers):
            kept.request("POST", path, body, plain | headers)
            reply = kept.getresponse()
            return reply.status, dict(reply.headers), json.loads(reply.read())

        refused = metric(server, 'requests_total{route="/predict",status="503"}')
        quick = [ask(), ask("/predict?probabilities=1"), ask("/predict?x=1"), ask(**keep)]
        usual = [ask(Accept="text/html, application/json"), ask(body=bytes(200_000))]
        usual += [ask(body=iter([PNG[:20], PNG[20:]]))]
        assert {status for status, _, _ in (*quick, *usual)} == {503}
        assert not any("Server" in headers for _, headers, _ in quick)  # gunicorn's own mark
        assert all("Server" in headers for _, headers, _ in usual)
        assert len({json.dumps(body) for _, _, body in (*quick, *usual)}) == 1
        for _, headers, _ in quick:
            assert headers.keys() == usual[0][1].keys() - {"Server"}
            assert headers[schema.REQUEST_ORDINAL] == str(1 + QUEUE)
        assert metric(server, 'requests_total{route="/predict",status="503"}') == refused + 7
        assert metric(server, 'errors_total{kind="Queue full"}') >= 7
        gate.unlink()
        assert [call.result(60).status for call in calls] == [200] * (1 + QUEUE)
        assert ask()[0] == 200
        kept.close()


def test_a_whole_plain_request_is_answered_as_gunicorn_answers_it_in_one_piece(tmp_path):
    varying = {"date", "server-timing", "x-request-ordinal"}
    with pressed(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for body, path, status in [
            (PNG, "/predict", b"200 OK"),
            (PNG, "/predict?probabilities=1", b"200 OK"),
            (PNG[:60], "/predict", b"422 UNPROCESSABLE ENTITY"),
            (b"no picture", "/predict", b"415 UNSUPPORTED MEDIA TYPE"),
        ]:
            plain = request_bytes(body, path)
            answers = [one_answer(connection, *sent) for sent in ((plain, b""), (plain[:-5], plain[-5:]), (plain, b""))]
            first, usual, short = [(line, {k: v for k, v in headers.items() if k not in varying}, text)
                                   for line, headers, text in answers]  # fmt: skip
            assert usual[1].pop("server") == "gunicorn"  # its own mark
            first[1].pop("server", None)  # the connection's first request is gunicorn's
            assert first == usual == short
            assert short[0] == b"HTTP/1.1 " + status
            assert all(headers.keys() >= varying for _, headers, _ in answers)


def one_answer(connection, *parts):
    """The status line, headers and body that answer a request sent in parts, each seen before the next is sent."""
    for k, part in enumerate(parts):
        if k and part:
            until(lambda: not unread(connection), "the first part read")
        connection.sendall(part)
    received = b""
    while (ends := received.find(b"\r\n\r\n")) < 0 or len(received) < ends + 4 + length_of(received[:ends]):
        received += connection.recv(65536)
    line, *lines = received[:ends].split(b"\r\n")
    headers = {name.lower().decode(): value.decode() for name, _, value in (one.partition(b": ") for one in lines)}
    return line, headers, received[ends + 4 :]


def length_of(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])


def unread(connection) -> bool:
    """Whether the kernel still holds bytes for the service at the other end."""
    here, there = (f"{port:04X}" for port in (connection.getsockname()[1], connection.getpeername()[1]))
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = row.split()
        if local.endswith(f":{there}") and remote.endswith(f":{here}"):
            return int(queues.partition(":")[2], 16) > 0
    return False


@pytest.mark.parametrize(
    ("seen", "missing"),
    [
        (request_bytes(PNG), 0),
        (request_bytes(PNG)[:-7], 7),
        (request_bytes(PNG, "/predict?probabilities=1"), 0),
        (request_bytes(PNG).replace(b"Host: x", b"HOST:x\r\nconnection: Keep-Alive\r\nAccept: */*"), 0),
        (request_bytes(PNG)[:30], None),
        (request_bytes(PNG) + b"P", None),
        (request_bytes(PNG, "/predict/batch"), None),
        (request_bytes(PNG).replace(b"POST", b"PUT"), None),
        (request_bytes(PNG).replace(b"1.1", b"1.0"), None),
        *(
            (request_bytes(PNG).replace(b"Host: x", line), None)
            for line in (
                *(b"Connection: close", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: h2c"),
                *(b"Content-Length: 3", b"Accept: text/html", b"Bad name: x", b"Folded: x\r\n y", b"Host : x", b": x"),
                *(b"Host: \xe4", b"Host: a\x00b", b"Host: a\nb: c", b"Host: a\rb"),
            )
        ),
        (request_bytes(PNG).replace(b"Content-Length: ", b"Content-Length: +"), None),
        (b"", None),
    ],
)
def test_a_request_is_plain_only_when_nothing_about_it_is_unusual(seen, missing):
    plain = plain_request(seen)
    assert (plain.missing_bytes if plain else None) == missing


def test_what_a_client_asked_that_hung_up_while_it_waited_is_not_computed(tmp_path, gate):
    with pressed(tmp_path, GATE=str(gate)) as server, ThreadPoolExecutor(8) as pool:
        first = occupy(server, gate, pool)
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for connection in connections:
            connection.sendall(request_bytes(PNG))
        until(lambda: metric(server, "queue_pictures") == 3, "three that wait")
        stays = pool.submit(server.post, "/predict", PNG, "image/png")
        until(lambda: metric(server, "queue_pictures") == 4, "four that wait")
        waited = time.monotonic()
        for connection in connections:
            connection.close()
        until(lambda: time.monotonic() - waited > 0.1, "long enough to be looked at")
        gate.unlink()
        assert (first.result(60).status, stays.result(60).status) == (200, 200)
        assert metric(server, "batch_pictures_sum") == 2
        until(lambda: metric(server, 'errors_total{kind="Given up"}') == 3, "three given up")


def test_ten_times_the_callers_it_has_room_for_get_their_own_answer_or_a_503_and_memory_and_queue_stay_bounded(
    tmp_path,
):
    callers, enough = 10 * (QUEUE + BATCH), 6000
    with pressed(tmp_path, WORK="1000000") as server:
        heard, depths, memory = Heard(), [], []

        async def watch():
            while heard.answers < enough:
                depths.append(await asyncio.to_thread(metric, server, "queue_pictures"))
                memory.append((heard.answers, worker_of(server).memory_info().rss))

        async def everyone():
            def go_on() -> bool:
                return heard.answers < enough

            await asyncio.gather(watch(), *(call(server.port, number, heard, go_on) for number in range(callers)))

        asyncio.run(everyone())
        assert heard.wrong == []
        assert heard.lost == 0
        assert set(heard.statuses) == {200, 503}
        assert max(depths) <= QUEUE
        settled = [rss for answers, rss in memory if answers > enough / 3]
        assert max(settled) - min(settled) < 32 * 2**20
        assert server.post("/predict", PNG, "image/png").json["label"] == LABELS[3]
        assert metric(server, "queue_pictures") == 0
        assert "Traceback" not in server.log.read_text()


def test_bodies_that_would_fill_the_memory_are_refused_before_they_come(tmp_path):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 16000000\r\n\r\n"
    with pressed(tmp_path) as server:
        connections = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(5)]
        for connection in connections[:4]:
            connection.sendall(head + bytes(1000))
        until(lambda: metric(server, "requests_in_flight") == 5, "four long bodies")
        connections[4].sendall(head)
        assert connections[4].recv(65536).startswith(b"HTTP/1.1 503 ")
        assert server.post("/predict", PNG, "image/png").status == 200
        for connection in connections:
            connection.close()
        until(lambda: metric(server, "requests_in_flight") == 1, "all gone")
        assert server.post("/predict", bytes(10_000_000), "image/png").status == 415


def test_more_connections_than_threads_are_all_served(tmp_path):
    with pressed(tmp_path, WEB_THREADS="2") as server:
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(12)]
        for _ in range(3):
            for level, connection in enumerate(connections):
                connection.request("POST", "/predict", grey_png(level % 10), {"Content-Type": "image/png"})
            labels = [json.load(connection.getresponse())["label"] for connection in connections]
            assert labels == [LABELS[level % 10] for level in range(12)]
        for connection in connections:
            connection.close()


def test_requests_that_are_sent_ahead_of_their_answers_are_answered_in_order(tmp_path):
    with (
        pressed(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        for _ in range(2):
            connection.sendall(b"".join(request_bytes(grey_png(level)) for level in (1, 7, 4)))
            received = b""
            while received.count(b'"top"') < 3 or not received.endswith(b"\n"):
                received += connection.recv(65536)
            assert [part[:1] for part in received.split(b'{"id":')[1:] if b'"top"' in part] == [b"1", b"7", b"4"]


# The end


def test_on_sigterm_every_request_on_an_open_connection_is_answered_and_new_ones_are_refused(tmp_path):
    with pressed(tmp_path, WORK="2000000") as server:
        heard, ended = Heard(), []

        async def end():
            while heard.answers < 200:
                await asyncio.sleep(0.005)
            heard.ending = True
            server.process.send_signal(signal.SIGTERM)
            ended.append(await asyncio.to_thread(server.process.wait, GRACE_S))

        async def everyone():
            await asyncio.gather(end(), *(call(server.port, number, heard, lambda: True) for number in range(10)))

        asyncio.run(everyone())  # each caller goes on until it is refused a connection
        assert ended == [0]
        assert heard.lost == 0
        assert heard.wrong == []
        assert set(heard.statuses) <= {200, 503}
        with pytest.raises(ConnectionRefusedError):
            server.get("/healthz")


def test_on_sigterm_what_waits_in_the_queue_is_answered(tmp_path, gate):
    with pressed(tmp_path, GATE=str(gate)) as server, ThreadPoolExecutor(32) as pool:
        calls = [occupy(server, gate, pool), *fill(server, pool)]
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refused(server), "new connections are refused, while the old ones still wait")
        assert not any(call.done() for call in calls)
        gate.unlink()
        assert [call.result(60).status for call in calls] == [200] * (1 + QUEUE)
        assert server.process.wait(GRACE_S) == 0


def refused(server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_killed_worker_is_replaced_and_only_what_it_was_answering_is_lost(tmp_path):
    callers = 10
    with pressed(tmp_path, WORK="1000000") as server:
        heard, killed = Heard(), worker_of(server).pid

        async def kill():
            while heard.answers < 200:
                await asyncio.sleep(0.005)
            os.kill(killed, signal.SIGKILL)

        async def everyone():
            def go_on() -> bool:
                return heard.answers < 600 or len(heard.instances) < 2

            await asyncio.gather(kill(), *(call(server.port, number, heard, go_on) for number in range(callers)))

        asyncio.run(everyone())
        assert heard.lost <= callers  # each had one request with the worker that died
        assert heard.wrong == []
        assert len(heard.instances) == 2
        assert worker_of(server).pid != killed
