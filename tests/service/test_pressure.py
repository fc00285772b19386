"""The service under more load than it can bear, told to end, or killed: a small network of our own.

What is asserted are facts of counting and order. How much is still answered in time is measured, not tested:
`python -m scripts.benchmarks.overload`.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import psutil
import pytest

from service import schema
from service.server import MAX_CONNECTIONS
from service.web.asgi import REFUSALS_PER_CLOSE
from tests.helpers.pressure import LABELS, Heard, call, grey_png, request_bytes
from tests.helpers.running_service import metrics_without_instance, multipart, png_of, ready_service

pytestmark = pytest.mark.integration

QUEUE, BATCH, THREADS = 8, 4, 24
LIMITS = {"MAX_QUEUE": str(QUEUE), "BATCH_MAX": str(BATCH), "WEB_THREADS": str(THREADS)}
GRACE_S = 10  # that a platform gives from SIGTERM to SIGKILL
PNG = grey_png(3)


def pressed(tmp_path, **settings):
    command = (sys.executable, "-c", "from service.server import serve; serve('tests.helpers.pressure_app:app')")
    return ready_service(tmp_path / "log", command, **(LIMITS | settings))


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A service with short deadlines."""
    with pressed(tmp_path_factory.mktemp("impatient"), KEEP_ALIVE_S="1", BODY_TIMEOUT_S="0.3") as server:
        yield server


@pytest.fixture
def gate(tmp_path):
    """While it exists, no pass ends."""
    gate = tmp_path / "gate"
    yield gate
    gate.unlink(missing_ok=True)


def metric(server, name: str) -> float:
    return metrics_without_instance(server.get("/metrics").body.decode()).get(f"classifier_{name}", 0.0)


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
    until(lambda: metric(server, "queue_images") == QUEUE, "a full queue")
    return calls


def status_of(connection: socket.socket) -> int:
    """Of the next answer, which is read to its end."""
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    reply.read()
    return reply.status


def worker_of(server) -> psutil.Process:
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


# Too much


def test_full_queue_refuses_undecoded_and_answers_what_it_took(tmp_path, gate):
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
            assert reply.json["detail"].startswith(f"queue full ({QUEUE}/{QUEUE})")
        assert [server.get(path).status for path in ("/healthz", "/readyz", "/version", "/")] == [200] * 4
        gate.unlink()
        assert [call.result(60).status for call in calls] == [200] * (1 + QUEUE)
        assert server.post("/predict", b"no picture", "image/png").status == 415


def test_full_queue_refuses_every_kind_of_request_alike(tmp_path, gate):
    with pressed(tmp_path, GATE=str(gate)) as server, ThreadPoolExecutor(32) as pool:
        calls = [occupy(server, gate, pool), *fill(server, pool)]
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        def ask(path="/predict", body=PNG, **headers):
            kept.request("POST", path, body, {"Content-Type": "image/png"} | headers)
            reply = kept.getresponse()
            return reply.status, reply.headers, json.loads(reply.read())

        refused = metric(server, 'requests_total{route="/predict",status="503"}')
        replies = [ask(), ask("/predict?probabilities=1"), ask("/predict?x=1"), ask(Connection="keep-alive")]
        replies += [ask(Accept="application/json, text/html;q=0.5"), ask(body=bytes(200_000))]
        replies += [ask(body=iter([PNG[:20], PNG[20:]]))]
        assert {status for status, _, _ in replies} == {503}
        assert len({json.dumps(body) for _, _, body in replies}) == 1
        for _, headers, _ in replies:
            assert set(headers) == set(replies[0][1])
            assert headers[schema.REQUEST_ORDINAL] == str(1 + QUEUE)
        assert metric(server, 'requests_total{route="/predict",status="503"}') == refused + len(replies)
        assert metric(server, 'errors_total{kind="Queue full"}') >= len(replies)
        gate.unlink()
        assert [call.result(60).status for call in calls] == [200] * (1 + QUEUE)
        assert ask()[0] == 200
        kept.close()


def test_slow_senders_do_not_hold_up_the_others(tmp_path):
    head, body = request_bytes(PNG).split(b"\r\n\r\n")
    with pressed(tmp_path) as server, ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            for _ in range(THREADS // 2)
        ]
        for connection in slow:
            connection.sendall(head + b"\r\n\r\n" + body[:1])
        until(lambda: metric(server, "requests_in_flight") == 1 + len(slow), "bodies that have begun")
        for k in range(1, 4):
            assert server.post("/predict", PNG, "image/png").status == 200
            for connection in slow:
                connection.sendall(body[k : k + 1])
        assert metric(server, "requests_in_flight") == 1 + len(slow)
        for connection in slow:  # one after the other: all at once are more than the queue takes
            connection.sendall(body[4:])
            assert status_of(connection) == 200


