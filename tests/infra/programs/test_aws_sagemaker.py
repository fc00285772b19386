"""infra/aws_sagemaker: what the program asks AWS for, by its settings."""

from __future__ import annotations

import base64
import json
import re

import pytest

from infra.artifact import REPOSITORY, deployment_files
from infra.aws_sagemaker.probe import probe_env
from infra.models import read_model
from infra.readiness import script_text
from infra.targets import AWS_SAGEMAKER, SAGEMAKER_SIZES
from service.settings import ENGINES
from tests.helpers.infra.program_runs import make_checkout, packed, refused, rehearse, well
from tests.offline_engine.engine import ProgramResult, diff, run_program

pytestmark = pytest.mark.integration

STACK = "aws_sagemaker"
NAME = "cloudtrial-endpoint"
ENDPOINT = f"{NAME}-ml-m5-large"
TAGS = {"project": "cloudtrial", "stack": STACK}


@pytest.fixture(scope="module")
def run() -> ProgramResult:
    return well(rehearse(STACK))


@pytest.fixture(scope="module")
def serverless() -> ProgramResult:
    return well(rehearse(STACK, {"size": "serverless-2048", "maxInstances": "5"}))


def variant_of(run: ProgramResult) -> dict:
    (variant,) = run.single("EndpointConfiguration").inputs["productionVariants"]
    return variant


def statements(run: ProgramResult, kind: str, key: str) -> list[dict]:
    return json.loads(run.single(kind).inputs[key])["Statement"]


# The image


@pytest.mark.parametrize("engine", ENGINES)
def test_image_is_sagemakers_stage_of_what_is_shipped(engine, tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    config = {"aws:region": "us-east-1", "cloudtrial:engine": engine}
    image = well(run_program(checkout, STACK, config)).single("Image").inputs
    assert (image["target"], image["buildArgs"], image["platforms"]) == (
        "sagemaker",
        {"ENGINE": engine},
        ["linux/amd64"],
    )
    written = set(packed(checkout, STACK))
    assert written == set(deployment_files(engine=engine, target=STACK))
    assert {"infra/aws_sagemaker/serve", "infra/aws_sagemaker/train"} <= written
    assert (checkout / image["dockerfile"]["location"]).is_file()
    assert re.search(r"^FROM \S+ AS sagemaker$", (REPOSITORY / "service/Dockerfile").read_text(), re.MULTILINE)


def test_image_has_dockers_manifest_and_no_attestation(run):
    """CreateModel refuses OCI's. docker-build attests nothing but by buildx itself, which `exec` would start."""
    image = run.single("Image").inputs
    (export,) = image["exports"]
    assert export["registry"]["ociMediaTypes"] is False and export["registry"]["push"] is True
    assert image["push"] is False and not image.get("exec")
    assert image["buildOnPreview"] is False


def test_registry_password_is_secret(run):
    image = run.single("Image")
    (registry,) = image.unwrapped_inputs["registries"]
    address = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{NAME}"
    assert registry == {"address": address, "username": "AWS", "password": "ecr-password"}
    assert "ecr-password" not in image.cleartext
    assert image.inputs["tags"][0].startswith(f"{address}:")


def test_old_images_go_and_running_ones_can_be_pulled_again(run):
    (rule,) = json.loads(run.single("LifecyclePolicy").inputs["policy"])["rules"]
    assert rule["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 5}
    assert rule["action"] == {"type": "expire"}
    assert run.single("LifecyclePolicy").inputs["repository"] == run.single("Repository").inputs["name"] == NAME


# The role


def test_only_sagemaker_takes_the_role(run):
    assert statements(run, "Role", "assumeRolePolicy") == [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "sagemaker.amazonaws.com"}}
    ]


