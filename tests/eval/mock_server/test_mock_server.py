"""The mock endpoint does what its truth says: over the wire, and by a clock that the test sets."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, kstest

from eval.errors import EvalError, MalformedRequest
from eval.load.client import Client, RequestSpec
from eval.mock_server.__main__ import main
from eval.mock_server.behaviour import DRAW_CHUNK, STARTUP_PHASES, MockEndpoint
from eval.mock_server.http_protocol import Connection, ConnectionAction, Request, RequestReader
from eval.mock_server.profile import EndpointProfile
from eval.mock_server.profile_validation import FAULT_ERROR_KINDS
from service import schema
from tests.conftest import ROOT
from tests.helpers.expected_measurements import (
    confusion_matrix,
    error_fractions,
    mean_service_ms,
    sojourn_times,
    sojourn_times_ms,
)
from tests.helpers.mock_endpoint import (
    asked_in_turn,
    labels,
    pictures,
    request_counts,
    running_mock_endpoint,
    with_mock_endpoint,
)

pytestmark = pytest.mark.integration


def in_turn(truth, images, **options):
    """The samples of one post after the other, and the mock endpoint that answered them."""

    async def use(url, mock):
        return await asked_in_turn(url, images, **options), mock

    return with_mock_endpoint(truth, use)


def replies(truth, arrivals_s, picture=None):
    """A mock endpoint's replies to posts at these times of its clock: new pictures, or the same one again and again."""
    mock = MockEndpoint(truth, 0.0)
    bodies = (picture or f"picture {index}".encode() for index in range(len(arrivals_s)))
    posts = (Request("POST", schema.PREDICT, "", body) for body in bodies)
    return [mock.reply(post, at) for post, at in zip(posts, arrivals_s, strict=True)], mock


def stays_ms(truth, arrivals_s, picture=None):
    found, _ = replies(truth, arrivals_s, picture)
    return [(reply.due_s - at) * 1000 for reply, at in zip(found, arrivals_s, strict=True)]


def header(reply, name):
    lines = reply.data.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return next(line.partition(": ")[2] for line in lines if line.startswith(f"{name}: "))


# Failures


@pytest.mark.parametrize("fault", FAULT_ERROR_KINDS)
def test_the_client_gives_every_fault_its_kind(fault):
    (sample,), mock = in_turn(EndpointProfile(median_ms=1, faults={fault: 1.0}), pictures(1), timeout_s=0.5)
    assert sample.error == FAULT_ERROR_KINDS[fault]
    assert sample.detail and "\n" not in sample.detail
    assert mock.response_counts == {fault: 1}  # a login page was not asked for either


def test_faults_have_their_shares():
    truth = EndpointProfile(seed=3, faults={"http_5xx": 0.05, "hang_up": 0.02, "torn": 0.01})
    _, mock = replies(truth, [0.0] * 20_000)
    for fault, share in truth.faults.items():
        assert mock.response_counts[fault] in range(*map(int, binom.interval(0.9999, 20_000, share)))
    assert mock.response_counts.total() == 20_000
    assert error_fractions(truth) == pytest.approx({"http_5xx": 0.05, "disconnected": 0.03})


@pytest.mark.parametrize(("fault", "status"), [("http_429", b"429"), ("http_5xx", b"503")])
def test_who_has_to_wait_is_told_how_long_and_by_whom(fault, status):
    (reply,), mock = replies(EndpointProfile(faults={fault: 1.0}, retry_after_s=7), [0.0])
    assert reply.data.split(b" ")[1] == status
    assert header(reply, "Retry-After") == "7"
    assert header(reply, schema.INSTANCE_ID) == mock.instance_ids[0]
    assert json.loads(reply.data.partition(b"\r\n\r\n")[2]).keys() == {"type", "title", "status", "detail"}


