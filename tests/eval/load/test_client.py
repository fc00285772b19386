from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import shutil
import socket
import ssl
import subprocess
import time
import tracemalloc

import pytest

from eval.errors import Unreachable
from eval.load.client import MAX_RESPONSE_BYTES, Client, RequestSpec
from eval.load.responses import MAX_DETAIL_CHARS, parse_server_timing
from eval.mock_server.behaviour import MockEndpoint
from eval.mock_server.http_protocol import Connection
from eval.mock_server.profile import CIFAR10_CLASSES, EndpointProfile
from eval.targets.tokens import Token
from tests.helpers.fake_endpoint import CERTAIN, CLASSES, answering, closed_port, fake_endpoint, picture

TIMEOUT_S = 20.0


def ask(index=0):
    return RequestSpec("single", "measure", 5, index, picture(index))


def posts(url, count=1, timeout_s=TIMEOUT_S, token=None, between=lambda: None, **how):
    """The samples of so many posts over one client."""

    async def go():
        samples = []
        async with Client("fake", url, CLASSES, timeout_s, time.perf_counter(), token, **how) as client:
            for index in range(count):
                sample, _ = await client.send(ask(index), time.perf_counter())
                samples.append(sample)
                between()
        return samples

    return asyncio.run(go())


def test_valid_response_becomes_a_complete_sample():
    with fake_endpoint() as fake:
        (sample,) = posts(fake.url)
    assert (sample.error, sample.detail, sample.status) == (None, None, 200)
    assert (sample.target, sample.scenario, sample.phase) == ("fake", "single", "measure")
    assert (sample.block, sample.image_index) == (5, 0)
    assert (sample.predicted_class, sample.probabilities) == (3, CERTAIN)
    assert sample.server_timing_ms == {"decode": 0.5, "queue": 0.1, "inference": 7.25, "total": 8.0}
    assert (sample.instance_id, sample.instance_request_number, sample.model_version) == ("abc123", 1, "0123456789ab")
    assert sample.response_bytes > 50


def test_the_files_own_bytes_are_posted_with_their_type():
    with fake_endpoint() as fake:
        posts(fake.url)
    assert fake.bodies == [picture().data]
    (request,) = fake.posts
    assert request.headers["Content-Type"] == "image/png"
    assert request.query == {"probabilities": "1"}


def test_connection_is_reused_after_the_first_sample():
    with fake_endpoint() as fake:
        samples = posts(fake.url, 3)
    assert [s.new_connection for s in samples] == [True, False, False]


def test_latency_starts_at_the_scheduled_time():
    async def go(url):
        origin = time.perf_counter()
        async with Client("fake", url, CLASSES, TIMEOUT_S, origin) as client:
            return await client.send(ask(), time.perf_counter() - 5)

    with fake_endpoint() as fake:
        sample, done = asyncio.run(go(fake.url))
    assert sample.send_delay_ms >= 5000
    assert sample.latency_ms == pytest.approx(sample.service_time_ms + sample.send_delay_ms, abs=0.01)
    assert sample.scheduled_s < 0 < done


def test_without_a_schedule_latency_starts_at_the_send():
    async def go(url):
        async with Client("fake", url, CLASSES, TIMEOUT_S, time.perf_counter() - 5) as client:
            return await client.send(ask())

    with fake_endpoint() as fake:
        sample, _ = asyncio.run(go(fake.url))
    assert sample.send_delay_ms is None
    assert sample.latency_ms == sample.service_time_ms > 0
    assert sample.scheduled_s >= 5


def test_latency_lasts_to_the_last_byte_of_the_answer():
    with fake_endpoint("slow") as fake:
        begun = time.perf_counter()
        fake.on_post = lambda _: fake.release.set()
        (sample,) = posts(fake.url)
        assert 0 < sample.service_time_ms < (time.perf_counter() - begun) * 1000


