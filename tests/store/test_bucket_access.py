"""Credentials for a bucket, and what is said without them, or where a bucket refuses."""

from __future__ import annotations

import os

import pytest

from service.errors import StoreError
from store.model_store import ModelStore
from tests.helpers.http_server import http_server, send
from tests.helpers.store_bundles import plain_bundle


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
