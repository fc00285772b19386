"""infra/policy: the programs keep every rule, and a planted breach of each is found and named."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from infra.artifact import REPOSITORY
from infra.policy.rules import POLICIES, RULES
from tests.helpers.infra.program_runs import STACKS, WEB_STACKS, rehearse, well
from tests.offline_engine.engine import Resource
from tests.offline_engine.policy_check import find_violations

pytestmark = pytest.mark.integration

SERVICE = "gcp:cloudrunv2/service:Service"
GONE = object()  # what is planted is that the value is not there


def planted(stack: str, kind: str, faults: dict[str, Any]) -> Resource:
    """A resource that a program really made, with some values set to others."""
    resource = well(rehearse(stack, token=stack in WEB_STACKS)).of_type(kind)[0]
    inputs = copy.deepcopy(resource.unwrapped_inputs)
    for path, value in faults.items():
        *steps, last = path.split(".")
        node: Any = inputs
        for step in steps:
            node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return replace(resource, inputs=inputs)


def made_up(kind: str, **inputs: Any) -> Resource:
    """A resource that no program here has."""
    resource = well(rehearse("heroku")).single("Build")
    return replace(resource, type=kind, name="made-up", inputs=inputs)


def document(**changes: Any) -> str:
    """A policy document of AWS that is in order, but for the changes."""
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::bundle/app.tar.gz"]}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**statement, **changes}]})


@pytest.mark.parametrize("preview", [False, True], ids=["up", "preview"])
@pytest.mark.parametrize("stack", STACKS)
def test_a_program_keeps_every_rule(stack, preview):
    run = well(rehearse(stack, token=stack in WEB_STACKS and not preview, preview=preview))
    assert find_violations(run.resources.values()) == []


@pytest.mark.parametrize(
    ("stack", "config"),
    [
        pytest.param(
            "aws_ec2",
            {"domain": "a.example.com", "certificateEmail": "you@example.com", "hostedZoneId": "Z0123456789ABC"},
            id="aws_ec2-with-a-domain",
        ),
        pytest.param("aws_sagemaker", {"size": "serverless-2048"}, id="aws_sagemaker-serverless"),
        pytest.param("heroku", {"build": "container"}, id="heroku-as-a-container"),
        pytest.param("heroku", {"protectStatus": "true"}, id="heroku-with-a-closed-status"),
        pytest.param("gcp_cloudrun", {"protectStatus": "true", "invoker": "none"}, id="gcp_cloudrun-closed"),
        pytest.param("gcp_function", {"protectStatus": "true", "invoker": "none"}, id="gcp_function-closed"),
    ],
)
def test_a_program_keeps_every_rule_in_its_other_form(stack, config):
    run = well(rehearse(stack, config, token=stack in WEB_STACKS))
    assert find_violations(run.resources.values()) == []


PLANTED = [
    ("only_web_ports", "aws_ec2", "SecurityGroupIngressRule", {"fromPort": 22, "toPort": 22}, "ports 22 to 22 (tcp)"),
    ("only_web_ports", "aws_ec2", "SecurityGroupIngressRule", {"toPort": 8080}, "ports 80 to 8080"),
    (
        "only_web_ports",
        "aws_ec2",
        "SecurityGroupIngressRule",
        {"ipProtocol": "-1", "fromPort": GONE, "toPort": GONE},
        "every port (-1)",
    ),
    ("only_web_ports", "aws_ec2", "Instance", {"keyName": "mine"}, "keyName is 'mine'"),
    ("imdsv2", "aws_ec2", "Instance", {"metadataOptions.httpTokens": "optional"}, "is 'optional'"),
    ("imdsv2", "aws_ec2", "Instance", {"metadataOptions": GONE}, "is None; set it to 'required'"),
    ("encrypted_disks", "aws_ec2", "Instance", {"rootBlockDevice.encrypted": False}, "encrypted=False"),
    ("encrypted_disks", "aws_ec2", "Instance", {"rootBlockDevice.encrypted": GONE}, "has encrypted=None"),
    ("encrypted_disks", "aws_ec2", "Instance", {"ebsBlockDevices": [{"deviceName": "/dev/sdb"}]}, "ebsBlockDevices"),
    ("no_public_bucket", "aws_ec2", "BucketPublicAccessBlock", {"blockPublicPolicy": False}, "blockPublicPolicy is"),
    ("no_public_bucket", "aws_ec2", "Bucket", {"acl": "public-read"}, "acl is 'public-read'"),
    ("no_public_bucket", "gcp_function", "Bucket", {"publicAccessPrevention": "inherited"}, "is 'inherited'"),
    ("no_public_bucket", "gcp_function", "Bucket", {"uniformBucketLevelAccess": GONE}, "is None; set it to True"),
    ("own_accounts", "gcp_cloudrun", SERVICE, {"template.serviceAccount": GONE}, "is None; give it"),
    (
        "own_accounts",
        "gcp_function",
        "Function",
        {"serviceConfig.serviceAccountEmail": "1-compute@developer.gserviceaccount.com"},
        "1-compute@developer",
    ),
    ("own_accounts", "gcp_function", "Function", {"buildConfig.serviceAccount": GONE}, "buildConfig.serviceAccount"),
    ("least_privilege", "gcp_function", "IAMMember", {"role": "roles/editor"}, "role is 'roles/editor'"),
    ("least_privilege", "aws_ec2", "RolePolicy", {"policy": document(Action="s3:*")}, "action 's3:*'"),
    ("least_privilege", "aws_ec2", "RolePolicy", {"policy": document(Resource="*")}, "resource '*'"),
    ("least_privilege", "aws_ec2", "RolePolicy", {"policy": document(Resource=["arn:aws:s3:::*"])}, "arn:aws:s3:::*"),
    ("least_privilege", "aws_ec2", "RolePolicy", {"policy": document(NotAction="iam:*")}, "NotAction"),
    ("least_privilege", "aws_ec2", "Role", {"assumeRolePolicy": document(Principal={"AWS": "*"})}, "anyone may take"),
    (
        "least_privilege",
        "aws_ec2",
        "RolePolicyAttachment",
        {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
        "AdministratorAccess",
    ),
    (
        "read_only_store",
        "aws_ec2",
        "RolePolicy",
        {"policy": document(Action=["s3:GetObject", "s3:PutObject"], Resource="arn:aws:s3:::models/net/*")},
        "s3:PutObject is allowed on 'arn:aws:s3:::models/net/*'",
    ),
    (
        "read_only_store",
        "aws_ec2",
        "RolePolicy",
        {"policy": document(Action="s3:DeleteBucket", Resource="arn:aws:s3:::models")},
        "s3:DeleteBucket is allowed on",
    ),
    (
        "read_only_store",
        "gcp_cloudrun",
        SERVICE,
        {"template.volumes": [{"name": "models", "gcs": {"bucket": "models", "readOnly": False}}]},
        "models is mounted with readOnly=False",
    ),
    ("limited_instances", "gcp_cloudrun", SERVICE, {"template.scaling.maxInstanceCount": GONE}, "is None; set it"),
    ("limited_instances", "gcp_function", "Function", {"serviceConfig.maxInstanceCount": 1000}, "is 1000; set it"),
    ("own_accounts", "aws_sagemaker", "Model", {"executionRoleArn": GONE}, "executionRoleArn is None; give it"),
    ("least_privilege", "aws_sagemaker", "RolePolicy", {"policy": document(Resource="*")}, "resource '*'"),
    (
        "least_privilege",
        "aws_sagemaker",
        "RolePolicy",
        {"policy": document(Action=["ecr:GetAuthorizationToken", "ecr:BatchGetImage"], Resource="*")},
        "resource '*'",
    ),
    ("limited_instances", "aws_sagemaker", "Target", {"maxCapacity": 500}, "maxCapacity is 500; set it to 1 to 100"),
    ("destroyable", "aws_sagemaker", "Repository", {"forceDelete": GONE}, "forceDelete is None; set it to True"),
    ("destroyable", "aws_sagemaker", "LogGroup", {"skipDestroy": True}, "skipDestroy is True"),
    ("tagged", "aws_sagemaker", "Endpoint", {"tags": GONE}, "tags has stack=None"),
    ("tagged", "aws_sagemaker", "EndpointConfiguration", {"tags.stack": "other"}, "stack='other'"),
    ("pinned_image", "aws_sagemaker", "Model", {"primaryContainer.image": "a/b:latest"}, "image is 'a/b:latest'"),
    (
        "no_secret_in_clear",
        "aws_sagemaker",
        "Model",
        {"primaryContainer.environment.API_TOKEN": "abc"},
        "API_TOKEN holds",
    ),
    ("limited_instances", "heroku", "Formation", {"quantity": 500}, "quantity is 500; set it to 1 to 100"),
    ("destroyable", "aws_ec2", "Bucket", {"forceDestroy": GONE}, "forceDestroy is None; set it to True"),
    ("destroyable", "gcp_function", "Bucket", {"forceDestroy": False}, "forceDestroy is False"),
    ("destroyable", "gcp_cloudrun", SERVICE, {"deletionProtection": GONE}, "is None; set it to False"),
    ("destroyable", "gcp_cloudrun", "Repository", {"deletionPolicy": "PREVENT"}, "deletionPolicy is 'PREVENT'"),
    ("destroyable", "gcp_cloudrun", "Secret", {"deletionProtection": True}, "deletionProtection is True"),
    ("destroyable", "aws_ec2", "Instance", {"disableApiTermination": True}, "disableApiTermination is True"),
    ("tagged", "aws_ec2", "Vpc", {"tags": GONE}, "tags has project=None; set it to 'cloudtrial'"),
    ("tagged", "aws_ec2", "Instance", {"tags.stack": "other"}, "stack='other'; set it to 'aws_ec2'"),
    ("tagged", "aws_ec2", "Instance", {"rootBlockDevice.tags": GONE}, "rootBlockDevice.tags has"),
    ("tagged", "gcp_cloudrun", SERVICE, {"labels": GONE}, "labels has stack=None"),
    ("pinned_image", "gcp_cloudrun", SERVICE, {"template.containers.0.image": "a/b:latest"}, "image is 'a/b:latest'"),
    ("no_secret_in_clear", "heroku", "App", {"configVars.API_TOKEN": "abc"}, "API_TOKEN holds its value in clear"),
    (
        "no_secret_in_clear",
        "gcp_function",
        "Function",
        {"serviceConfig.environmentVariables.DB_PASSWORD": "abc"},
        "DB_PASSWORD holds",
    ),
    (
        "no_secret_in_clear",
        "gcp_cloudrun",
        SERVICE,
        {"template.containers.0.envs": [{"name": "API_TOKEN", "value": "abc"}]},
        "API_TOKEN holds",
    ),
    ("no_secret_in_clear", "aws_ec2", "Instance", {"userData": "export API_TOKEN=abc\n"}, "API_TOKEN holds"),
    ("no_secret_in_clear", "aws_ec2", "Parameter", {"type": "String"}, "type is 'String'"),
]


@pytest.mark.parametrize(
    ("rule", "stack", "kind", "faults", "message"),
    [pytest.param(*case, id=f"{case[0]}-{case[2].rpartition(':')[2]}-{'-'.join(case[3])}") for case in PLANTED],
)
def test_violation_planted_in_a_program_is_reported(rule, stack, kind, faults, message):
    violations = find_violations([planted(stack, kind, faults)])
    assert {violation.rule for violation in violations} == {rule}
    assert any(message in violation.message for violation in violations), violations


@pytest.mark.parametrize(
    ("rule", "resource", "message"),
    [
        pytest.param(
            "only_web_ports",
            ("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", {"ingress": [{"protocol": "tcp", "fromPort": 22}]}),
            "Session Manager",
            id="ssh-inside-a-group",
        ),
        pytest.param(
            "encrypted_disks",
            ("aws:ec2/instance:Instance", {"metadataOptions": {"httpTokens": "required"}}),
            "rootBlockDevice has encrypted=None",
            id="disk-as-the-image-has-it",
        ),
        pytest.param("encrypted_disks", ("aws:ebs/volume:Volume", {"size": 8}), "the volume has", id="bare-volume"),
        pytest.param(
            "no_public_bucket",
            ("aws:s3/bucketPolicy:BucketPolicy", {"policy": document(Principal="*")}),
            "Principal '*'",
            id="bucket-policy-for-everyone",
        ),
        pytest.param(
            "no_public_bucket",
            ("gcp:storage/bucketIAMMember:BucketIAMMember", {"member": "allUsers"}),
            "allUsers has access",
            id="bucket-member-everyone",
        ),
        pytest.param(
            "read_only_store",
            ("gcp:storage/bucketIAMMember:BucketIAMMember", {"role": "roles/storage.objectAdmin"}),
            "role is 'roles/storage.objectAdmin'",
            id="writer-of-a-bucket",
        ),
        pytest.param(
            "tagged", ("aws:sqs/queue:Queue", {}), "infra/policy/property_paths.py", id="type-nobody-has-looked-at"
        ),
    ],
)
def test_violation_in_an_unused_resource_type_is_reported(rule, resource, message):
    kind, inputs = resource
    violations = find_violations([made_up(kind, **inputs)])
    assert any(violation.rule == rule and message in violation.message for violation in violations), violations


def test_a_protected_resource_is_a_breach():
    app = replace(well(rehearse("heroku")).single("App"), protect=True)
    assert [v.message for v in find_violations([app])] == ["is protected; leave `protect` out"]


def test_every_rule_has_one_sentence_a_violation_here_and_blocks():
    assert {case[0] for case in PLANTED} == {rule.__name__ for rule in RULES}
    for policy in POLICIES:
        assert policy.description.endswith(".") and policy.description.count(". ") == 0, policy.description
        assert policy.enforcement_level is not None and policy.enforcement_level.value == "mandatory"


@pytest.fixture
def analyzer():
    """The pack as `pulumi up --policy-pack infra/policy` starts it, and a stub to ask it."""
    folder = REPOSITORY / "infra" / "policy"
    with subprocess.Popen([sys.executable, "."], cwd=folder, stdout=subprocess.PIPE, text=True) as pack:
        try:
            port = int(pack.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield analyzer_pb2_grpc.AnalyzerStub(channel)
        finally:
            pack.terminate()


def test_policy_pack_serves_pulumi_over_grpc(analyzer):
    def ask(resource: Resource) -> list[analyzer_pb2.AnalyzeDiagnostic]:
        properties = struct_pb2.Struct()
        properties.update(resource.inputs)
        request = analyzer_pb2.AnalyzeRequest(
            type=resource.type, properties=properties, urn=resource.urn, name=resource.name
        )
        return list(analyzer.Analyze(request, timeout=60).diagnostics)

    listed = analyzer.GetAnalyzerInfo(empty_pb2.Empty(), timeout=60)
    assert {policy.name for policy in listed.policies} == {policy.name for policy in POLICIES}

    for resource in well(rehearse("heroku", token=True)).resources.values():
        assert ask(resource) == []

    (breach,) = ask(planted("heroku", "Formation", {"quantity": 500}))
    assert breach.policyName == "limited-instances"
    assert breach.enforcementLevel == analyzer_pb2.MANDATORY
    assert "web: quantity is 500; set it to 1 to 100" in breach.message
