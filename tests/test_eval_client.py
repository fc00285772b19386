from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time

import pytest
from eval_kit import CERTAIN, CLASSES, answering, closed_port, fake_endpoint, picture

from eval.answers import DETAIL_CHARACTERS, server_timing
from eval.client import MAX_ANSWER_BYTES, Ask, Client, Unreachable

TIMEOUT_S = 20.0


def ask(index=0):
    return Ask("single", "measure", 5, index, picture(index))


def posts(url, count=1, timeout_s=TIMEOUT_S, token=None, between=lambda: None):
    """The samples of so many posts over one client."""

    async def go():
        samples = []
        async with Client("fake", url, CLASSES, timeout_s, time.perf_counter(), token) as client:
            for index in range(count):
                sample, _ = await client.ask(ask(index), time.perf_counter())
                samples.append(sample)
                between()
        return samples

    return asyncio.run(go())


def test_a_good_answer_becomes_a_sample_with_everything_that_was_said():
    with fake_endpoint() as fake:
        (sample,) = posts(fake.url)
    assert (sample.error, sample.detail, sample.status) == (None, None, 200)
    assert (sample.target, sample.scenario, sample.phase) == ("fake", "single", "measure")
    assert (sample.block, sample.image) == (5, 0)
    assert (sample.label, sample.probabilities) == (3, CERTAIN)
    assert sample.server_ms == {"decode": 0.5, "queue": 0.1, "inference": 7.25, "total": 8.0}
    assert (sample.instance_id, sample.ordinal, sample.model_version) == ("abc123", 1, "0123456789ab")
    assert sample.answer_bytes > 50


def test_the_files_own_bytes_are_posted_with_their_type():
    with fake_endpoint() as fake:
        posts(fake.url)
    assert fake.bodies == [picture().data]
    (request,) = fake.posts
    assert request.headers["Content-Type"] == "image/png"
    assert request.query == {"probabilities": "1"}


def test_the_connection_is_kept_and_only_the_first_sample_opened_one():
    with fake_endpoint() as fake:
        samples = posts(fake.url, 3)
    assert [s.new_connection for s in samples] == [True, False, False]


def test_latency_counts_from_the_scheduled_time_and_lateness_is_part_of_it():
    async def go(url):
        origin = time.perf_counter()
        async with Client("fake", url, CLASSES, TIMEOUT_S, origin) as client:
            return await client.ask(ask(), time.perf_counter() - 5)

    with fake_endpoint() as fake:
        sample, done = asyncio.run(go(fake.url))
    assert sample.lateness_ms >= 5000
    assert sample.latency_ms == pytest.approx(sample.service_ms + sample.lateness_ms, abs=0.01)
    assert sample.started_s < 0 < done


def test_latency_lasts_to_the_last_byte_of_the_answer():
    with fake_endpoint("slow") as fake:
        begun = time.perf_counter()
        fake.on_post = lambda _: fake.release.set()
        (sample,) = posts(fake.url)
        assert 0 < sample.service_ms < (time.perf_counter() - begun) * 1000


@pytest.mark.parametrize(
    ("mode", "kind", "detail"),
    [
        ("html", "bad_answer", "not JSON: <html>Please log in</html>"),
        ("redirect", "bad_answer", "302 to /login"),
        ("unauthorised", "http_4xx", "401: wrong: None"),
        ("throttled", "http_429", "429: slow down"),
        ("broken", "http_5xx", "500: Internal error"),
        ("endless", "bad_answer", "more than 1 MiB"),
        ("torn", "disconnected", ""),
        ("hangup", "disconnected", ""),
        ("not_http", "bad_answer", "not HTTP"),
        (answering(probabilities=[0.1] * 9), "bad_answer", "expected 10 probabilities, found 9"),
        (answering(probabilities=None), "bad_answer", "expected 10 probabilities, found NoneType"),
        (answering(probabilities=[0.5] * 10), "bad_answer", "sum to 5"),
        (answering(probabilities=[float("nan")] * 10), "bad_answer", "nan is not a probability"),
        (answering(probabilities=["1"] + [0] * 9), "bad_answer", "'1' is not a probability"),
        (answering(label="dog"), "bad_answer", "id 3 is called 'dog', expected 'cat'"),
        (answering(id=10), "bad_answer", "id is 10, expected 0 to 9"),
        (answering(id=True), "bad_answer", "id is True"),
        (answering(id=5, label="dog"), "bad_answer", "id 5 has 0.0, but another class has 1.0"),
    ],
    ids=lambda value: value[:24],
)
def test_a_failure_is_a_sample_of_its_kind_and_says_why(mode, kind, detail):
    with fake_endpoint(mode) as fake:
        (sample,) = posts(fake.url)
    assert sample.error == kind
    assert sample.detail and detail in sample.detail
    assert (sample.label, sample.probabilities) == (None, None)
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
    assert sample.answer_bytes <= MAX_ANSWER_BYTES