@pytest.mark.parametrize(
    ("mode", "kind", "detail"),
    [
        ("html", "invalid_response", "an HTML page: <html>Please log in</html>"),
        ("redirect", "invalid_response", "302: redirected to /login"),
        ("unauthorised", "http_4xx", "401: wrong: None"),
        ("throttled", "http_429", "429: slow down"),
        ("broken", "http_5xx", "500: Internal error"),
        ("endless", "invalid_response", "more than 1 MiB"),
        ("torn", "disconnected", ""),
        ("hangup", "disconnected", ""),
        ("not_http", "invalid_response", "not HTTP"),
        (answering(probabilities=[0.1] * 9), "invalid_response", "expected 10 probabilities, found 9"),
        (answering(probabilities=None), "invalid_response", "expected 10 probabilities, found NoneType"),
        (answering(probabilities=[0.5] * 10), "invalid_response", "sum to 5"),
        (answering(probabilities=[float("nan")] * 10), "invalid_response", "not JSON"),
        (answering(probabilities=["1"] + [0] * 9), "invalid_response", "'1' is not a probability"),
        (answering(label="dog"), "invalid_response", "id 3 is called 'dog', expected 'cat'"),
        (answering(id=10), "invalid_response", "id is 10, expected 0 to 9"),
        (answering(id=True), "invalid_response", "id is True"),
        (answering(id=5, label="dog"), "invalid_response", "id 5 has 0.0, but another class has 1.0"),
    ],
    ids=lambda value: value[:24],
)
def test_a_failure_is_a_sample_of_its_kind_and_says_why(mode, kind, detail):
    with fake_endpoint(mode) as fake:
        (sample,) = posts(fake.url)
    assert sample.error == kind
    assert sample.detail and detail in sample.detail
    assert (sample.predicted_class, sample.probabilities) == (None, None)
    assert sample.latency_ms > 0


def test_a_request_that_fails_is_sent_once():
    for mode in ("torn", "hangup", "not_http", "broken"):
        with fake_endpoint(mode) as fake:
            posts(fake.url, 2)
        assert len(fake.posts) == 2


def test_a_redirect_is_not_followed():
    with fake_endpoint("redirect") as fake:
        posts(fake.url)
        assert fake.logins == 0


def test_after_a_failure_the_next_request_is_answered():
    for mode in ("endless", "torn", "hangup", "not_http", "html"):
        with fake_endpoint(mode) as fake:

            def recover(fake=fake):
                fake.mode = "good"

            assert [s.error is None for s in posts(fake.url, 2, between=recover)] == [False, True]


def test_an_endless_body_is_left_at_the_limit():
    with fake_endpoint("endless") as fake:
        (sample,) = posts(fake.url)
    assert sample.response_bytes <= MAX_RESPONSE_BYTES


def test_no_answer_in_time_is_a_timeout():
    with fake_endpoint("slow") as fake:
        (sample,) = posts(fake.url, timeout_s=0.2)
    assert (sample.error, sample.status) == ("timeout", None)
    assert sample.detail == "no complete response within 0.2 s"
    assert sample.latency_ms >= 200


def test_a_port_without_a_listener_is_a_connect_failure():
    (sample,) = posts(f"http://127.0.0.1:{closed_port()}")
    assert sample.error == "connect"
    assert (sample.detail or "").endswith(": Connection refused")
    assert sample.new_connection and sample.connection_ms == {}


def test_an_unknown_host_is_a_dns_failure():
    (sample,) = posts("http://nothing.invalid")
    assert sample.error == "dns"
    assert (sample.detail or "").startswith("nothing.invalid is not found: ")


def test_plain_http_behind_an_https_address_is_a_tls_failure():
    with fake_endpoint() as fake:
        (sample,) = posts(fake.url.replace("http:", "https:"))
    assert sample.error == "tls"


