"""Endpoints of SageMaker: how they are named, and signed for with what AWS's tools find."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.credentials import DeferredRefreshableCredentials, RefreshableCredentials
from moto import mock_aws

from eval.errors import EndpointError, EvalError
from eval.run.resume import check_confirmed
from eval.targets.access import Access
from eval.targets.endpoints import Endpoint, TargetSet, is_foreign, parse_target
from eval.targets.sagemaker.connect import TwinCredentials, assign_signers, check_sagemaker_options, with_twin_signer
from eval.targets.sagemaker.naming import SageMakerEndpoint
from eval.targets.sagemaker.signer import Keys, Signer, open_signer
from eval.targets.stacks import stack_endpoint
from eval.targets.tokens import Scrubber, Token, TokenOption
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS, SignedRequest, check_signature
from tests.conftest import ROOT
from tests.helpers.sagemaker import AWS_VARIABLES, set_aws_variables

URL = "https://runtime.sagemaker.us-east-1.amazonaws.com/endpoints/mine/invocations"
SECRET = AWS_VARIABLES["AWS_SECRET_ACCESS_KEY"]


def target(text="x=sagemaker:mine@us-east-1", **changes):
    endpoint = parse_target(text)
    return TargetSet((Endpoint(**vars(endpoint) | changes),), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=sagemaker:mine", SageMakerEndpoint("mine")),
        ("x=sagemaker:mine-2@eu-west-1", SageMakerEndpoint("mine-2", "eu-west-1")),
        ("x=sagemaker-serverless:mine@us-gov-west-1", SageMakerEndpoint("mine", "us-gov-west-1", serverless=True)),
    ],
)
def test_a_target_may_name_an_endpoint_of_sagemaker(text, expected):
    endpoint = parse_target(text)
    assert endpoint.sagemaker == expected and endpoint.url == text.removeprefix("x=")


@pytest.mark.parametrize("address", ["", "-mine", "a/b", "mine@", "mine@us-east-1.evil.example", "m" * 64, "mine?a=b"])
def test_what_names_no_endpoint_of_sagemaker_is_one_line(address):
    with pytest.raises(EndpointError, match=r"expected sagemaker:ENDPOINT or sagemaker:ENDPOINT@REGION") as error:
        parse_target(f"x=sagemaker:{address}")
    assert "\n" not in str(error.value)


def test_an_endpoint_is_foreign_unless_it_reports_a_model():
    assert is_foreign(parse_target("x=sagemaker:mine"), reports_model=False)
    assert not is_foreign(parse_target("x=sagemaker:mine"), reports_model=True)
    assert is_foreign(parse_target("x=https://example.org/v1"), reports_model=True)


OUTPUTS = {
    "url": "https://runtime.sagemaker.us-east-1.amazonaws.com",
    "target": "aws_sagemaker",
    "region": "us-east-1",
    "size": "ml.m5.large",
    "endpoint": "classifier-a1b2",
}


def pulumi_that_exports(folder, **changes):
    pulumi = folder / "pulumi"
    pulumi.write_text(f"#!/bin/sh\necho '{json.dumps(OUTPUTS | changes)}'\n")
    pulumi.chmod(0o755)
    return str(pulumi)


@pytest.mark.parametrize(("size", "serverless"), [("ml.m5.large", False), ("serverless-2048", True)])
def test_a_stack_on_sagemaker_is_the_endpoint_that_it_exports(tmp_path, size, serverless):
    endpoint = stack_endpoint(pulumi_that_exports(tmp_path, size=size), "aws_sagemaker-prod")
    assert endpoint.sagemaker == SageMakerEndpoint("classifier-a1b2", "us-east-1", serverless)
    assert (endpoint.name, endpoint.url) == ("aws_sagemaker-prod", OUTPUTS["url"])


@pytest.mark.parametrize("changes", [{"endpoint": "a/b"}, {"endpoint": None}, {"region": "evil.example"}])
def test_a_stack_that_exports_no_endpoint_is_named(tmp_path, changes):
    told = r"stack aws_sagemaker, outputs endpoint and region: 'sagemaker:.* is no endpoint of SageMaker"
    with pytest.raises(EndpointError, match=told):
        stack_endpoint(pulumi_that_exports(tmp_path, **changes), "aws_sagemaker")


# The signature


def test_a_signature_is_what_aws_wants():
    signer = Signer("x", "us-east-1", TwinCredentials(), Scrubber())
    headers = {"Content-Type": "image/png", "X-Amzn-SageMaker-Custom-Attributes": "probabilities=1"}
    for sha256 in (None, "dadb5c5a06b2fa0ecb5ae0ee0ac8aa1a4e2e35f34e1ed55b8e24b5ff33d07a17"):
        sent = {name.lower(): value for name, value in signer.sign(URL, headers, b"body", sha256).items()}
        sent["host"] = urlsplit(URL).netloc
        request = SignedRequest("POST", urlsplit(URL).path, "", sent, b"body")
        refusal = check_signature(request, TWIN_CREDENTIALS, "us-east-1", datetime.now(UTC))
        assert (refusal is None) == (sha256 is None)  # that of another body is refused
        assert SECRET not in str(sent)


def test_the_secrets_are_masked_and_in_no_repr():
    scrub = Scrubber([Token("another-token")])
    signer = Signer("x", "us-east-1", TwinCredentials(), scrub)
    assert scrub(f"another-token {SECRET}") == "*** ***"
    assert SECRET not in repr(vars(signer)) + repr(signer)
    assert repr(Keys("a", "b", "c")) == "***"


def refreshing(*secrets, minutes):
    """Credentials that botocore renews at each look, for they end in less than 15 minutes."""
    answers = iter(secrets)

    def refresh():
        expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        return {"access_key": "AKID", "secret_key": next(answers), "token": "a-session-token", "expiry_time": expiry}

    return RefreshableCredentials.create_from_metadata(refresh(), refresh, "a-test")


def test_new_credentials_are_masked_too_and_used():
    scrub = Scrubber()
    signer = Signer("x", "us-east-1", refreshing("secret-0", "secret-1", "secret-2", minutes=14), scrub)
    assert scrub("secret-1 secret-2 a-session-token") == "*** secret-2 ***"
    signer.renew()
    assert scrub("secret-1 secret-2 a-session-token") == "*** *** ***"
    assert signer.sign(URL, {}, b"")["X-Amz-Security-Token"] == "a-session-token"


def test_credentials_that_cannot_be_renewed_are_one_line():
    with pytest.raises(EndpointError, match="x: AWS credentials or settings: Credentials were refreshed, but") as error:
        Signer("x", "us-east-1", refreshing("secret-0", "secret-1", minutes=-1), Scrubber())
    assert "\n" not in str(error.value)


@mock_aws
def test_a_role_that_may_not_be_assumed_is_one_line(monkeypatch):
    """By moto, whose STS asks for what AWS's asks for: a role's ARN of 20 characters at least."""
    keys = {"RoleArn": "arn", "RoleSessionName": "a-test"}

    def refresh():
        boto3.client("sts", "us-east-1").assume_role(**keys)

    set_aws_variables(monkeypatch)
    with pytest.raises(EndpointError, match="x: AWS credentials or settings: "):
        Signer("x", "us-east-1", DeferredRefreshableCredentials(refresh, "assume-role"), Scrubber())


def test_a_worker_gets_the_credentials_as_they_are():
    signer = pickle.loads(pickle.dumps(Signer("x", "us-east-1", TwinCredentials(), Scrubber())))
    assert not signer.is_due
    assert "Credential=AKIDOFTHELOCALTWIN00/" in signer.sign(URL, {}, b"")["Authorization"]


# What AWS's tools find


def test_the_address_is_the_regions(monkeypatch):
    set_aws_variables(monkeypatch)
    url, signer = open_signer(SageMakerEndpoint("mine", "us-east-1"), "x", Scrubber())
    assert url == URL and signer.region == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    url, signer = open_signer(SageMakerEndpoint("mine"), "x", Scrubber())
    assert url == URL.replace("us-east-1", "eu-west-1") and signer.region == "eu-west-1"


def test_the_variable_of_awss_tools_sets_another_address(monkeypatch):
    set_aws_variables(monkeypatch, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME="http://127.0.0.1:9000")
    (endpoint,) = assign_signers(target(), Scrubber(), allow_http=False).endpoints
    assert endpoint.url == "http://127.0.0.1:9000/endpoints/mine/invocations"
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "http://example.org")
    with pytest.raises(EndpointError, match="in clear: use https"):
        assign_signers(target(), Scrubber(), allow_http=False)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": ""}, "x: no AWS credentials: set AWS_PROFILE, or"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "x: AWS credentials or settings: Partial credentials found in env"),
        ({"AWS_PROFILE": "of-nobody"}, r"x: AWS credentials or settings: The config profile \(of-nobody\) could not"),
        (
            {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "nowhere"},
            "x: AWS credentials or settings: Invalid endpoint: nowhere",
        ),
    ],
)
def test_what_awss_tools_lack_is_one_line(monkeypatch, variables, told):
    set_aws_variables(monkeypatch, **variables)
    with pytest.raises(EndpointError, match=told) as error:
        assign_signers(target(), Scrubber(), allow_http=False)
    assert "\n" not in str(error.value) and SECRET not in str(error.value)


def test_without_a_region_the_line_says_where_to_write_it(monkeypatch):
    set_aws_variables(monkeypatch)
    with pytest.raises(EndpointError, match="x: no AWS region: write sagemaker:mine@REGION"):
        assign_signers(target("x=sagemaker:mine"), Scrubber(), allow_http=False)


def test_a_profile_whose_program_fails_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[profile broken]\ncredential_process = false\n")
    set_aws_variables(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="broken")
    with pytest.raises(EndpointError, match="x: AWS credentials or settings: Error when retrieving credentials"):
        assign_signers(target(), Scrubber(), allow_http=False)


# Options that SageMaker does not let through


@pytest.mark.parametrize("name", ["x", None])
def test_a_token_beside_a_signature_is_refused(name):
    option = TokenOption("VARIABLE", name, Token("a-token-of-a-kind"))
    with pytest.raises(EndpointError, match="x takes no token: requests to SageMaker are signed"):
        check_sagemaker_options(target(), [option])


def test_a_restart_and_a_query_are_refused():
    with pytest.raises(EndpointError, match="x cannot be restarted by --cold-command"):
        check_sagemaker_options(target(), [], ["x"])
    for access in (Access(query={"a": "b"}), Access(headers={"authorization": "Basic abc"})):
        with pytest.raises(EndpointError, match="SageMaker takes no query and no Authorization"):
            assign_signers(target(access=access), Scrubber(), allow_http=False)


def test_a_folder_alone_gets_no_signed_request(tmp_path):
    signer = Signer("x", "us-east-1", TwinCredentials(), Scrubber())
    remote = target(signer=signer, url="http://127.0.0.1:9000/endpoints/mine/invocations")
    with pytest.raises(EvalError, match="only its folder names x at"):
        check_confirmed(tmp_path, remote, (), ())
    check_confirmed(tmp_path, remote, ["x=sagemaker:mine@us-east-1"], ())


def test_a_twin_is_signed_for_with_its_own_credentials():
    endpoint = with_twin_signer(Endpoint("aws_sagemaker", "aws_sagemaker", "http://127.0.0.1:9000"), 9000)
    assert endpoint.url.startswith("http://127.0.0.1:9000/endpoints/") and endpoint.signer
    assert endpoint.signer.sign(endpoint.url, {}, b"")


def test_botocore_is_imported_only_for_sagemaker():
    code = (
        "import sys, eval.__main__, eval.run.runner, eval.targets.sagemaker.connect; print('botocore' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr
