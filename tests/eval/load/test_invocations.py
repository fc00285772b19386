"""What SageMaker answers: AWS's own errors, and the service's identity in attributes."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import web

from eval.dataset.image_set import EncodedImage
from eval.errors import EndpointError, Unreachable
from eval.load import open_loop
from eval.load.client import Client, RequestSpec
from eval.load.invocations import (
    PROBE,
    check_payloads,
    classify_invocation,
    is_refused_by_aws,
    version_of,
    with_attributes,
)
from eval.samples.model import ImageEntry
from eval.targets.endpoints import Endpoint
from eval.targets.sagemaker.connect import TwinCredentials
from eval.targets.sagemaker.signer import Signer
from eval.targets.tokens import Scrubber
from infra.local.invoke_endpoint.limits import MAX_BODY_BYTES, MAX_SERVERLESS_BODY_BYTES
from infra.local.invoke_endpoint.process import ENDPOINT, REGION
from service.schema import CUSTOM_ATTRIBUTES, custom_attributes
from tests.helpers.fake_endpoint import CLASSES, GOOD, HEADERS, picture
from tests.helpers.sagemaker import running_container, running_front

MODEL = {"name": "fake", "version": "0123456789ab", "engine": "torch"}
ATTRIBUTES = {CUSTOM_ATTRIBUTES: custom_attributes((HEADERS | {"X-Request-Ordinal": "7"}).items())}


def error(kind, **document):
    return {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/"}, json.dumps(document).encode()


def model_error(status, message):
    return error(
        "ModelError", Message=f"Received an error ({status})", OriginalStatusCode=status, OriginalMessage=message
    )


@pytest.mark.parametrize(
    ("status", "response", "kind", "detail"),
    [
        (400, error("ValidationError", Message="Endpoint x of account 1 not found."), "http_4xx",
         "400: ValidationError: Endpoint x of account 1 not found."),
        (403, error("InvalidSignatureException", message="It does not match.\n\nThe Canonical String"), "http_4xx",
         "403: InvalidSignatureException: It does not match."),
        (400, error("ThrottlingException", message=None), "http_429", "400: ThrottlingException"),
        (429, error("ModelNotReadyException", Message="Loading"), "http_429", "429: ModelNotReadyException: Loading"),
        (503, error("ServiceUnavailable", Message="Busy"), "http_5xx", "503: ServiceUnavailable: Busy"),
        (530, error("InternalDependencyException", Message="No"), "http_5xx", "530: InternalDependencyException: No"),
        (424, model_error(422, '{"detail": "no image"}'), "http_4xx",
         "424: ModelError: the container answered 422: no image"),
        (424, model_error(503, "full"), "http_5xx", "424: ModelError: the container answered 503: full"),
        (424, model_error(429, "slow down"), "http_429", "424: ModelError: the container answered 429: slow down"),
        (424, model_error(0, "Your invocation timed out"), "http_5xx", "424: ModelError: Your invocation timed out"),
        (424, error("ModelError"), "http_5xx", "424: ModelError: "),
    ],
)  # fmt: skip
def test_an_error_of_aws_is_a_kind_and_one_line(status, response, kind, detail):
    assert classify_invocation(status, *response) == (kind, detail)


def test_only_aws_itself_refuses_for_good():
    refused = [error("UnrecognizedClientException"), error("AccessDeniedException"), error("ValidationError")]
    assert [is_refused_by_aws(403, headers) for headers, _ in refused] == [True] * 3
    assert not is_refused_by_aws(400, error("ThrottlingException")[0])
    assert not is_refused_by_aws(424, model_error(400, "")[0]) and not is_refused_by_aws(404, {})
    assert classify_invocation(502, {}, b"") is None and classify_invocation(200, {}, b"") is None


def test_attributes_become_the_services_headers():
    headers = with_attributes(ATTRIBUTES)
    assert {name: headers[name.lower()] for name in HEADERS} == HEADERS
    assert with_attributes({CUSTOM_ATTRIBUTES: "trace-7"}) == {CUSTOM_ATTRIBUTES: "trace-7"}


def test_an_answer_tells_the_model_and_the_instance():
    version = version_of(ATTRIBUTES, json.dumps(GOOD | {"model": MODEL}).encode())
    assert version["model"] == MODEL and version["instance_id"] == "abc123"
    assert version_of({}, json.dumps(GOOD | {"model": MODEL}).encode()) == {}
    assert version_of(ATTRIBUTES, b"[]") == {}


def test_an_image_beyond_the_limit_is_refused_before_it_is_sent():
    signer = Signer("x", REGION, TwinCredentials(), Scrubber(), serverless=True)
    of_limit = EncodedImage(ImageEntry("cat/1.png", "", 3), bytes(MAX_SERVERLESS_BODY_BYTES), "image/png")
    beyond = EncodedImage(ImageEntry("cat/2.png", "", 3), bytes(MAX_SERVERLESS_BODY_BYTES + 1), "image/png")
    check_payloads([Endpoint("x", None, "", signer=signer)], [of_limit])
    check_payloads([Endpoint("y", None, "")], [beyond])
    with pytest.raises(
        EndpointError, match=r"x: cat/2\.png has 4,194,305 bytes, and this endpoint of SageMaker takes 4,194,304"
    ):
        check_payloads([Endpoint("x", None, "", signer=signer)], [of_limit, beyond])


# Over InvokeEndpoint


def asking(base, credentials=None, timeout_s=20.0, endpoint=ENDPOINT):
    signer = Signer("x", REGION, credentials or TwinCredentials(), Scrubber())
    url = f"{base}/endpoints/{endpoint}/invocations"
    return Client("x", url, CLASSES, timeout_s, time.perf_counter(), signer=signer)


def ask(answer, image=None, waits_s=20.0, **front):
    """The sample of a request to a container that answers so, and what came to the container."""

    async def go(base):
        async with asking(base, timeout_s=waits_s) as client:
            return (await client.send(RequestSpec("single", "measure", 1, 0, image or picture())))[0]

    with running_container(answer) as container, running_front(container.port, **front) as base:
        return asyncio.run(go(base)), container


async def good(_):
    return web.json_response(GOOD | {"model": MODEL}, headers=ATTRIBUTES)


def test_a_sample_has_the_identity_and_timing_of_the_attributes():
    sample, container = ask(good)
    assert (sample.error, sample.status, sample.predicted_class) == (None, 200, 3)
    assert (sample.instance_id, sample.instance_request_number, sample.model_version) == ("abc123", 7, "0123456789ab")
    assert sample.server_timing_ms == {"decode": 0.5, "queue": 0.1, "inference": 7.25, "total": 8.0}
    (request,) = container.requests
    assert container.bodies == [picture().data] and request.headers["Content-Type"] == "image/png"
    assert request.headers[CUSTOM_ATTRIBUTES] == "probabilities=1"


def failing(status, text):
    async def answer(_):
        return web.Response(status=status, text=text)

    return answer


async def never(_):
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answer", "front", "kind", "detail"),
    [
        (failing(422, '{"detail": "no image"}'), {}, "http_4xx", "the container answered 422: no image"),
        (failing(503, "full"), {}, "http_5xx", "the container answered 503: full"),
        (good, {"max_concurrency": 0}, "http_429", "400: ThrottlingException: Rate exceeded"),
        (never, {"timeout_s": 0.05}, "http_5xx", "424: ModelError: Your invocation timed out while waiting"),
    ],
)
def test_a_failure_is_one_line_of_a_sample(answer, front, kind, detail):
    sample, _ = ask(answer, **front)
    assert sample.error == kind and detail in sample.detail and "\n" not in sample.detail


def test_a_client_that_waits_shorter_than_sagemaker_times_out():
    sample, _ = ask(never, waits_s=0.2)
    assert (sample.error, sample.status) == ("timeout", None)


def test_a_body_that_grew_in_its_form_is_not_sent():
    large = EncodedImage(ImageEntry("cat/1.png", "", 3), bytes(MAX_BODY_BYTES + 1), "image/png")
    sample, container = ask(good, large)
    assert sample.error == "dropped" and "6,291,457 bytes, and the endpoint takes 6,291,456" in sample.detail
    assert container.requests == []


class Ended:
    """Credentials that end when they were used once."""

    def __init__(self):
        self.looks = 0

    def get_frozen_credentials(self):
        self.looks += 1
        if self.looks > 1:
            raise RuntimeError("the session has ended\nsecond line")
        return TwinCredentials().get_frozen_credentials()


def test_credentials_that_end_cost_their_own_requests_alone(monkeypatch):
    monkeypatch.setattr("eval.targets.sagemaker.signer.MUST_RENEW_AFTER_S", -1)
    monkeypatch.setattr("eval.targets.sagemaker.signer.RENEW_AFTER_S", -1)

    async def go():
        async with asking("http://127.0.0.1:9", Ended()) as client:
            await client.renew_credentials()
            return (await client.send(RequestSpec("single", "measure", 1, 0, picture())))[0]

    sample = asyncio.run(go())
    assert (sample.error, sample.detail) == ("dropped", "x: AWS credentials or settings: the session has ended")


def test_identity_is_asked_for_by_an_invocation():
    async def go(base, endpoint=ENDPOINT):
        async with asking(base, endpoint=endpoint) as client:
            return await client.fetch_version(), await client.is_ready()

    with running_container(good) as container, running_front(container.port) as base:
        version, is_ready = asyncio.run(go(base))
        assert container.bodies == [PROBE.data]
        with pytest.raises(Unreachable, match=r"400: ValidationError: Endpoint other of account 0+ not found"):
            asyncio.run(go(base, "other"))
    assert version["model"] == MODEL and is_ready


def test_a_round_trip_invokes_nothing():
    async def go(base):
        async with asking(base) as client:
            return (await client.send(RequestSpec("baseline_rtt", "measure", 1, -1, None)))[0]

    with running_container(good) as container, running_front(container.port) as base:
        sample = asyncio.run(go(base))
    assert (sample.error, sample.status) == (None, 200) and container.requests == []


def test_a_request_is_signed_before_it_is_due(monkeypatch):
    events = []

    class Recording:
        def prepare(self, number):
            events.append(f"signs {number}")
            return f"signed {number}"

        async def send_request(self, number, scheduled_at, prepared):
            events.append(f"sends {prepared}")
            return number

        def to_sample(self, number):
            return number

    async def due(scheduled_at):
        events.append("is due")

    monkeypatch.setattr(open_loop, "sleep_until", due)
    asyncio.run(open_loop.run_open_loop(Recording(), [1], [0.0], time.perf_counter(), 8, events.append))
    assert events == ["signs 1", "is due", "sends signed 1", 1]
