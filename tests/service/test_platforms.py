"""Every platform's entry point is the same service: same answers, same headers, from the same pinned libraries."""

from __future__ import annotations

import http.client
import io
import json
import os
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

from infra.artifact import REPOSITORY
from infra.local.dockerfile import instructions
from infra.local.procfile import read_procfile
from infra.local.start_commands import PROCFILE, read_vm_unit
from infra.local.twins import local_twins
from infra.targets import AWS_EC2, AWS_SAGEMAKER, HEROKU, TARGETS
from service import schema
from service.settings import PLATFORMS, Settings

pytestmark = pytest.mark.integration

SERVICE = REPOSITORY / "service"
NGINX_UPSTREAM_S, HEROKU_ROUTER_S = 60, 90  # after which they close a connection at rest
# What belongs to the server in front, to the process or to the moment; everything else must agree.
# A body's length belongs to the body, which is compared.
OWN_HEADERS = {"server", "date", "connection", "keep-alive", "content-length"} | {
    name.lower() for name in (schema.INSTANCE_ID, schema.INSTANCE_STARTED, schema.REQUEST_ORDINAL, schema.SERVER_TIMING)
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """All five, running, with the engine that starts in half a second: which one it is means nothing here."""
    with local_twins(log_dir=tmp_path_factory.mktemp("logs"), engines=["onnx"]) as twins:
        assert twins.failures == {}
        assert [twin.target for twin in twins.running] == list(TARGETS.values())
        yield {twin.target.name: twin for twin in twins.running}


@pytest.fixture(scope="module")
def picture():
    """A 40x30 JPEG with a gradient."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def address(twin) -> str:
    """Where its HTTP is; of SageMaker's, the container's own port: InvokeEndpoint lets little through to it."""
    if twin.target is AWS_SAGEMAKER:
        return f"127.0.0.1:{psutil.Process(twin.pid).environ()['PORT']}"
    return urlsplit(twin.url).netloc


def ask(twin, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
    """(status, headers in lower case, body)"""
    connection = http.client.HTTPConnection(address(twin), timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def form(part: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    head = f'--x\r\nContent-Disposition: form-data; name="{part}"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + data + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_the_same_image_gets_the_same_answer_everywhere(twins, picture):
    body, headers = form(schema.IMAGE_PART, picture)
    answers = {}
    for name, twin in twins.items():
        status, _, answer = ask(twin, "POST", f"{schema.PREDICT}?probabilities=1", body, headers)
        assert status == 200, answer
        answers[name] = json.loads(answer)
    first = answers["aws_ec2"]
    assert len(first["probabilities"]) == 10
    for name, answer in answers.items():
        assert answer["label"] == first["label"], name
        assert answer["probabilities"] == pytest.approx(first["probabilities"], abs=10.0**-schema.PROBABILITY_DIGITS)


def test_feedback_is_taken_by_every_platform(twins, picture):
    for name, twin in twins.items():
        _, headers, answer = ask(twin, "POST", schema.PREDICT, picture, JPEG)
        said = {
            "instance": headers[schema.INSTANCE_ID.lower()],
            "ordinal": int(headers[schema.REQUEST_ORDINAL.lower()]),
            "label": json.loads(answer)["label"],
        }
        body = json.dumps(said).encode()
        status, _, judged = ask(twin, "POST", schema.FEEDBACK, body, {"Content-Type": schema.JSON_TYPE})
        assert (status, json.loads(judged)["outcome"]) == (200, "right"), name
        label = f'label="{said["label"]}",outcome="right"'
        assert label in ask(twin, "GET", schema.METRICS)[2].decode(), name


JPEG = {"Content-Type": "image/jpeg"}
REQUESTS = [
    pytest.param("GET", "/", None, {}, id="page"),
    pytest.param("HEAD", "/", None, {}, id="head"),
    pytest.param("OPTIONS", schema.PREDICT, None, {}, id="options"),
    pytest.param("GET", schema.HEALTHZ, None, {}, id="healthz"),
    pytest.param("GET", schema.READYZ, None, {}, id="readyz"),
    pytest.param("GET", schema.OPENAPI, None, {}, id="openapi"),
    pytest.param("GET", "/favicon.ico", None, {}, id="favicon"),
    pytest.param("GET", "/robots.txt", None, {}, id="robots"),
    pytest.param("GET", "/nowhere?x=%20", None, {}, id="unknown-route"),
    pytest.param("GET", "/static/nothing.js", None, {}, id="unknown-static-file"),
    pytest.param("DELETE", schema.PREDICT, None, {}, id="wrong-method"),
    pytest.param("POST", "//predict", b"x", JPEG, id="double-slash"),
    pytest.param("POST", schema.PREDICT, b"", JPEG, id="empty-body"),
    pytest.param("POST", schema.PREDICT, b"not a picture", JPEG, id="not-a-picture"),
    pytest.param("POST", schema.PREDICT, b"{}", {"Content-Type": "application/json"}, id="empty-json"),
    pytest.param("POST", schema.PREDICT, b"x", {"Content-Type": "text/plain"}, id="wrong-type"),
    pytest.param("POST", "/", b"x", {**JPEG, "Accept": "text/html"}, id="browser"),
    pytest.param("POST", schema.PREDICT_BATCH, *form("other", b"x"), id="batch-without-pictures"),
    pytest.param("POST", schema.FEEDBACK, b"{}", {"Content-Type": schema.JSON_TYPE}, id="empty-feedback"),
    pytest.param("POST", schema.FEEDBACK, *form("other", b"x"), id="form-without-feedback"),
    pytest.param("GET", schema.FEEDBACK, None, {}, id="feedback-by-get"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers"), REQUESTS)
def test_every_route_answers_byte_for_byte_the_same(twins, method, path, body, headers):
    answers = {name: ask(twin, method, path, body, headers) for name, twin in twins.items()}
    first_status, first_headers, first_body = answers["heroku"]
    for name, (status, found, body_found) in answers.items():
        own, others = (f", on a local twin of {TARGETS[one].title}".encode() for one in (name, "heroku"))
        assert (status, body_found.replace(own, others)) == (first_status, first_body), name
        assert common(found, twins[name]) == common(first_headers, twins["heroku"]), name


FORWARDED = {
    **{name: "/nowhere" for name in ("SCRIPT_NAME", "Script-Name", "X-Script-Name", "X-Forwarded-Prefix")},
    **{"X-Forwarded-Host": "elsewhere", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"},
    "Forwarded": "host=elsewhere;proto=https",
}


@pytest.mark.parametrize("path", ["/", "/nowhere/else"])
def test_headers_of_proxies_mean_nothing_to_the_service(twins, path):
    for name, twin in twins.items():
        status, _, body = ask(twin, "GET", path, None, FORWARDED)
        assert (status, body) == ask(twin, "GET", path)[::2], name


def common(headers: dict[str, str], twin) -> dict[str, str]:
    url = f"http://{address(twin)}"
    found = {name: value.replace(url, "") for name, value in headers.items() if name not in OWN_HEADERS}
    if "allow" in found:  # Flask keeps the methods as a set, in an order that differs from process to process
        found["allow"] = ", ".join(sorted(found["allow"].split(", ")))
    return found


@pytest.mark.parametrize("name", TARGETS)
def test_a_body_over_the_limit_gets_the_services_own_words(twins, name):
    body = bytes(schema.MAX_BODY_BYTES + 1)
    status, headers, answer = ask(twins[name], "POST", schema.PREDICT, body, JPEG)
    assert (status, headers["content-type"]) == (413, schema.PROBLEM_TYPE), answer
    assert schema.INSTANCE_ID.lower() in headers


@pytest.mark.parametrize("name", TARGETS)
def test_identity_is_on_every_answer(twins, name):
    _, headers, _ = ask(twins[name], "GET", schema.HEALTHZ)
    for wanted in (schema.INSTANCE_ID, schema.INSTANCE_STARTED, schema.REQUEST_ORDINAL, schema.MODEL_VERSION):
        assert headers.get(wanted.lower()), wanted


def test_every_twin_says_that_it_is_one(twins):
    for twin in twins.values():
        found = json.loads(ask(twin, "GET", schema.VERSION)[2])["deployment"]
        assert found == f"a local twin of {twin.target.title}"
        assert f", on {found}" in ask(twin, "GET", "/")[2].decode()


def test_a_platform_and_its_target_have_one_name():
    titles = {read_vm_unit().env["DEPLOYMENT"], *PLATFORMS.values()}
    assert titles == {target.title for target in TARGETS.values() if target is not AWS_SAGEMAKER}  # it has no page


def test_every_twin_reports_start_up_and_memory(twins):
    for twin in twins.values():
        assert twin.alive()
        assert twin.startup_ms > 0
        assert twin.peak_memory_mib() > 50


# The files themselves


def test_the_dyno_runs_one_worker_whatever_the_buildpack_sets(twins):
    """Its start command sets WEB_CONCURRENCY to 2."""
    assert len(psutil.Process(twins["heroku"].pid).children()) == 1


def test_there_are_as_many_threads_as_the_targets_concurrency():
    assert Settings().web_threads == HEROKU.concurrency
    assert int(read_vm_unit().env["WEB_THREADS"]) == AWS_EC2.concurrency


def test_the_vm_the_dyno_and_the_container_run_the_same_command():
    env = {"ENGINE": "onnx", "MODEL_DIR": "models/iris", "GIT_SHA": "c0"}
    dyno = read_procfile(PROCFILE.read_text(encoding="utf-8"), env).command
    *_, container = [rest for name, rest in instructions((SERVICE / "Dockerfile").read_text()) if name == "CMD"]
    vm = read_vm_unit().exec_start
    assert dyno == tuple(json.loads(container)) == (os.path.basename(vm[0]), *vm[1:])


def test_connections_at_rest_are_closed_by_the_fronts_first():
    assert max(NGINX_UPSTREAM_S, HEROKU_ROUTER_S) < Settings().keep_alive_s


def test_the_vms_service_is_reached_only_through_nginx():
    assert read_vm_unit().env["HOST"] == "127.0.0.1"


def test_the_container_does_not_run_as_root():
    users = [rest for name, rest in instructions((SERVICE / "Dockerfile").read_text()) if name == "USER"]
    assert users[-1:] == ["10001"]


def test_the_dockerfile_and_the_requirements_name_one_index():
    dockerfile = dict(instructions((SERVICE / "Dockerfile").read_text()))["ARG"].removeprefix("TORCH_INDEX=")
    assert f"--extra-index-url {dockerfile}\n" in (SERVICE / "requirements.txt").read_text()