def test_no_answer_in_time_is_a_timeout():
    with fake_endpoint("slow") as fake:
        (sample,) = posts(fake.url, timeout_s=0.2)
    assert (sample.error, sample.status) == ("timeout", None)
    assert sample.detail == "no whole answer within 0.2 s"
    assert sample.latency_ms >= 200


def test_a_port_without_a_listener_is_a_connect_failure():
    (sample,) = posts(f"http://127.0.0.1:{closed_port()}")
    assert sample.error == "connect"
    assert sample.new_connection


def test_an_unknown_host_is_a_dns_failure():
    assert [s.error for s in posts("http://nothing.invalid")] == ["dns"]


def test_plain_http_behind_an_https_address_is_a_tls_failure():
    with fake_endpoint() as fake:
        (sample,) = posts(fake.url.replace("http:", "https:"))
    assert sample.error == "tls"


def test_a_certificate_that_nobody_vouches_for_is_a_tls_failure(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with fake_endpoint(tls=context) as fake:
        (sample,) = posts(fake.url)
    assert sample.error == "tls"
    assert "certificate" in (sample.detail or "")
    assert fake.posts == []


def test_a_listener_that_never_accepts_is_a_timeout():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        (sample,) = posts(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.2)
    assert sample.error == "timeout"


def test_the_token_is_sent_and_never_kept_even_when_the_server_returns_it():
    with fake_endpoint("unauthorised") as fake:
        (sample,) = posts(fake.url, token="s3cret")
    assert fake.posts[0].headers["Authorization"] == "Bearer s3cret"
    assert sample.detail == "401: wrong: Bearer ***"


def test_a_detail_is_one_short_line():
    with fake_endpoint(answering(label="long\n" * 500)) as fake:
        (sample,) = posts(fake.url)
    assert sample.detail
    assert "\n" not in sample.detail
    assert len(sample.detail) <= DETAIL_CHARACTERS


def test_version_is_the_answer_of_the_endpoint():
    async def go(url):
        async with Client("fake", url, CLASSES, TIMEOUT_S, 0) as client:
            return await client.version(), await client.ready()

    with fake_endpoint() as fake:
        assert asyncio.run(go(fake.url)) == ({"model": {"name": "fake"}, "instance_id": "abc123"}, True)


def test_version_of_an_endpoint_that_is_not_there_raises_with_the_kind():
    async def go():
        async with Client("fake", f"http://127.0.0.1:{closed_port()}", CLASSES, TIMEOUT_S, 0) as client:
            await client.version()

    with pytest.raises(Unreachable, match=r"^connect: "):
        asyncio.run(go())


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("total;dur=3", {"total": 3.0}),
        ('a;desc="x";dur=1.5, b;dur="2"', {"a": 1.5, "b": 2.0}),
        ("cache, a;dur=oops, b;dur=nan, c;dur=1", {"c": 1.0}),
        ("", {}),
    ],
    ids=["one", "described", "unreadable", "none"],
)
def test_server_timing_is_read_as_far_as_it_can_be(header, found):
    assert server_timing(header) == found