def test_the_role_pulls_its_image_and_writes_its_log(run):
    pull, login, log = statements(run, "RolePolicy", "policy")
    assert pull["Resource"] == [run.single("Repository").outputs["arn"]]
    assert all(action.startswith("ecr:") for action in pull["Action"]) and "ecr:BatchGetImage" in pull["Action"]
    assert login == {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": ["*"]}
    group = run.single("LogGroup").outputs["arn"]
    assert log["Resource"] == [group, f"{group}:*"]
    assert "logs:CreateLogGroup" not in log["Action"]  # it would make one that stays behind


def test_the_model_is_made_after_its_role_may_pull(run):
    model = run.single("Model")
    assert run.single("RolePolicy").urn in model.dependencies
    assert model.inputs["executionRoleArn"] == run.single("Role").outputs["arn"]


# Model, configuration, endpoint


def test_the_model_is_the_image_by_digest_with_its_settings(run):
    container = run.single("Model").inputs["primaryContainer"]
    repository, digest = run.single("aws:ecr/repository:Repository").outputs, run.single("Image").outputs["digest"]
    assert container["image"] == f"{repository['repositoryUrl']}@{digest}"  # AWS documents no form with a tag too
    sent = run.single("Command").inputs["environment"]
    assert container["environment"] == {
        "ENGINE": "torch", "MODEL_DIR": "models/resnet18-cifar10", "GIT_SHA": sent["GIT_SHA"]
    }  # fmt: skip
    assert sent["GIT_SHA"].startswith("unversioned-")  # no repository of git


def test_an_endpoint_of_instances(run):
    assert variant_of(run) == {
        "variantName": "main",
        "modelName": run.single("Model").outputs["name"],
        "instanceType": "ml.m5.large",
        "initialInstanceCount": 1,
        "containerStartupHealthCheckTimeoutInSeconds": AWS_SAGEMAKER.boot_timeout_s,
    }
    endpoint, configuration = run.single("Endpoint"), run.single("EndpointConfiguration")
    assert endpoint.inputs["name"] == ENDPOINT == run.outputs["endpoint"]
    assert endpoint.inputs["endpointConfigName"] == configuration.outputs["name"]


def test_a_serverless_endpoint(serverless):
    assert variant_of(serverless) == {
        "variantName": "main",
        "modelName": serverless.single("Model").outputs["name"],
        "serverlessConfig": {"memorySizeInMb": 2048, "maxConcurrency": 5},
    }
    assert serverless.outputs["size"] == "serverless-2048"
    assert serverless.of_type("aws:appautoscaling/target:Target") == []


@pytest.mark.parametrize("size", SAGEMAKER_SIZES)
def test_every_size_can_be_deployed(size):
    assert well(rehearse(STACK, {"size": size})).outputs["size"] == size


MODEL, CONFIGURATION = f"Model {ENDPOINT}", f"EndpointConfiguration {ENDPOINT}"


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"revision": "r2"}, {MODEL, CONFIGURATION}),
        ({"engine": "onnx"}, {MODEL, CONFIGURATION}),
        ({"minInstances": "2"}, {CONFIGURATION}),
        ({"maxInstances": "4"}, set()),
        ({"invocationsPerMinute": "900"}, set()),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
def test_what_cannot_be_changed_is_made_beside_the_old_one(run, settings, changed):
    other = well(rehearse(STACK, settings))
    changes = diff(run, other)
    assert {name for name, change in changes.items() if change == "replace"} - {"Command ready"} == changed
    assert changes.get("Endpoint endpoint-ml.m5.large") == ("update" if changed else None)
    assert ("Command ready" in changes) == bool(changed)
    for kind in ("Model", "EndpointConfiguration"):
        assert not other.single(kind).delete_before_replace


def test_model_and_configuration_have_names_that_are_never_taken(run, serverless):
    """The one that is replaced keeps its own until all else has passed, and longer where that fails."""
    for each in (run, serverless):
        for kind in ("Model", "EndpointConfiguration"):
            assert not {"name", "namePrefix"} & each.single(kind).inputs.keys()
            assert each.single(kind).name == each.single("Endpoint").inputs["name"]  # which Pulumi lengthens


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ml.m5.large", "ml.m5.xlarge"),
        ("ml.m5.large", "ml.t2.medium"),
        ("ml.m5.large", "serverless-2048"),
        ("ml.t2.medium", "ml.c5.xlarge"),
        ("serverless-2048", "ml.m5.large"),
        ("serverless-2048", "serverless-4096"),
    ],
)
def test_another_size_is_another_endpoint_beside_the_old_one(before, after):
    """AWS refuses another instance type while the variant is scaled, and serverless in place of instances. Nothing of
    the old endpoint is changed or replaced, so that one may go back from a size that fails."""
    old, new = (well(rehearse(STACK, {"size": size})) for size in (before, after))
    changes = diff(old, new)
    assert changes.pop("Command ready") == "replace"
    assert changes[f"Endpoint endpoint-{after}"] == "create" and changes[f"Endpoint endpoint-{before}"] == "delete"
    made, gone = (
        {name for name in changes if name.endswith((f"-{size}", f"-{size.replace('.', '-')}"))}
        for size in (after, before)
    )
    assert changes == dict.fromkeys(made, "create") | dict.fromkeys(gone, "delete")
    for kind in ("Endpoint", "EndpointConfiguration", "Model", "LogGroup"):
        assert old.single(kind).outputs["name"] != new.single(kind).outputs["name"]


def test_the_longest_names_are_short_enough_for_aws():
    longest = max(SAGEMAKER_SIZES, key=len)
    run = well(rehearse(f"{STACK}-abcdefghij", {"size": longest}))
    for kind in ("Model", "EndpointConfiguration", "Endpoint"):
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", run.single(kind).outputs["name"])


# Scaling


