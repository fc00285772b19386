"""Credentials for a bucket, and what is said without them, or where a bucket refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from urllib.parse import parse_qsl

import pytest

from service.errors import StoreError
from store.model_store import ModelStore
from tests.conftest import ROOT
from tests.helpers.http_server import http_server, send
from tests.helpers.store_bundles import plain_bundle

pytestmark = pytest.mark.integration


@pytest.fixture
def no_credentials(monkeypatch, tmp_path) -> None:
    """No credentials anywhere, and no metadata server of a VM, either."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # for boto3; the next for obstore
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    for name in ("HOST", "IP"):
        monkeypatch.setenv(f"GCE_METADATA_{name}", "127.0.0.1:9")


@pytest.mark.parametrize(
    ("url", "advice"), [("s3://models", "no AWS credentials; set AWS_"), ("gs://models", "no Google credentials; type")]
)
def test_missing_credentials_are_one_line_with_advice(no_credentials, url, advice):
    with pytest.raises(StoreError, match=f"{url}: {advice}") as caught:
        ModelStore.open(url).names()
    assert "\n" not in str(caught.value)


def test_a_profile_of_aws_is_used(no_credentials, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = OFTHETEAM\naws_secret_access_key = x\n")
    (tmp_path / "config").write_text("[profile team]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_PROFILE", "team")
    signed: list[str] = []

    def respond(request, _):
        signed.append(request.headers["Authorization"])
        send(request, 200, "<ListBucketResult></ListBucketResult>")

    with http_server(respond) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        assert ModelStore.open("s3://models").names() == []
    assert len(signed) == 1 and "Credential=OFTHETEAM/" in signed[0] and "/eu-central-1/s3/" in signed[0]


@pytest.fixture
def workflow_credentials(no_credentials, monkeypatch, tmp_path):
    """Writes the file that a workflow on GitHub has for Google, with the address where its token is exchanged."""

    def write(token_url: str) -> None:
        (tmp_path / "token").write_text("of-the-workflow")
        document = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": token_url,
            "credential_source": {"file": str(tmp_path / "token")},
        }
        (tmp_path / "workflow.json").write_text(json.dumps(document))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "workflow.json"))

    return write


def test_a_workflows_credentials_open_a_google_bucket(workflow_credentials, monkeypatch):
    sent: list[str] = []

    def respond(request, body):
        if request.path == "/token":
            sent.append(dict(parse_qsl(body.decode()))["subject_token"])
            send(request, 200, json.dumps({"access_token": "exchanged", "token_type": "Bearer", "expires_in": 3600}))
        else:
            sent.append(request.headers["Authorization"])
            send(request, 200, "<ListBucketResult></ListBucketResult>")

    with http_server(respond) as port:
        workflow_credentials(f"http://127.0.0.1:{port}/token")
        monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{port}")
        assert ModelStore.open("gs://models").names() == []
    assert sent == ["of-the-workflow", "Bearer exchanged"]


def test_google_credentials_that_are_refused_are_one_line(workflow_credentials):
    with http_server(lambda request, _: send(request, 400, '{"error": "invalid_grant"}')) as port:
        workflow_credentials(f"http://127.0.0.1:{port}/token")
        with pytest.raises(StoreError, match=r"gs://models: .* wrong or have expired; log in again") as caught:
            ModelStore.open("gs://models").names()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, "access denied: the credentials may not do that"),
        (401, "the credentials are wrong"),
        (301, "set AWS_REGION"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(no_credentials, monkeypatch, tmp_path, status, reason):
    bundle = plain_bundle(tmp_path / "bundle")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with http_server(lambda request, _: send(request, status, "<Error><Code>X</Code></Error>")) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        store = ModelStore.open("s3://models")
        for use in (store.names, lambda: store.push(bundle), lambda: store.backend.create("x", b"")):
            with pytest.raises(StoreError, match=f"s3://models: .*{reason}") as caught:
                use()
            assert "\n" not in str(caught.value)


def test_no_connection_is_one_line(no_credentials, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="s3://models: no connection; check the network"):
        ModelStore.open("s3://models").names()


def test_ctrl_c_ends_the_wait_for_a_bucket_in_one_line(no_credentials, monkeypatch):
    asked, ended = threading.Event(), threading.Event()

    def never_answer(*_):
        asked.set()
        ended.wait()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with http_server(never_answer) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        command = [ROOT / "cloudtrial", "store", "list", "--store", "s3://models"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            asked.wait()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()  # long before the server, or a time limit, ends the request
        ended.set()
    assert (process.returncode, out, err) == (130, "", "store: stopped; what was not complete is not there\n")
