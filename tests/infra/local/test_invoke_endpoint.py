"""InvokeEndpoint on this machine, judged by AWS's own client."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

from infra.local.health import free_ports
from infra.local.invoke_endpoint.limits import MAX_BODY_BYTES, MAX_SERVERLESS_BODY_BYTES
from infra.local.invoke_endpoint.process import ENDPOINT, REGION, invoke_endpoint_process, invoke_url
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS, SignedRequest, check_signature
from service.schema import CUSTOM_ATTRIBUTES, read_custom_attributes
from tests.conftest import picture_bytes
from tests.helpers.running_service import ready_service
from tests.helpers.sagemaker import aws_client, running_container, running_front

pytestmark = pytest.mark.integration

URL = f"https://runtime.sagemaker.{REGION}.amazonaws.com/endpoints/{ENDPOINT}/invocations"
PATH = f"/endpoints/{ENDPOINT}/invocations"


def invoke(url, body=b"picture", endpoint=ENDPOINT, client=None, **changes):
    arguments = {"EndpointName": endpoint, "Body": body, "ContentType": "image/png"} | changes
    return (client or aws_client(url)).invoke_endpoint(**arguments)


async def echo(request):
    secrets = {"Server-Timing": "total;dur=1", "X-Instance-Id": "abc", "Set-Cookie": "a=b"}
    return web.Response(text=json.dumps(dict(request.headers)), headers=secrets | {CUSTOM_ATTRIBUTES: "a=1"})


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("service") / "log", ENGINE="onnx") as server:
        yield server


@pytest.fixture
def echoing():
    with running_container(echo) as container, running_front(container.port) as url:
        yield container, url


def test_awss_client_gets_the_services_prediction_and_identity(service):
    with running_front(service.port) as url:
        answer = invoke(url, picture_bytes(), CustomAttributes="probabilities=1")
    body = json.loads(answer["Body"].read())
    assert answer["ContentType"] == "application/json" and len(body["probabilities"]) == 10
    attributes = read_custom_attributes(answer["CustomAttributes"])
    assert attributes["model_version"] == body["model"]["version"]
    assert attributes["request_ordinal"] == "1" and "inference;dur=" in attributes["server_timing"]
    assert answer["InvokedProductionVariant"] == "AllTraffic"


def test_headers_and_query_of_others_go_no_further(echoing):
    container, url = echoing
    client = aws_client(url)

    def add(request, **_):
        request.headers["X-Api-Key"], request.headers["Cookie"], request.params["probabilities"] = "k", "c", "1"

    client.meta.events.register("before-sign.*.*", add)
    answer = invoke(url, client=client, Accept="text/csv", CustomAttributes="trace", InferenceId="7")
    got = {name.lower() for name in json.loads(answer["Body"].read())}
    named = {"content-type", "accept", CUSTOM_ATTRIBUTES.lower(), "x-amzn-sagemaker-inference-id"}
    assert got - {"host", "content-length"} == named
    assert container.requests[0].query_string == "" and container.bodies == [b"picture"]


def test_of_an_answer_body_type_and_attributes_come_back(echoing):
    headers = invoke(echoing[1])["ResponseMetadata"]["HTTPHeaders"]
    assert set(headers) - {"date", "server", "content-length"} == {
        "content-type", CUSTOM_ATTRIBUTES.lower(), "x-amzn-invoked-production-variant", "x-amzn-requestid",
    }  # fmt: skip


def test_another_secret_key_is_refused(echoing):
    with pytest.raises(ClientError, match=r"InvalidSignatureException.*does not match") as refused:
        invoke(echoing[1], client=aws_client(echoing[1], "another-secret-key"))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"aws_access_key_id": "AKIDANOTHER"}, "UnrecognizedClientException.*security token"),
        ({"aws_session_token": "expired"}, "UnrecognizedClientException.*security token"),
        ({"region_name": "eu-west-1"}, "InvalidSignatureException.*valid region, not 'eu-west-1'"),
    ],
)
def test_other_credentials_and_regions_are_refused(echoing, changes, kind):
    with pytest.raises(ClientError, match=kind):
        invoke(echoing[1], client=aws_client(echoing[1], **changes))
    assert echoing[0].requests == []


def test_an_unknown_endpoint_is_a_validation_error(echoing):
    with pytest.raises(ClientError, match=r"ValidationError.*Endpoint other of account \d{12} not found"):
        invoke(echoing[1], endpoint="other")


def test_other_routes_and_methods_are_unknown(echoing):
    for path in ("/readyz", "/version", "/metrics", "/invocations", "/predict"):
        with pytest.raises(OSError, match="404"):
            urlopen(echoing[1] + path)


@pytest.mark.parametrize(("healthy", "status"), [(True, 200), (False, 503)])
def test_ping_tells_whether_the_container_is_healthy(healthy, status):
    with running_container(echo) as container, running_front(container.port if healthy else free_ports(1)[0]) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        connection.close()


@pytest.mark.parametrize(
    ("serverless", "limit", "error"),
    [
        (False, MAX_BODY_BYTES, r"413.*content length exceeded 6291456 bytes"),
        (True, MAX_SERVERLESS_BODY_BYTES, "ValidationError.*oversize body"),
    ],
)
def test_a_body_beyond_the_limit_is_refused(serverless, limit, error):
    with running_container(echo) as container, running_front(container.port, serverless=serverless) as url:
        invoke(url, bytes(limit))
        with pytest.raises(ClientError, match=error):
            invoke(url, bytes(limit + 1))
    assert [len(body) for body in container.bodies] == [limit]


@pytest.mark.parametrize(("status", "whose"), [(400, "client"), (503, "server"), (302, "server")])
def test_a_containers_error_is_a_model_error(status, whose):
    async def fail(_):
        return web.Response(status=status, text='{"detail": "no"}', headers={"Location": "/x"})

    with running_container(fail) as container, running_front(container.port) as url:
        client = aws_client(url)
        with pytest.raises(client.exceptions.ModelError, match=rf"Received {whose} error \({status}\)") as failed:
            invoke(url, client=client)
    response = failed.value.response
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (status, '{"detail": "no"}')
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_a_container_that_takes_too_long_is_a_model_error():
    async def never(_):
        await asyncio.Event().wait()
        raise AssertionError

    with running_container(never) as container, running_front(container.port, timeout_s=0.05) as url:
        client = aws_client(url)
        with pytest.raises(client.exceptions.ModelError, match="timed out while waiting"):
            invoke(url, client=client)


def test_a_container_that_has_ended_is_a_model_error():
    with running_front(free_ports(1)[0]) as url:
        client = aws_client(url)
        with pytest.raises(client.exceptions.ModelError, match="did not answer"):
            invoke(url, client=client)


def test_requests_beyond_the_concurrency_are_throttled():
    throttled = pytest.raises(ClientError, match=r"ThrottlingException.*Rate exceeded")
    with running_container(echo) as container, running_front(container.port, max_concurrency=0) as url, throttled:
        invoke(url)


# The signature alone


def signed(body=b"picture", url=URL, **headers):
    """As botocore signs, a minute ago or now."""
    request = AWSRequest("POST", url, headers={"Content-Type": "image/png"} | headers, data=body)
    keys = ReadOnlyCredentials(TWIN_CREDENTIALS.access_key_id, TWIN_CREDENTIALS.secret_access_key, None)
    SigV4Auth(keys, "sagemaker", REGION).add_auth(request)
    found = {name.lower(): value for name, value in request.headers.items()}
    return {"host": url.split("/")[2]} | found


def fault(headers, body=b"picture", query="", later_s=0, path=PATH):
    now = datetime.now(UTC) + timedelta(seconds=later_s)
    refusal = check_signature(SignedRequest("POST", path, query, headers, body), TWIN_CREDENTIALS, REGION, now)
    return refusal and f"{refusal.kind}: {refusal.message}"


def test_a_signature_of_botocore_is_valid_for_five_minutes():
    headers = signed()
    assert fault(headers, later_s=0) is None and fault(headers, later_s=290) is None
    assert "Signature expired" in (fault(headers, later_s=310) or "")
    assert "not yet current" in (fault(headers, later_s=-310) or "")


def test_a_signature_may_use_a_checksum_that_is_known():
    checksum = hashlib.sha256(b"picture").hexdigest()
    assert fault(signed(**{"X-Amz-Content-SHA256": checksum})) is None
    assert "does not match" in (fault(signed(**{"X-Amz-Content-SHA256": "0" * 64})) or "")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"body": b"other"}, "does not match"),
        ({"query": "a=1"}, "does not match"),
        ({"path": "/endpoints/other/invocations"}, "does not match"),
    ],
)
def test_a_signature_covers_body_query_and_path(change, expected):
    assert expected in (fault(signed(), **change) or "")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"authorization": ""}, "MissingAuthenticationTokenException"),
        ({"authorization": "Bearer a-token"}, "IncompleteSignatureException"),
        ({"x-amz-target": "unsigned"}, "'x-amz-target' must be a 'SignedHeader'"),
        ({"x-amz-date": "yesterday"}, "must be in ISO-8601"),
        ({"x-amz-date": "20200101T000000Z"}, "does not match the date"),
        ({"content-type": "text/csv"}, "does not match"),
    ],
)
def test_a_signature_covers_the_headers_that_it_names(change, expected):
    assert expected in (fault(signed() | change) or "")


def test_a_signature_for_another_service_or_host_is_refused():
    headers = signed()
    headers["authorization"] = headers["authorization"].replace("/sagemaker/", "/s3/")
    assert "correct service: 'sagemaker'" in (fault(headers) or "")
    headers = signed()
    headers["authorization"] = headers["authorization"].replace("host;", "")
    assert "'host' must be a 'SignedHeader'" in (fault(headers) or "")
    headers = signed()
    del headers["content-type"]
    assert "signed header 'content-type' is not in the request" in (fault(headers) or "")


# As a process


def test_the_front_is_a_process_that_ends_on_sigterm():
    (port,) = free_ports(1)
    with running_container(echo) as container:
        spec = invoke_endpoint_process(port, container.port)
        with subprocess.Popen(spec.command, env=dict(spec.env), stderr=subprocess.PIPE, text=True) as process:
            client = aws_client(invoke_url(port).partition("/endpoints")[0])
            while True:
                assert process.poll() is None, process.stderr and process.stderr.read()
                try:
                    assert json.loads(invoke("", client=client)["Body"].read())
                    break
                except OSError:
                    continue
                except Exception as error:
                    if "Could not connect" not in str(error):
                        raise
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stderr and process.stderr.read() == ""
