"""Runs and checks of endpoints behind InvokeEndpoint: the real service, and a foreign container."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from eval.__main__ import main
from eval.samples.model import RUN_JSON
from eval.samples.store import read_run, read_samples
from infra.local.invoke_endpoint.limits import MAX_BODY_BYTES
from infra.local.invoke_endpoint.process import ENDPOINT, REGION
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS
from tests.conftest import picture_bytes
from tests.helpers.running_service import ready_service
from tests.helpers.sagemaker import running_container, running_front, set_aws_variables

pytestmark = pytest.mark.integration

X = f"sagemaker:{ENDPOINT}@{REGION}"
SHORT = ("--warmup", "1", "--baseline-rtt", "2", "--block", "4", "--restarts", "0")
SECRET = TWIN_CREDENTIALS.secret_access_key


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("service") / "log", ENGINE="onnx") as server:
        yield server


@pytest.fixture
def fronted(service, monkeypatch):
    """The service behind InvokeEndpoint, to which the variables of AWS's tools lead. Gives the service."""
    with running_front(service.port) as url:
        set_aws_variables(monkeypatch, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=url)
        yield service


def accepted(service):
    """How many predictions the service was asked for."""
    return int(service.get("/readyz").headers["X-Request-Ordinal"])


def run(folder, *more, target=X):
    return main(["run", "--target", f"x={target}", "--images", "golden", *SHORT, "--out", str(folder), *map(str, more)])


def test_a_run_over_sagemaker_knows_instance_model_and_time(fronted, tmp_path, capsys):
    scenarios = ("--scenario", "single,poisson", "--rate", "20", "--duration", "0.5")
    assert run(tmp_path, "--limit", "8", *scenarios) == 0
    printed = capsys.readouterr()
    done, samples = read_run(tmp_path), [s for s in read_samples(tmp_path) if s.target == "x"]
    (target,) = done.targets
    assert done.complete and done.model == "resnet18-cifar10" and target.adapter is None
    assert target.version["model"]["engine"] == "onnx" and target.url.endswith(f"/endpoints/{ENDPOINT}/invocations")
    asked = [s for s in samples if s.image_index >= 0]
    assert {s.scenario for s in asked} == {"single", "poisson"} and not any(s.error for s in samples)
    assert {s.instance_id for s in asked} == {target.version["instance_id"]} and len(asked) > 9
    assert {s.model_version for s in asked} == {target.version["model"]["version"]}
    assert all(s.server_timing_ms["inference"] <= s.server_timing_ms["total"] <= s.service_time_ms for s in asked)
    ordinals = [s.instance_request_number for s in asked]
    assert len(set(ordinals)) == len(ordinals)
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for secret in (SECRET, "Signature=", "AWS4-HMAC"):
        assert secret not in written + printed.out + printed.err


def test_workers_sign_with_the_credentials_that_they_are_given(fronted, tmp_path):
    poisson = ("--scenario", "poisson", "--rate", "20", "--duration", "1", "--workers", "2")
    assert run(tmp_path, "--limit", "8", *poisson) == 0
    samples = [s for s in read_samples(tmp_path) if (s.target, s.scenario) == ("x", "poisson")]
    assert len(samples) > 5 and {(s.error, bool(s.instance_id)) for s in samples} == {(None, True)}


@pytest.mark.parametrize(
    ("variables", "target", "told"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "another-secret"},
            X,
            "403: InvalidSignatureException: The request signature we calc",
        ),
        ({"AWS_SESSION_TOKEN": "an-ended-session"}, X, "403: UnrecognizedClientException: The security token included"),
        ({}, f"sagemaker:other@{REGION}", "400: ValidationError: Endpoint other of account 000000000000 not found."),
    ],
)
def test_what_aws_refuses_is_one_line_before_the_run(fronted, monkeypatch, tmp_path, capsys, variables, target, told):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = accepted(fronted)
    assert run(tmp_path, "--limit", "4", target=target) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "x: not reached before the run: http_4xx" in line]
    assert len(lines) == 1 and told in lines[0]
    assert main(["check", target]) == 1
    assert accepted(fronted) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line and not any(secret in line for secret in (SECRET, "another-secret", "an-ended-session"))


def test_without_credentials_a_run_ends_with_one_line(monkeypatch, tmp_path, capsys):
    set_aws_variables(monkeypatch, AWS_ACCESS_KEY_ID="")
    assert run(tmp_path / "run") == 1
    assert capsys.readouterr().err.startswith("x: no AWS credentials: set AWS_PROFILE, or")
    assert not (tmp_path / "run" / RUN_JSON).exists()


def test_an_image_beyond_the_limit_ends_a_run_before_it_begins(fronted, tmp_path, capsys):
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "large.png").write_bytes(picture_bytes() + bytes(MAX_BODY_BYTES))
    images, before = ("--images", str(tmp_path / "images")), accepted(fronted)
    assert main(["run", "--target", f"x={X}", *images, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert accepted(fronted) == before + 1  # one small image, to ask for the model
    assert "x: cat/large.png has" in error and "this endpoint of SageMaker takes 6,291,456" in error
    assert not (tmp_path / "run").exists()


def test_check_says_how_the_service_was_understood(fronted, capsys):
    assert main(["check", X]) == 0
    printed = capsys.readouterr().out
    assert "its bytes, as the service takes them" in printed and "Not told" not in printed


async def label(request):
    """A container of others, which wants base64 in JSON."""
    if request.content_type != "application/json" or set(await request.json()) != {"image"}:
        return web.json_response({"error": "not understood"}, status=400)
    return web.json_response({"label": "rose", "scores": {"rose": 0.75, "tulip": 0.25}})


def test_a_foreign_container_is_understood_in_its_own_form(monkeypatch, tmp_path, capsys):
    for name in ("rose", "tulip"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_bytes(picture_bytes(size=(32, 32 + len(name))))
    with running_container(label) as container, running_front(container.port) as url:
        set_aws_variables(monkeypatch, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=url)
        assert main(["check", X, "--images", str(tmp_path / "images")]) == 0
        assert 'JSON: {"image": "$base64"}' in capsys.readouterr().out
        out = ("--out", str(tmp_path / "run"))
        assert main(["run", "--target", f"x={X}", "--images", str(tmp_path / "images"), *SHORT, *out]) == 0
    measured = [s for s in read_samples(tmp_path / "run") if s.phase == "measure" and s.image_index >= 0]
    assert [s.probabilities for s in measured] == [(0.75, 0.25)] * 2 and not any(s.error for s in measured)
    assert json.loads(container.bodies[-1]).keys() == {"image"}
