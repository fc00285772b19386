"""The client of the benchmarks, against servers whose faults are known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.local.health import free_ports
from scripts.benchmarks.http_load import CANNOT_CONNECT, CONNECTION_LOST, ClosedLoop, OpenLoop, ServerGone, quantile_ms
from scripts.benchmarks.http_messages import QUEUE_FULL, WRONG_LABEL, ResponseReader, UploadFormat, send_once
from tests.helpers.http_server import http_server, send

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
CAT = UploadFormat("/predict").request(b"the cat's bytes", "image/png", "cat")
DOG = UploadFormat("/predict", "images").request(b"the dog's bytes", "image/png", "dog")


def classify(handler, body):
    label = "cat" if b"the cat's bytes" in body else "dog"
    send(handler, 200, json.dumps({"id": 3, "label": label, "top": [{"label": "frog"}]}))


def load(port, concurrency=4, window_s=0.3, requests=(CAT, DOG)):
    return ClosedLoop(port, requests, concurrency).run(0.05, window_s, 2.0)


def test_correct_responses_are_counted_and_timed():
    with http_server(classify) as port:
        result = load(port)
    assert result.errors == {} and result.drained
    assert result.succeeded > 0 and result.rate_rps == result.succeeded / result.window_s
    assert result.p50_ms is None or 0 < result.p50_ms < result.window_s * 1000
    assert 0 < result.client_cpu < 1


def test_wrong_label_is_an_error_and_no_success():
    with http_server(lambda handler, body: send(handler, 200, '{"label": "cat"}')) as port:
        result = load(port, concurrency=1)
    assert list(result.errors) == [WRONG_LABEL]
    assert result.errors[WRONG_LABEL] >= result.succeeded - 1 >= 0  # every other one, and those of the warm-up


def test_closed_loop_retries_a_503_after_its_retry_after():
    bodies = []

    def refuse(handler, body):
        bodies.append(body)
        send(handler, 503, "{}", Retry_After="1")

    with http_server(refuse) as port:
        result = load(port, concurrency=3)
    assert result.errors == {QUEUE_FULL: 3} and len(bodies) == 3
    assert result.succeeded == 0 and result.p50_ms is None


def test_request_open_at_the_windows_end_has_no_latency():
    gate = threading.Event()
    with http_server(lambda handler, body: gate.wait(60)) as port:
        result = ClosedLoop(port, [CAT], 8).run(0.05, 0.2, 0.1)
        gate.set()
    assert (result.succeeded, result.open_at_end, result.drained) == (0, 8, False)
    assert result.p50_ms is result.p99_ms is None and result.window_s < 5


def test_a_lost_connection_is_an_error_and_the_load_goes_on():
    count = iter(range(10**9))

    def every_tenth_is_lost(handler, body):
        if next(count) % 10 == 9:
            handler.close_connection = True
        else:
            classify(handler, body)

    with http_server(every_tenth_is_lost) as port:
        result = load(port)
    assert set(result.errors) == {CONNECTION_LOST}
    assert result.succeeded > result.errors[CONNECTION_LOST]


def test_a_server_may_close_between_two_requests():
    def once(handler, body):
        handler.close_connection = True
        send(handler, 200, json.dumps({"label": "cat"}), Connection="close")

    with http_server(once) as port:
        result = load(port, requests=(CAT,))
    assert result.errors == {} and result.succeeded > 1


def test_a_closed_loop_ends_when_nothing_listens():
    with http_server(classify) as port:
        pass
    with pytest.raises(ServerGone, match=str(port)):
        load(port)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-", b'Length: 16\r\n\r\n{"label": ', b'"cat"}'],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b'10\r\n{"label": "cat"}\r\n', b"0\r\n\r\n"],
    ],
    ids=["length", "chunked"],
)
def test_a_response_is_read_when_all_of_it_is_there(pieces):
    reader = ResponseReader()
    for _ in range(2):  # one after another on a connection
        *first, response = map(reader.feed, pieces)
        assert not any(first) and response.label == "cat" and response.fault(CAT) is None


def test_a_quantile_counts_what_is_still_open_as_slower():
    seconds = [i / 1000 for i in range(1, 1001)]
    assert quantile_ms(seconds, [], 0.5) == pytest.approx(501)
    assert quantile_ms(seconds, [0.4] * 500, 0.5) == pytest.approx(501)  # these may well turn out faster
    assert quantile_ms(seconds, [2.0] * 500, 0.5) == pytest.approx(751)
    assert quantile_ms(seconds, [2.0] * 1001, 0.5) is None
    assert quantile_ms(seconds[:99], [], 0.99) is None


def test_a_request_larger_than_the_sockets_buffer_arrives_whole():
    sizes = []

    def measure(handler, body):
        sizes.append(len(body))
        send(handler, 200, '{"label": "cat"}')

    large = UploadFormat("/predict").request(bytes(20_000_000), "image/png", "cat")
    with http_server(measure) as port:
        result = load(port, concurrency=1, requests=(large,))
    assert result.errors == {} and set(sizes) == {20_000_000}


# The open loop


def test_open_loop_sends_without_waiting_for_responses():
    gate = threading.Event()
    with http_server(lambda handler, body: gate.wait(60)) as port:
        result = OpenLoop(port, CAT).run(400, 0.5)
        gate.set()
    assert (result.succeeded, result.errors, result.open_at_end, result.drained) == (0, {}, 200, False)


def test_an_open_loop_counts_every_request_once():
    with http_server(classify) as port:
        result = OpenLoop(port, CAT).run(200, 0.5, drain_s=60)
    assert result.errors == {} and result.drained
    assert result.succeeded + result.open_at_end == 100


def test_open_loop_does_not_retry_a_503():
    bodies = []

    def refuse(handler, body):
        bodies.append(body)
        send(handler, 503, "{}", Retry_After="0")

    with http_server(refuse) as port:
        result = OpenLoop(port, CAT).run(200, 0.5, drain_s=60)
    assert (result.succeeded, result.errors, len(bodies)) == (0, {QUEUE_FULL: 100}, 100)


def test_open_loop_continues_when_nothing_listens():
    with http_server(classify) as port:
        pass
    result = OpenLoop(port, CAT).run(200, 0.2)
    assert result.succeeded == 0 and set(result.errors) == {CANNOT_CONNECT}


def test_open_loop_requests_time_out(monkeypatch):
    monkeypatch.setattr("scripts.benchmarks.http_load.CLIENT_TIMEOUT_S", 0.1)
    gate = threading.Event()
    with http_server(lambda handler, body: gate.wait(60)) as port:
        result = OpenLoop(port, CAT).run(100, 0.5)
        gate.set()
    assert list(result.errors) == ["no response in 10 s"] and result.errors["no response in 10 s"] > 0


# The server that does nothing


def test_null_server_responds_to_every_request_with_its_label():
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "scripts.benchmarks.null_server", str(port), "cat"]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            while (response := send_once(port, CAT, 60)) is None:
                assert process.poll() is None
            assert response.fault(CAT) is None
            large = UploadFormat("/predict").request(bytes(1_000_000), "image/png", "cat")
            result = load(port, concurrency=2, requests=(CAT, large))
        finally:
            process.kill()
    assert result.errors == {} and result.succeeded > 0