def misbehaves(*pieces, again=b"", every_s=0.0):
    """A connection handler that answers a request with these bytes, then with `again` for as long as anybody reads."""

    async def handle(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
            while again:
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(every_s)
            await reader.read()

    return handle


def samples_from(handle, count=1, together=False, timeout_s=TIMEOUT_S, scheme="http", asked=ask, **how):
    """The samples of so many requests to a server that treats each connection like this."""

    handlers = []

    async def connected(reader, writer):
        handlers.append(asyncio.current_task())
        try:
            await handle(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def go():
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Client("raw", url, CLASSES, timeout_s, time.perf_counter(), **how) as client:
            waiting = [client.send(asked(index), time.perf_counter()) for index in range(count)]
            answers = await asyncio.gather(*waiting) if together else [await one for one in waiting]
        await asyncio.gather(*handlers)
        return [sample for sample, _ in answers]

    return asyncio.run(go())


OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(bytes(10_000_000))  # about 10 kB


@pytest.mark.parametrize(
    ("handle", "detail"),
    [
        (misbehaves(OK + b"Content-Length: 1000000000000\r\n\r\n"), "a body of 1000000000000 bytes, more than 1 MiB"),
        (misbehaves(OK, again=b"X-Filler: 0123456789\r\n"), "not HTTP: Too many headers"),
        (misbehaves(OK + b"X-Filler: ", again=b"0123456789" * 100), "not HTTP: "),
        (misbehaves(OK + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n"), "not HTTP: "),
        (misbehaves(OK + b"Content-Length: %d\r\nContent-Encoding: gzip\r\n\r\n%b" % (len(BOMB), BOMB)),
         "a body in gzip, though only identity was accepted"),
        (misbehaves(OK + b"Content-Length: 6\r\n\r\n\x1b[2J\x00\xff"), "not JSON: \ufffd[2J\ufffd\ufffd"),
        (misbehaves(OK + b"Content-Length: 0\r\n\r\n"), "an empty body"),
        (misbehaves(b"HTTP/1.1 302 Found\r\nLocation: https://me:s3cret@login.example/in?next=t0ken\r\n"
                    b"Content-Length: 0\r\n\r\n"),
         "302: redirected to https://login.example/in, which is not followed"),
        (misbehaves(b"HTTP/1.1 204 No Content\r\n\r\n"), "204: an empty body"),
    ],
    ids=["huge", "endless headers", "endless header", "bad chunk", "gzip", "binary", "empty", "login", "nothing"],
)  # fmt: skip
def test_garbage_is_left_at_once_and_named_in_one_line(handle, detail):
    (sample,) = samples_from(handle)
    assert sample.error == "invalid_response"
    assert sample.detail and sample.detail.startswith(detail)


@pytest.mark.parametrize(
    ("handle", "detail", "scheme"),
    [
        (misbehaves(OK + b"Content-Length: 9999\r\n\r\n", again=b" ", every_s=0.01), "no complete response", "http"),
        (
            misbehaves(OK + b"Content-Length: 9\r\n\r\n"),
            "no complete response within 0.3 s, 0 bytes of it",
            "http",
        ),
        (misbehaves(b"HTTP/1.1 2"), "no complete response within 0.3 s", "http"),
        (misbehaves(), "connected, but no TLS within 0.3 s", "https"),
    ],
    ids=["drip", "body", "head", "tls"],
)
def test_stalled_request_times_out_and_names_the_stage_reached(handle, detail, scheme):
    (sample,) = samples_from(handle, timeout_s=0.3, scheme=scheme)
    assert sample.error == "timeout"
    assert sample.detail and sample.detail.startswith(detail)


def test_connection_closed_during_the_handshake_is_a_tls_failure():
    async def hang_up(reader, writer):
        await reader.read(1)

    (sample,) = samples_from(hang_up, scheme="https")
    assert sample.error == "tls"
    assert (sample.detail or "").startswith("no TLS with 127.0.0.1:")


def test_no_op_on_a_closed_connection_is_not_retried():
    heads = []

    async def answer_once(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            for answer in (OK + b"Content-Length: 2\r\n\r\n{}", b""):
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)

    samples = samples_from(answer_once, 2, asked=lambda index: RequestSpec("baseline_rtt", "measure", 1, -1, None))
    assert [s.error for s in samples] == [None, "disconnected"]
    assert len(heads) == 2


def test_requests_in_flight_are_limited_by_max_connections():
    count, arrived, all_there = 20, [], asyncio.Event()

    async def wait_for_all(reader, writer):
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        if len(arrived) == count:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), TIMEOUT_S)
        writer.write(OK + b"Content-Length: 2\r\n\r\n{}")

    samples = samples_from(wait_for_all, count, together=True, max_connections=count)
    assert {s.status for s in samples} == {200}


@pytest.mark.slow
def test_a_client_keeps_nothing_of_the_requests_it_has_sent():
    """Failed ones among them. The smallest object, kept in a list, would take 32 bytes a request."""
    faults = {"http_5xx": 0.1, "not_json": 0.1, "torn": 0.1, "hang_up": 0.1}
    same = ask()

    async def send(client, count):
        for _ in range(count // 10):
            await asyncio.gather(*(client.send(same, time.perf_counter()) for _ in range(10)))

    async def go():
        loop = asyncio.get_running_loop()
        mock = MockEndpoint(EndpointProfile(median_ms=0.01, sigma=0, faults=faults), loop.time())
        server = await loop.create_server(lambda: Connection(mock, loop), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Client("mock", url, CIFAR10_CLASSES, TIMEOUT_S, 0.0, max_connections=10) as client:
            await send(client, 500)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await send(client, 5000)
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / 5000  # bytes a request

    tracemalloc.start()
    try:
        assert asyncio.run(go()) < 20
    finally:
        tracemalloc.stop()


@pytest.fixture
def certificate(tmp_path):
    """A server's TLS context for 127.0.0.1 and localhost, and the file that vouches for it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def test_a_certificate_that_nobody_vouches_for_is_a_tls_failure(certificate):
    with fake_endpoint(tls=certificate[0]) as fake:
        (sample,) = posts(fake.url)
    assert sample.error == "tls"
    assert (sample.detail or "").endswith("is not trusted: self-signed certificate")
    assert fake.posts == []


def test_connection_timings_are_separate_and_within_service_time(certificate, monkeypatch):
    context, trusted = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with fake_endpoint(tls=context) as fake:
        first, second = posts(fake.url.replace("127.0.0.1", "localhost"), 2)
    assert first.error is None
    assert list(first.connection_ms) == ["dns", "connect", "tls"]
    assert all(part > 0 for part in first.connection_ms.values())
    assert sum(first.connection_ms.values()) < first.time_to_first_byte_ms < first.service_time_ms
    assert second.connection_ms == {} and not second.new_connection


@pytest.mark.parametrize("fresh", [True, False], ids=["each looks up the name", "all wait for one look-up"])
def test_timings_of_concurrent_connections_are_not_mixed_up(certificate, monkeypatch, fresh):
    context, trusted = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

    async def go(url):
        async with Client(
            "fake", url, CLASSES, TIMEOUT_S, 0.0, max_connections=12, no_connection_reuse=fresh
        ) as client:
            return await asyncio.gather(*(client.send(ask(), time.perf_counter()) for _ in range(12)))

    with fake_endpoint(tls=context) as fake:
        samples = [sample for sample, _ in asyncio.run(go(fake.url.replace("127.0.0.1", "localhost")))]
    for sample in samples:
        assert list(sample.connection_ms) == ["dns", "connect", "tls"]
        assert min(sample.connection_ms.values()) > 0
        assert sum(sample.connection_ms.values()) < sample.time_to_first_byte_ms


def test_plain_http_to_an_ip_has_no_dns_or_tls_timing():
    with fake_endpoint() as fake:
        (sample,) = posts(fake.url)
    assert list(sample.connection_ms) == ["connect"]


def test_a_connection_that_has_rested_too_long_is_not_used_again():
    with fake_endpoint() as fake:
        samples = posts(fake.url, 2, keepalive_s=0.05, between=lambda: time.sleep(0.1))  # the rest itself is tried
    assert [s.new_connection for s in samples] == [True, True]


def test_in_fresh_mode_every_request_opens_a_connection():
    with fake_endpoint() as fake:
        samples = posts(fake.url, 3, no_connection_reuse=True)
    assert all(s.new_connection and s.connection_ms for s in samples)


def test_no_op_requests_readyz_and_sends_no_image():
    async def go(url):
        async with Client("fake", url, CLASSES, TIMEOUT_S, 0.0) as client:
            return (
                await client.send(
                    RequestSpec("baseline_rtt", "measure", 1, -1, None, index_in_block=4), time.perf_counter()
                )
            )[0]

    with fake_endpoint() as fake:
        sample = asyncio.run(go(fake.url))
    assert (sample.scenario, sample.image_index, sample.index_in_block, sample.status) == ("baseline_rtt", -1, 4, 200)
    assert sample.error is None and sample.predicted_class is None and fake.posts == []


def test_dropped_request_is_a_sample_of_its_own_kind():
    client = Client("fake", "http://127.0.0.1:9", CLASSES, TIMEOUT_S, 0.0)
    sample = client.dropped(ask(), "too many under way", time.perf_counter() - 2)
    assert (sample.error, sample.detail, sample.status) == ("dropped", "too many under way", None)
    assert sample.send_delay_ms >= 2000


def test_a_listener_that_never_accepts_is_a_timeout():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        (sample,) = posts(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.2)
    assert sample.error == "timeout"


def test_token_is_sent_and_never_recorded_even_when_echoed():
    with fake_endpoint("unauthorised") as fake:
        (sample,) = posts(fake.url, token=Token("s3cret-t0ken"))
    assert fake.posts[0].headers["Authorization"] == "Bearer s3cret-t0ken"
    assert sample.detail == "401: wrong: Bearer ***"


def test_a_detail_is_one_short_line():
    with fake_endpoint(answering(label="long\n" * 500)) as fake:
        (sample,) = posts(fake.url)
    assert sample.detail
    assert "\n" not in sample.detail
    assert len(sample.detail) <= MAX_DETAIL_CHARS


def test_version_is_the_answer_of_the_endpoint():
    async def go(url):
        async with Client("fake", url, CLASSES, TIMEOUT_S, 0) as client:
            return await client.fetch_version(), await client.is_ready()

    with fake_endpoint() as fake:
        assert asyncio.run(go(fake.url)) == ({"model": {"name": "fake"}, "instance_id": "abc123"}, True)


def test_version_of_an_unreachable_endpoint_raises_with_the_kind():
    async def go():
        async with Client("fake", f"http://127.0.0.1:{closed_port()}", CLASSES, TIMEOUT_S, 0) as client:
            await client.fetch_version()

    with pytest.raises(Unreachable, match=r"^connect: "):
        asyncio.run(go())


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("total;dur=3", {"total": 3.0}),
        ('decode;desc="x";dur=1.5, queue;dur="2"', {"decode": 1.5, "queue": 2.0}),
        ("cache, decode;dur=oops, queue;dur=nan, total;dur=1", {"total": 1.0}),
        ("total;dur=1e308, decode;dur=-1, queue;dur=inf, inference;dur=" + "9" * 400, {}),
        ("proxy;dur=1, \x1b[31m;dur=2", {}),
        ("", {}),
    ],
    ids=["one", "described", "unreadable", "absurd", "unknown", "none"],
)
def test_server_timing_is_read_as_far_as_it_can_be(header, found):
    assert parse_server_timing(header) == found
