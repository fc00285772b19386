"""The provider's own protocol, asked as the engine asks it; needs no pulumi program."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from tests.offline_engine.engine import SECRET, SIGNATURE, UNKNOWN, to_struct
from tests.pulumi_engine.fake_cloud import FakeCloud, UnreadyError
from tests.pulumi_engine.provider import serve_provider

INSTANCE = "aws:ec2/instance:Instance"
SERVICE = "gcp:cloudrunv2/service:Service"
VERSION = "gcp:secretmanager/secretVersion:SecretVersion"


@pytest.fixture
def cloud():
    return FakeCloud()


@pytest.fixture
def provider(cloud):
    with serve_provider(cloud) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield provider_pb2_grpc.ResourceProviderStub(channel)


def create(provider, kind, resource, *, preview=False, **inputs):
    return provider.Create(
        provider_pb2.CreateRequest(type=kind, name=resource, properties=to_struct(inputs), preview=preview)
    )


def diff(provider, kind, olds, news):
    answer = provider.Diff(
        provider_pb2.DiffRequest(type=kind, old_inputs=to_struct(olds), news=to_struct(news), id="any")
    )
    return list(answer.diffs), list(answer.replaces)


def test_preview_makes_nothing_and_knows_no_computed_value(provider, cloud):
    answer = create(provider, "aws:ec2/eip:Eip", "address", preview=True, domain="vpc")
    assert answer.id == "" and not cloud.resources
    assert answer.properties["publicIp"] == UNKNOWN and answer.properties["domain"] == "vpc"


def test_what_is_created_can_be_read_until_it_is_deleted(provider, cloud):
    made = create(provider, INSTANCE, "vm", userData="one")
    read = provider_pb2.ReadRequest(type=INSTANCE, id=made.id)
    assert provider.Read(read).inputs["userData"] == "one"
    provider.Delete(provider_pb2.DeleteRequest(type=INSTANCE, name="vm", id=made.id))
    assert provider.Read(read).id == ""
    assert cloud.log == ["create Instance vm", "delete Instance vm"]


def test_same_inputs_make_another_resource_with_another_id(provider):
    first, second = (create(provider, INSTANCE, "vm", userData="one") for _ in range(2))
    assert first.id != second.id and first.properties["name"] != second.properties["name"]


def test_a_name_that_is_taken_is_refused(provider):
    create(provider, SERVICE, "service", name="cloudtrial-run", location="us-central1")
    with pytest.raises(grpc.RpcError, match="already exists"):
        create(provider, SERVICE, "service", name="cloudtrial-run", location="us-central1")


def test_immutable_inputs_replace_and_others_update(provider):
    assert diff(provider, INSTANCE, {"userData": "1", "tags": {}}, {"userData": "2", "tags": {}}) == (
        ["userData"],
        ["userData"],
    )
    assert diff(provider, INSTANCE, {"tags": {"a": "1"}}, {"tags": {"a": "2"}}) == (["tags"], [])
    assert diff(provider, INSTANCE, {"tags": {}}, {"tags": {}}) == ([], [])


def test_secrets_are_compared_by_value_and_kept_marked(provider):
    secret = {SIGNATURE: SECRET, "value": "hush"}
    assert diff(provider, VERSION, {"secretData": secret}, {"secretData": secret}) == ([], [])
    made = create(provider, VERSION, "token", secretData=secret)
    assert made.properties["secretData"][SIGNATURE] == SECRET


def test_every_version_of_a_secret_has_a_number_of_its_own(provider):
    numbers = [create(provider, VERSION, "token", secretData=data).properties["version"] for data in "aba"]
    assert len(set(numbers)) == 3


def test_failed_step_is_an_error_and_leaves_nothing(provider, cloud):
    cloud.failures["create Instance vm"] = "no capacity"
    with pytest.raises(grpc.RpcError, match="no capacity"):
        create(provider, INSTANCE, "vm")
    assert not cloud.resources and not cloud.log


def test_unready_resource_is_reported_with_what_is_there(provider, cloud):
    def unready(operation, resource):
        raise UnreadyError("the revision is not ready")

    cloud.effects[SERVICE] = unready
    with pytest.raises(grpc.RpcError) as caught:
        create(provider, SERVICE, "service", name="cloudtrial-run", location="us-central1")
    metadata: Any = caught.value.trailing_metadata()
    details = dict(metadata)["grpc-status-details-bin"]
    failure = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(details).details[0].Unpack(failure)
    assert failure.id and list(failure.reasons) == ["the revision is not ready"]
    assert cloud.of_type("Service")


def test_functions_answer_what_the_test_wants(provider, cloud):
    cloud.answers["aws:ssm/getParameter:getParameter"] = {"value": "ami-new"}
    request = provider_pb2.InvokeRequest(tok="aws:ssm/getParameter:getParameter", args=struct_pb2.Struct())
    assert getattr(provider.Invoke(request), "return")["value"] == "ami-new"
    with pytest.raises(grpc.RpcError, match="has no answer to aws:no/such:thing"):
        provider.Invoke(provider_pb2.InvokeRequest(tok="aws:no/such:thing"))
