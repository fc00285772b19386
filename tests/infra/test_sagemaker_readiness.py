"""The end of `up` of SageMaker: infra/waits/sagemaker_ready.py as Pulumi runs it, and its signature as AWS's own."""

from __future__ import annotations

import base64
import datetime
import json
import os
import runpy
import subprocess
import sys
from urllib.parse import urlencode

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.artifact import REPOSITORY
from infra.readiness import script_text
from tests.helpers.http_server import http_server, send

PATH = REPOSITORY / "infra" / "waits" / "sagemaker_ready.py"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "session"}
SENT = {
    "REGION": "eu-west-1", "ENDPOINT": "classifier", "CONFIG": "classifier-2", "MODEL_SHA256": "ab" * 32,
    "CONTENT_TYPE": "image/png", "BODY": base64.b64encode(b"a picture").decode(), "ADVICE": "Look there.",
}  # fmt: skip
IN_SERVICE = {"EndpointStatus": "InService", "EndpointConfigName": "classifier-2"}
ATTRIBUTES = {"X-Amzn-SageMaker-Custom-Attributes": urlencode({"instance_id": "i&1", "model_version": "ab" * 6})}


def wait_for(describe, invoke=lambda n: (200, ATTRIBUTES), *, timeout_s=60, keys=KEYS, path="", **env):
    """The script's process, and what it sent: path, body, headers. Both answer a request's number with status and what
    is in the answer: the body of a description, the headers of an invocation."""
    requests = []

    def respond(request, body):
        requests.append((request.path, body, dict(request.headers)))
        number = sum(path == request.path for path, *_ in requests)
        if request.path == "/":
            status, content = describe(number)
            send(request, status, json.dumps(content))
        else:
            status, headers = invoke(number)
            send(request, status, '{"Message": "no"}', **headers)

    with http_server(respond) as port:
        url = f"http://127.0.0.1:{port}"
        env = (
            {"URL": url, "API_URL": url, "POLL_S": "0.01", "TIMEOUT_S": str(timeout_s), "PATH": path}
            | SENT
            | keys
            | env
        )
        done = subprocess.run([sys.executable, "-c", script_text(PATH)], env=env, capture_output=True, text=True)
    return done, requests


def in_service(_):
    return 200, IN_SERVICE


def test_an_endpoint_with_what_was_sent_is_asked_three_times():
    statuses = iter(["Creating", "InService", "InService", "InService"])
    done, requests = wait_for(lambda _: (200, IN_SERVICE | {"EndpointStatus": next(statuses)}))
    assert done.returncode == 0, done.stderr
    assert [path for path, *_ in requests] == ["/", *3 * ["/", "/endpoints/classifier/invocations"]]
    _, body, headers = requests[0]
    assert json.loads(body) == {"EndpointName": "classifier"}
    assert headers["X-Amz-Target"] == "SageMaker.DescribeEndpoint"
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    _, body, headers = requests[-1]
    assert (body, headers["Content-Type"]) == (b"a picture", "image/png")
    assert "not yet: it is Creating: no reason is given" in done.stdout
    assert done.stdout.endswith("ready, with the model and the code that were sent\n")


@pytest.mark.parametrize(
    ("described", "invoked", "says"),
    [
        (IN_SERVICE | {"EndpointConfigName": "classifier-1", "FailureReason": "no ping"}, ATTRIBUTES,
         "it serves by classifier-1, and classifier-2 was sent: no ping"),
        (IN_SERVICE | {"EndpointStatus": "Failed", "FailureReason": "no ping"}, ATTRIBUTES, "it is Failed: no ping"),
        (IN_SERVICE, {"X-Amzn-SageMaker-Custom-Attributes": "model_version=cdcdcdcdcdcd"},
         "an answer is of model cdcdcdcdcdcd, and abababababab was sent: another version answers"),
        (IN_SERVICE, {}, "an answer is of model none"),
        ({}, ATTRIBUTES, "DescribeEndpoint says no 'EndpointStatus'"),
    ],
    ids=["rolled-back", "failed", "other-model", "no-model", "no-status"],
)  # fmt: skip
def test_what_is_not_what_was_sent_is_told_with_advice(described, invoked, says):
    done, _ = wait_for(lambda _: (200, described), lambda _: (200, invoked), timeout_s=0)
    assert done.returncode == 1
    assert "classifier was not ready within 0 s; last: " in done.stderr and says in done.stderr
    assert done.stderr.endswith("Look there.\n")


def test_an_error_of_aws_is_told_in_its_own_words():
    done, _ = wait_for(lambda _: (400, {"__type": "ValidationException", "Message": "no such endpoint"}), timeout_s=0)
    assert "answered status 400" in done.stderr and "no such endpoint" in done.stderr
    done, _ = wait_for(in_service, lambda _: (424, {}), timeout_s=0)
    assert "answered status 424" in done.stderr


def test_a_redirect_proves_nothing():
    done, requests = wait_for(in_service, lambda n: (302 if n == 1 else 200, ATTRIBUTES | {"Location": "/"}))
    assert done.returncode == 0 and "answered status 302" in done.stdout
    assert [path for path, *_ in requests] == 4 * ["/", "/endpoints/classifier/invocations"]


@pytest.mark.parametrize("token", [True, False], ids=["session", "lasting"])
def test_the_signature_is_the_one_of_awss_own_library(monkeypatch, token):
    """Of the same request, at the same time: every header that is sent is signed."""
    keys = KEYS if token else {name: value for name, value in KEYS.items() if "TOKEN" not in name}
    _, requests = wait_for(in_service, keys=keys)
    for path, body, headers in (requests[0], requests[-1]):
        now = datetime.datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda now=now: now)
        signed_names = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        own = {name: headers[name] for name in headers if name.lower() in signed_names and name != "Host"}
        own.pop("X-Amz-Date")
        own.pop("X-Amz-Security-Token", None)
        theirs = AWSRequest("POST", f"http://{headers['Host']}{path}", own, body)
        credentials = Credentials(
            keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN")
        )
        botocore.auth.SigV4Auth(credentials, "sagemaker", "eu-west-1").add_auth(theirs)
        assert headers["Authorization"] == theirs.headers["Authorization"]
        assert headers.get("X-Amz-Security-Token") == keys.get("AWS_SESSION_TOKEN")
        assert {"host", "x-amz-date", "content-type"} <= set(signed_names)


def test_without_keys_or_awss_program_nothing_is_asked(tmp_path):
    done, requests = wait_for(in_service, keys={}, path=str(tmp_path))
    assert done.returncode == 1 and requests == []
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install AWS's CLI" in done.stderr


@pytest.mark.parametrize(
    ("keys", "profile"), [({}, ""), ({}, "work"), (KEYS, "work")], ids=["other", "both", "profile"]
)
def test_awss_program_finds_the_keys_of_a_profile(tmp_path, keys, profile):
    found = json.dumps({"Version": 1, "AccessKeyId": "AKIDCLI", "SecretAccessKey": "s", "SessionToken": "t"})
    program = tmp_path / "aws"
    program.write_text(f"#!/bin/sh\necho \"$*\" >> {tmp_path}/called\necho '{found}'\n", encoding="utf-8")
    program.chmod(0o755)
    done, requests = wait_for(in_service, keys=keys, path=f"{tmp_path}{os.pathsep}/usr/bin", PROFILE=profile)
    assert done.returncode == 0, done.stderr
    assert all("Credential=AKIDCLI/" in headers["Authorization"] for *_, headers in requests)
    words = "configure export-credentials --format process" + (f" --profile {profile}" if profile else "")
    assert (tmp_path / "called").read_text(encoding="utf-8").splitlines() == [words]


def test_no_secret_is_printed_or_sent():
    done, requests = wait_for(in_service)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    assert all("secret" not in json.dumps(headers) for *_, headers in requests)


def test_the_file_can_be_read_without_being_run():
    assert callable(runpy.run_path(str(PATH))["signed"])