def test_infinite_response_body_does_not_fill_the_memory():
    made = []

    class Noted(Connection):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(self)

    async def go():
        loop = asyncio.get_running_loop()
        mock = MockEndpoint(EndpointProfile(median_ms=1, faults={"endless": 1.0}), loop.time())
        server = await loop.create_server(lambda: Noted(mock, loop), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        async with asyncio.timeout(30):
            while not made or made[0]._may_write:  # until the system's own buffers are full
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # time for fifty chunks more
        waiting = made[0].transport.get_write_buffer_size()
        writer.close()
        made[0].transport.abort()
        server.close()
        return waiting

    assert asyncio.run(go()) < 2**18


# Answers


def test_accuracy_and_confusion_are_those_of_the_truth_exactly():
    images = pictures(1000)
    confusion = {"cat": "dog", "ship": {"airplane": 0.5, "truck": 0.5}}
    truth = EndpointProfile(median_ms=0.01, accuracy=0.8, confusion=confusion, labels=labels(images))
    samples, _ = in_turn(truth, images)
    said = np.zeros((10, 10), int)
    for sample, picture in zip(samples, images.images, strict=True):
        said[picture.entry.label, sample.predicted_class] += 1
    assert (said == confusion_matrix(truth)).all()
    assert said.trace() in range(*map(int, binom.interval(0.9999, 1000, 0.8)))
    assert said[3, 5] == 100 - said[3, 3] > 0  # cats are taken for dogs only
    assert said[8, 0] > 0 and said[8, 9] > 0 and said[8].sum() == said[8, [0, 8, 9]].sum()
    assert said[0, 1] == 100 - said[0, 0]  # by default for the next class


def test_the_answer_is_the_contracts():
    async def use(url, _):
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        answers = []
        for target in (schema.PREDICT, f"{schema.PREDICT}?probabilities=1"):
            writer.write(f"POST {target} HTTP/1.1\r\nContent-Length: 1\r\n\r\nx".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.split()[1]) for line in head.splitlines() if line.startswith("Content-Length"))
            answers.append((head, json.loads(await reader.readexactly(length))))
        writer.close()
        return answers

    (head, plain), (_, full) = with_mock_endpoint(EndpointProfile(median_ms=0.01), use)
    fields = (schema.INSTANCE_ID, schema.INSTANCE_STARTED, schema.REQUEST_ORDINAL, schema.MODEL_VERSION)
    assert {*fields, schema.SERVER_TIMING} <= {line.partition(":")[0] for line in head.splitlines()}
    assert plain.keys() == {"id", "label", "probability", "top", "model"}
    assert full == plain | {"probabilities": full["probabilities"]}
    assert sum(full["probabilities"]) == pytest.approx(1)
    assert full["probabilities"][full["id"]] == full["probability"] == max(full["probabilities"])


# Latency


@pytest.mark.parametrize(
    "truth",
    [
        EndpointProfile(seed=1),
        EndpointProfile(seed=2, distribution="gamma", sigma=1.0),
        EndpointProfile(seed=3, slow_share=0.1),
        EndpointProfile(seed=4, distribution="gamma", sigma=0.4, slow_share=0.05, slow_factor=4),
    ],
    ids=["lognormal", "gamma", "lognormal, some slow", "gamma, some slow"],
)
def test_latency_has_the_distribution_of_the_truth(truth):
    found = stays_ms(truth, [0.0] * 20_000)
    assert kstest(found, np.vectorize(truth.service_time_cdf)).pvalue > 0.001
    assert np.mean(found) == pytest.approx(mean_service_ms(truth), rel=0.03)


def test_without_spread_every_request_takes_the_median():
    assert stays_ms(EndpointProfile(sigma=0), [0.0] * 50) == pytest.approx([20.0] * 50)


def test_seed_determines_latency_and_failures():
    def seen(seed):
        found, mock = replies(EndpointProfile(seed=seed, faults={"http_5xx": 0.3}), [0.0] * 50)
        return [reply.due_s for reply in found], mock.response_counts

    assert seen(9) == seen(9) != seen(8)


@pytest.mark.parametrize("servers", [None, 1, 3])
@pytest.mark.parametrize("stalls", [{}, {"stall_every_s": 0.5, "stall_ms": 120}], ids=["", "stalls"])
def test_mock_endpoint_queues_and_stalls_like_the_simulation(servers, stalls):
    truth = EndpointProfile(seed=6, servers=servers, **stalls)
    dice = np.random.default_rng((6, 0))
    service_s = truth.draw_service_times_ms(dice, DRAW_CHUNK)[1:] / 1000  # it takes the first one for itself
    gaps_s = np.random.default_rng(1).exponential(mean_service_ms(truth) / 1000 / (servers or 1) / 0.7, DRAW_CHUNK - 1)
    expected = sojourn_times(service_s, gaps_s, servers, truth.stalls) * 1000
    assert stays_ms(truth, np.cumsum(gaps_s).tolist()) == pytest.approx(expected)


def test_no_op_requests_wait_for_the_end_of_a_stall_only():
    mock = MockEndpoint(EndpointProfile(servers=1, median_ms=500, stall_every_s=1, stall_ms=100), 0.0)
    mock.reply(Request("POST", schema.PREDICT, "", b"x"), 0.9)
    dues = [mock.reply(Request("GET", schema.READYZ, "", b""), at).due_s for at in (0.05, 0.95, 1.02, 1.2)]
    assert dues == pytest.approx([0.05, 0.95, 1.1, 1.2], abs=1e-4)


def test_a_cache_answers_a_known_image_faster():
    assert stays_ms(EndpointProfile(sigma=0, cached_ms=1), [0.0, 5.0, 6.0], b"one") == pytest.approx([20.0, 1.0, 1.0])


def test_a_drift_makes_it_slower_by_the_minute():
    assert stays_ms(EndpointProfile(sigma=0, drift_per_minute=0.5), [0.0, 60.0, 120.0]) == pytest.approx(
        [20.0, 30.0, 40.0]
    )


def test_what_the_client_measures_is_what_was_drawn_and_the_way():
    truth = EndpointProfile(seed=3, median_ms=3.0, sigma=0.8)
    samples, _ = in_turn(truth, pictures(1), count=300)
    assert kstest([s.server_timing_ms["total"] for s in samples], np.vectorize(truth.service_time_cdf)).pvalue > 0.001
    assert all(s.service_time_ms >= s.server_timing_ms["total"] for s in samples)


def test_sojourn_times_of_a_stream_match_the_profile():
    truth = EndpointProfile(seed=5, median_ms=8, sigma=0.2, servers=1)
    images, rate_rps = pictures(1), 80.0

    async def use(url, _):
        async with Client("a", url, images.classes, 20, time.perf_counter(), max_connections=200) as client:

            async def later(offset_s):
                await asyncio.sleep(offset_s)
                return (
                    await client.send(RequestSpec("poisson", "measure", 0, 0, images.images[0]), time.perf_counter())
                )[0]

            offsets = np.cumsum(np.random.default_rng(2).exponential(1 / rate_rps, 240))
            return await asyncio.gather(*map(later, offsets))

    found = [s.server_timing_ms["total"] for s in with_mock_endpoint(truth, use)]
    low, high = np.quantile(found, [0.2, 0.8])
    assert low < np.median(sojourn_times_ms(truth, rate_rps)) < high


# Instances


def test_cold_start_is_slow_confirmed_and_reports_its_phases():
    images = pictures(1)

    async def use(url, _):
        first, second = await asked_in_turn(url, images, 2)
        async with Client("a", url, images.classes, 20, time.perf_counter()) as client:
            return first, second, await client.fetch_version()

    first, second, version = with_mock_endpoint(EndpointProfile(median_ms=1, sigma=0, cold_start_ms=150), use)
    assert (first.instance_request_number, second.instance_request_number) == (1, 2)
    assert first.instance_id == second.instance_id == version["instance_id"]
    assert first.server_timing_ms["total"] == 151 and second.server_timing_ms["total"] == 1
    phases = version["startup_ms"]
    assert phases.keys() == {*STARTUP_PHASES, "total"}
    assert sum(phases[phase] for phase in STARTUP_PHASES) == pytest.approx(phases["total"]) == 150
    assert version["model"]["version"] == first.model_version
    assert {"engine", "cpus", "cpu_model", "instruction_sets", "started_at", "git_sha", "versions"} <= version.keys()


def test_idle_gap_after_the_last_response_starts_a_new_instance():
    truth = EndpointProfile(sigma=0, cold_start_ms=300, idle_s=2, servers=1)
    found, mock = replies(truth, [0.0, 0.1, 2.2, 2.9, 5.0])
    assert [reply.due_s for reply in found] == pytest.approx([0.32, 0.34, 2.22, 2.92, 5.32])
    assert [header(reply, schema.REQUEST_ORDINAL) for reply in found] == ["1", "2", "3", "4", "1"]
    first, other = mock.instance_ids
    assert [header(reply, schema.INSTANCE_ID) for reply in found] == [first] * 4 + [other]


# Requests


def test_a_request_is_read_when_it_is_all_there():
    whole = b"POST /predict?probabilities=1 HTTP/1.1\r\ncontent-LENGTH: 3\r\nConnection: close\r\n\r\nabc"
    reader = RequestReader()
    for number in range(len(whole) - 1):
        assert reader.feed(whole[number : number + 1]) == []
    assert reader.feed(b"c") == [Request("POST", "/predict", "probabilities=1", b"abc", close_requested=True)]


