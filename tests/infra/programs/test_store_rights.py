"""What AWS's roles may do in the store's bucket, as moto judges every request by the caller's policies."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.core import set_initial_no_auth_action_count

from service.errors import StoreError
from store.model_store import ModelStore
from tests.helpers.infra.program_runs import REQUIRED, well
from tests.helpers.infra.small_bundles import write_bundle
from tests.helpers.infra.stored_models import REFERENCE, make_checkout_with_store, settings
from tests.helpers.moto_server import REGION, moto_s3
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.integration


def test_the_vms_role_follows_its_model_and_no_other(tmp_path, monkeypatch):
    bucket = "models-of-tests"
    checkout = make_checkout_with_store(tmp_path / "checkout")
    run = well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"] | settings("aws_ec2")))
    policy = run.single("RolePolicy").unwrapped_inputs["policy"]
    with moto_s3(bucket) as environment:
        for name, value in (environment | {"AWS_DEFAULT_REGION": REGION}).items():
            monkeypatch.setenv(name, value)
        for name in ("net", "other"):
            push_to(f"s3://{bucket}/clouds", tmp_path / name, name)
        as_role = keys_of_a_role_with(policy, "vm")
        for name, value in as_role.items():
            monkeypatch.setenv(name, value)

        @set_initial_no_auth_action_count(0)  # from here on moto judges every request by the caller's policies
        def as_the_vm() -> None:
            store = ModelStore.open(f"s3://{bucket}/clouds")
            record = store.follow(REFERENCE, tmp_path / "followed")
            assert record and (tmp_path / "followed" / "net" / "versions" / record.version / "model.json").is_file()
            for refused in (
                lambda: store.pull("other@prod", tmp_path / "pulled"),
                lambda: store.move_alias("net", "beta", record.version, reason="not the VM's to say"),
            ):
                with pytest.raises(StoreError, match="access denied"):
                    refused()

        as_the_vm()


def test_sagemakers_role_reads_the_versions_and_no_alias(tmp_path, monkeypatch):
    bucket = "models-of-tests"
    checkout = make_checkout_with_store(tmp_path / "checkout")
    run = well(run_program(checkout, "aws_sagemaker", REQUIRED["aws_sagemaker"] | settings("aws_sagemaker")))
    policy = run.single("RolePolicy").unwrapped_inputs["policy"]
    (source,) = run.single("Model").inputs["primaryContainer"]["modelDataSource"]["s3DataSources"]
    with moto_s3(bucket) as environment:
        for name, value in (environment | {"AWS_DEFAULT_REGION": REGION}).items():
            monkeypatch.setenv(name, value)
        for name in ("net", "other"):
            push_to(f"s3://{bucket}/clouds", tmp_path / name, name)
        for name, value in keys_of_a_role_with(policy, "sagemaker").items():
            monkeypatch.setenv(name, value)

        @set_initial_no_auth_action_count(0)
        def as_sagemaker() -> None:
            s3 = boto3.Session().client("s3")  # the default one has the keys of before
            prefix = source["s3Uri"].removeprefix(f"s3://{bucket}/").rpartition("versions/")[0] + "versions/"
            keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
            assert any(key.endswith("/model.json") for key in keys)
            assert all(s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys)
            for key in ("clouds/net/aliases/prod/0000000001.json", "clouds/other/versions/x/model.json"):
                with pytest.raises(ClientError, match="AccessDenied"):
                    s3.get_object(Bucket=bucket, Key=key)

        as_sagemaker()


def push_to(url: str, models: Path, name: str) -> None:
    store = ModelStore.open(url)
    version = store.push(write_bundle(models, name, {"torch": b"weights", "onnx": b"weights in 8 bits"})).version
    store.move_alias(name, "prod", version, reason="a test")


def keys_of_a_role_with(policy: str, name: str) -> dict[str, str]:
    """The environment of a process that acts as a role with this policy."""
    iam, sts = boto3.client("iam"), boto3.client("sts")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": "*"}]}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="vm", PolicyDocument=policy)
    keys = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="vm")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }
