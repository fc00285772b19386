"""Deployments that answer signed invocations alone: what a release asks of them, and how their addresses are read."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from eval.errors import EndpointError
from eval.targets.tokens import Scrubber, Token
from infra.local.invoke_endpoint.process import ENDPOINT, REGION
from release.endpoint import Endpoint
from release.environments.environment import Address
from release.environments.stacks import StackStages
from release.errors import CandidateBroken, ReleaseError
from release.invoked import InvokedEndpoint, endpoint_at, run_endpoint
from service.model import Bundle, load_bundle
from tests.helpers.bundles import write_bundle
from tests.helpers.quick_release import make_plan
from tests.helpers.sagemaker import running_container, running_front, set_aws_variables

pytestmark = pytest.mark.integration

ADDRESS = f"sagemaker:{ENDPOINT}@{REGION}"
JSON = "application/json"
TOKEN = Token("a-token-of-16-chars")


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return load_bundle(write_bundle(tmp_path / "bundle", ("black", "white")))


class Served:
    """A container that answers with these probabilities, in turn, as this version."""

    def __init__(self, version: str):
        self.version, self.answers, self.asked = version, [[1.0, 0.0]], list[str]()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.content_type)
        row = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        model = {"name": "tiny", "version": self.version, "engine": "onnx"}
        return web.json_response({"probabilities": row, "model": model})


@pytest.fixture
def served(bundle, monkeypatch):
    container = Served(bundle.version(bundle.engine("onnx").file))
    with running_container(container.answer) as running, running_front(running.port) as url:
        set_aws_variables(monkeypatch, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=url)
        yield container


def test_an_endpoint_proves_its_version_and_its_self_test(served, bundle):
    endpoint = endpoint_at(ADDRESS, bundle, TOKEN)
    assert isinstance(endpoint, InvokedEndpoint) and endpoint.wait_for(bundle, timeout_s=0) == "onnx"
    served.answers = [[1.0, 0.0], [0.0, 1.0]]
    assert endpoint.check_self_test(bundle, "onnx") == 2 and set(served.asked) == {"image/png"}
    served.answers = [[1.0, 0.0], [0.6, 0.4]]
    with pytest.raises(CandidateBroken, match=r"input 2 is 'black' with 0\.600, expected 'white'"):
        endpoint.check_self_test(bundle, "onnx")


def test_an_endpoint_with_another_version_is_named(served, bundle):
    served.version = "0123456789ab"
    with pytest.raises(ReleaseError, match="it serves weights 0123456789ab"):
        endpoint_at(ADDRESS, bundle).wait_for(bundle, timeout_s=0)


def test_an_endpoint_that_is_not_there_serves_nothing(served, bundle):
    with pytest.raises(ReleaseError, match="it serves nothing"):
        endpoint_at(f"sagemaker:other@{REGION}", bundle).wait_for(bundle, timeout_s=0)


def test_a_model_of_rows_is_asked_with_the_least_row(served, tmp_path):
    rows = load_bundle(write_bundle(tmp_path / "rows", ["no", "yes"], features=["width"]))
    served.version = rows.version(rows.engine("onnx").file)
    assert endpoint_at(ADDRESS, rows).wait_for(rows, timeout_s=0) == "onnx" and set(served.asked) == {JSON}


def test_each_address_is_measured_in_its_way(monkeypatch, bundle):
    set_aws_variables(monkeypatch)
    plain = run_endpoint("a", "heroku", "https://example.org", TOKEN, Scrubber())
    assert (plain.signer, plain.token) == (None, TOKEN) and type(endpoint_at("http://127.0.0.1:9", bundle)) is Endpoint
    signed = run_endpoint("a", "aws_sagemaker", ADDRESS, TOKEN, Scrubber())
    assert signed.signer and signed.token is None and signed.url.startswith("https://runtime.sagemaker.us-east-1.")
    twin = run_endpoint("a", None, f"http://127.0.0.1:9/endpoints/{ENDPOINT}/invocations", TOKEN, Scrubber())
    assert twin.signer and twin.token is None


def test_without_credentials_it_is_one_line(monkeypatch, bundle):
    set_aws_variables(monkeypatch, AWS_ACCESS_KEY_ID="")
    with pytest.raises(EndpointError, match="no AWS credentials"):
        endpoint_at(ADDRESS, bundle)


def test_a_stack_of_sagemaker_is_named_by_its_endpoint(tmp_path, monkeypatch):
    outputs = {"url": "https://x.example", "target": "aws_sagemaker", "endpoint": ENDPOINT, "region": REGION}
    program = tmp_path / "pulumi"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(outputs)}'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    plan = make_plan("v", None, places=("aws_sagemaker", "heroku"), stacks=True)
    monkeypatch.setattr("release.environments.stacks._find", lambda _: str(program))
    assert StackStages(plan, tmp_path, print)._addresses("beta")["aws_sagemaker"] == Address(ADDRESS)