def test_instances_follow_the_invocations(run):
    target, policy = (run.single(f"aws:appautoscaling/{kind.lower()}:{kind}").inputs for kind in ("Target", "Policy"))
    assert (target["minCapacity"], target["maxCapacity"]) == (1, AWS_SAGEMAKER.max_instances)
    where = {
        "serviceNamespace": "sagemaker",
        "resourceId": f"endpoint/{ENDPOINT}/variant/main",
        "scalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    assert where.items() <= target.items() and where.items() <= policy.items()
    assert policy["policyType"] == "TargetTrackingScaling"
    assert policy["targetTrackingScalingPolicyConfiguration"] == {
        "targetValue": 300,
        "scaleOutCooldown": 60,
        "scaleInCooldown": 300,
        "predefinedMetricSpecification": {"predefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
    }


def test_the_variant_that_is_scaled_is_the_configurations(run):
    assert run.single("aws:appautoscaling/target:Target").inputs["resourceId"].endswith(variant_of(run)["variantName"])


def test_settings_of_scaling_reach_aws():
    run = well(rehearse(STACK, {"minInstances": "2", "maxInstances": "7", "invocationsPerMinute": "1200"}))
    target = run.single("aws:appautoscaling/target:Target").inputs
    assert (variant_of(run)["initialInstanceCount"], target["minCapacity"], target["maxCapacity"]) == (2, 2, 7)
    policy = run.single("aws:appautoscaling/policy:Policy").inputs
    assert policy["targetTrackingScalingPolicyConfiguration"]["targetValue"] == 1200


@pytest.mark.parametrize("settings", [{"size": "ml.t2.medium"}, {"maxInstances": "1"}], ids=["burstable", "one"])
def test_what_cannot_or_need_not_scale_has_no_scaling(settings):
    run = well(rehearse(STACK, settings))
    assert [r for r in run.resources.values() if r.type.startswith("aws:appautoscaling/")] == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": "ml.t2.medium", "maxInstances": "3"}, "AWS scales no burstable size, so with ml.t2.medium it has to"),
        ({"size": "ml.p9"}, "one of ml.t2.medium, ml.m5.large"),
        ({"size": "serverless-2000"}, "serverless-2048"),
        ({"size": "serverless-2048", "minInstances": "1"}, "which runs nothing without a request"),
        ({"minInstances": "4"}, "cloudtrial:minInstances is 4, more than cloudtrial:maxInstances, 3"),
        ({"minInstances": "0"}, "a whole number from 1 to 100"),
        ({"maxInstances": "1000"}, "a whole number from 1 to 100"),
        ({"invocationsPerMinute": "0"}, "a whole number from 1 to 1000000"),
        ({"allowedOrigins": "https://example.org"}, "cloudtrial:allowedOrigins is not a setting of this stack"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_invalid_setting_is_refused(settings, reason):
    assert reason in refused(rehearse(STACK, settings))


def test_a_token_is_no_setting_as_only_signed_calls_arrive():
    assert "cloudtrial:apiToken is not a setting of this stack" in refused(rehearse(STACK, token=True))


# Log, tags, the end of `up`


def test_the_log_has_an_end_and_goes_with_the_stack(run):
    group = run.single("LogGroup")
    assert group.inputs == {"name": f"/aws/sagemaker/Endpoints/{ENDPOINT}", "retentionInDays": 30, "tags": TAGS}
    assert group.urn in run.single("Endpoint").dependencies  # made before it, deleted after it


def test_up_ends_with_signed_proof_of_this_configuration(run):
    ready = run.single("Command")
    sent = ready.inputs["environment"]
    expected = {
        "URL": "https://runtime.sagemaker.us-east-1.amazonaws.com",
        "API_URL": "https://api.sagemaker.us-east-1.amazonaws.com",
        "REGION": "us-east-1",
        "ENDPOINT": ENDPOINT,
        "CONFIG": run.single("EndpointConfiguration").outputs["name"],
    }
    assert expected.items() <= sent.items()
    assert ready.inputs["create"] == script_text(REPOSITORY / "infra/waits/sagemaker_ready.py")
    assert ready.inputs["triggers"] == [sent["GIT_SHA"], sent["CONFIG"]]
    assert run.single("Endpoint").urn in ready.dependencies
    assert "PROFILE" not in sent and f"aws logs tail /aws/sagemaker/Endpoints/{ENDPOINT} " in sent["ADVICE"]


def test_the_proof_signs_by_the_profile_of_the_stack():
    ready = well(rehearse(STACK, {"aws:profile": "work"})).single("Command")
    assert ready.inputs["environment"]["PROFILE"] == "work"


def test_the_proof_sends_what_the_model_answers(run):
    sent = run.single("Command").inputs["environment"]
    assert sent["CONTENT_TYPE"] == "image/png" and base64.b64decode(sent["BODY"]).startswith(b"\x89PNG")
    rows = probe_env(read_model("iris"))
    assert rows["CONTENT_TYPE"] == "application/json"
    assert json.loads(base64.b64decode(rows["BODY"])) == {"instances": [[4.3, 2.0, 1.0, 0.1]]}