def test_a_body_is_asked_for_where_its_sender_waits_for_that(tmp_path):
    head, body = request_bytes(PNG).split(b"\r\n\r\n")
    with (
        pressed(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        for _ in range(2):
            connection.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
            assert status_of(connection) == 200


def test_a_body_over_the_limit_is_not_asked_for(tmp_path):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\nExpect: 100-continue\r\n\r\n"
    with (
        pressed(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
    ):
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_tenfold_overload_gives_answers_or_503_in_bounded_memory(
    tmp_path,
):
    callers, enough = 10 * (QUEUE + BATCH), 6000
    with pressed(tmp_path, WORK="1000000") as server:
        heard, depths, memory = Heard(), [], []

        async def watch():
            while heard.answers < enough:
                depths.append(await asyncio.to_thread(metric, server, "queue_images"))
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
        assert metric(server, "queue_images") == 0
        assert "Traceback" not in server.log.read_text()


def test_bodies_beyond_the_memory_limit_are_refused(tmp_path):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 16000000\r\n\r\n"
    chunked = head.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\nf42400\r\n"
    almost_all = bytes(15_999_999)
    with pressed(tmp_path) as server, ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60)) for _ in range(6)
        ]
        for connection in connections[:4]:
            connection.sendall(head + almost_all)
        until(lambda: metric(server, "body_bytes") > 63_000_000, "four long bodies")
        for connection, start in zip(connections[4:], (head, chunked), strict=True):
            with suppress(ConnectionError):  # it is refused before its end
                connection.sendall(start + almost_all)
            reply = connection.recv(65536)
            assert reply.startswith(b"HTTP/1.1 503 ")
            assert b"long bodies take" in reply
            assert b"retry-after: 1\r\n" in reply
        assert server.post("/predict", PNG, "image/png").status == 200
        for connection in connections[:4]:
            connection.close()
        until(lambda: metric(server, "body_bytes") == 0, "all gone")
        assert server.post("/predict", bytes(10_000_000), "image/png").status == 415


SLOW_BODIES = [
    pytest.param(b"Content-Length: 1000\r\n\r\n" + PNG[:9], "9 bytes", id="length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe", "2 bytes", id="chunked"),
    pytest.param(b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n", "0 bytes", id="expect"),
]


@pytest.mark.parametrize(("sent", "received"), SLOW_BODIES)
def test_a_body_that_does_not_come_in_time_is_refused(impatient, sent, received):
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + sent)
        reply = b""
        while more := connection.recv(65536):  # until the service closes
            reply += more
    head, _, body = reply.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["detail"].startswith(f"only {received} of the body came within 0.3 s")


def test_every_connection_of_a_slow_body_is_closed(impatient):
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", impatient.port), timeout=60)) for _ in range(300)
        ]
        for connection, slow in zip(connections, SLOW_BODIES * 100, strict=True):
            sent, _ = slow.values
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + sent)
        for connection in connections:
            while connection.recv(65536):  # until the service closes
                pass


def test_silent_connections_give_their_places_to_others(impatient):
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 100):
            stack.enter_context(socket.create_connection(("127.0.0.1", impatient.port), timeout=60))
        assert impatient.post("/predict", PNG, "image/png").status == 200


def test_a_full_service_refuses_who_waits_to_be_accepted_too(tmp_path, gate):
    waiting = MAX_CONNECTIONS // REFUSALS_PER_CLOSE - 10
    with pressed(tmp_path, GATE=str(gate)) as server, ThreadPoolExecutor(32) as pool, ExitStack() as stack:
        calls = [occupy(server, gate, pool), *fill(server, pool)]
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            for _ in range(MAX_CONNECTIONS + waiting)
        ]
        for connection in connections:
            connection.sendall(request_bytes(PNG))
        assert {status_of(connection) for connection in connections} == {503}
        gate.unlink()
        assert [call.result(60).status for call in calls] == [200] * (1 + QUEUE)


def test_work_ends_when_its_client_has_gone(tmp_path, gate):
    """Six requests wait for the pass, or for their turn to decode; six more for a thread."""
    large = request_bytes(png_of(1000, 1000))
    with pressed(tmp_path, GATE=str(gate), WEB_THREADS="7") as server, ThreadPoolExecutor(1) as pool:
        first = occupy(server, gate, pool)
        connections = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(12)]
        for number, connection in enumerate(connections):
            connection.sendall(large if number % 2 else request_bytes(PNG))
        until(lambda: metric(server, "queue_images") == 6, "six requests that wait for the pass")
        for connection in connections:
            connection.close()
        until(
            lambda: metric(server, 'errors_total{kind="Client disconnected"}') == 6,
            "those without a thread to be dropped",
        )
        gate.unlink()
        assert first.result(60).status == 200
        until(lambda: metric(server, 'errors_total{kind="Client disconnected"}') == 12, "all to be dropped")
        assert server.post("/predict", PNG, "image/png").status == 200
        assert metric(server, "batch_images_sum") == 2


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


def test_pipelined_requests_are_answered_in_order(tmp_path):
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


def test_sigterm_answers_open_requests_and_refuses_new(tmp_path):
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


def test_a_killed_worker_is_replaced(tmp_path):
    callers = 10
    with pressed(tmp_path, WORK="1000000") as server:
        heard, killed = Heard(), worker_of(server).pid

        async def kill():
            while heard.answers < 200:
                await asyncio.sleep(0.005)
            os.kill(killed, signal.SIGKILL)

        async def everyone():
            await asyncio.gather(kill(), *(call(server.port, number, heard, lambda: True) for number in range(callers)))

        asyncio.run(everyone())  # each caller goes on until it is refused a connection
        assert heard.lost <= 2 * callers  # of each, one request that was being answered and one that came too soon
        assert heard.wrong == []
        until(server.ready, "a worker that is ready")
        assert server.post("/predict", PNG, "image/png").headers[schema.INSTANCE_ID] not in heard.instances
        assert worker_of(server).pid != killed