def test_requests_that_arrive_together_are_read_one_by_one():
    text = b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    assert RequestReader().feed(text) == [Request("POST", "/predict", "", b"abc"), Request("GET", "/", "", b"")]


@pytest.mark.parametrize(
    "text",
    [b"SSH-2.0-OpenSSH_9.9\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
     b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(schema.MAX_BODY_BYTES + 1)],
    ids=["not HTTP", "length", "body"],
)  # fmt: skip
def test_what_it_cannot_read_is_refused(text):
    with pytest.raises(MalformedRequest):
        RequestReader().feed(text)

    async def use(url, _):
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(text)
        answer = await reader.read()  # to the end: it closes
        writer.close()
        return answer

    assert with_mock_endpoint(EndpointProfile(), use).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", b"404"), ("GET", schema.PREDICT, b"405"), ("GET", schema.HEALTHZ, b"200")],
)
def test_other_routes_and_methods(method, path, status):
    reply = MockEndpoint(EndpointProfile(), 0.0).reply(Request(method, path, "", b""), 1.0)
    assert (reply.data.split(b" ")[1], reply.due_s) == (status, 1.0)
    assert reply.action is not ConnectionAction.CLOSE and header(reply, schema.INSTANCE_ID)


# In a process of its own


def test_it_runs_by_itself_and_counts_what_it_was_asked():
    images = pictures(2)
    one, other = (picture.entry.sha256 for picture in images.images)
    with running_mock_endpoint(EndpointProfile(median_ms=0.1)) as url:
        samples = asyncio.run(asked_in_turn(url, images, 5))
        found = request_counts(url)
    assert not any(s.error for s in samples)
    assert found["requests"] == 5 and found["responses"] == {"good": 5}
    assert found["images"] == {one: 3, other: 2}
    assert found["instances"] == [samples[0].instance_id]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_quietly(number, tmp_path):
    command = [sys.executable, "-m", "eval.mock_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        connection = http.client.HTTPConnection(url.removeprefix("http://"))  # one that stays open
        connection.request("GET", schema.READYZ)
        assert connection.getresponse().read()
        process.send_signal(number)
        assert process.communicate(timeout=30) == ("", "")
        connection.close()
    assert process.returncode == 0


def test_over_tls_the_handshake_is_seen(tmp_path, monkeypatch, needs_tool):
    pem = tmp_path / "both.pem"
    subprocess.run(
        [needs_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pem.open("a") as both:
        both.write((tmp_path / "certificate.pem").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with running_mock_endpoint(EndpointProfile(median_ms=0.1), "--certfile", str(pem)) as url:
        assert url.startswith("https://")
        first, second = asyncio.run(asked_in_turn(url, pictures(1), 2))
    assert Counter(s.error for s in (first, second)) == {None: 2}
    assert "tls" in first.connection_ms and not second.connection_ms


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--profile", "t.json"], "mock-endpoint: t.json: sigma is 'wide'; expected a number, 0 to 10\n"),
        (
            ["--profile", "a.jpg"],
            "mock-endpoint: a.jpg is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: "
            "invalid start byte\n",
        ),
        (["--port", "99999"], "mock-endpoint: bind(): port must be 0-65535.\n"),
        (["--profile", "none.json"], "mock-endpoint: [Errno 2] No such file or directory: 'none.json'\n"),
        (["--keyfile", "t.json"], "mock-endpoint: --keyfile needs --certfile, the certificate of that key\n"),
        (
            ["--certfile", "t.json"],
            "mock-endpoint: t.json and its key do not match or are not PEM\n",
        ),
    ],
)
def test_what_it_cannot_serve_is_named_in_one_line(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.json").write_text('{"sigma": "wide"}')
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert main(options) == 1
    assert capsys.readouterr().err == says


def test_a_mock_endpoint_that_does_not_start_says_why(capsys):
    with (
        pytest.raises(EvalError, match=r"did not start: mock-endpoint: .*Invalid argument"),
        running_mock_endpoint(EndpointProfile(), "--core", "99999"),
    ):
        pass
    assert "Invalid argument" in capsys.readouterr().err


def test_help_teaches():
    done = subprocess.run(
        [sys.executable, "-m", "eval.mock_server", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "/mock/counts" in done.stdout and '"faults"' in done.stdout
