"""infra/aws_sagemaker, really created in moto: what it names is there, and its leftovers are found and deletable."""

from __future__ import annotations

import os
import shlex

import boto3
import pytest
from moto import mock_aws

from infra.leftovers.__main__ import CLEAN, LEFTOVERS, main
from tests.helpers.infra.moto_cloud import ENVIRONMENT, REGION
from tests.helpers.infra.moto_sagemaker import SageMakerAccount
from tests.helpers.infra.program_runs import REQUIRED, make_checkout, well
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.integration

STACK = "aws_sagemaker"
NAME = "cloudtrial-endpoint"
ENDPOINT = f"{NAME}-ml-m5-large"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The stack, and another of a stage, serverless."""
    root = make_checkout(tmp_path_factory.mktemp("moto") / "checkout")
    plain = well(run_program(root, STACK, REQUIRED[STACK]))
    stage = well(run_program(root, f"{STACK}-prod", REQUIRED[STACK] | {"cloudtrial:size": "serverless-2048"}))
    return root, plain, stage


@pytest.fixture
def cloud(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield


@pytest.fixture
def account(cloud, runs):
    root, plain, _ = runs
    return SageMakerAccount(plain, root)


def test_the_endpoint_is_in_service_by_configuration_and_model(account):
    endpoint = account.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    assert endpoint["EndpointStatus"] == "InService"
    configuration = account.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = configuration["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.m5.large", 1)
    model = account.sagemaker.describe_model(ModelName=variant["ModelName"])
    repository = account.ecr.describe_repositories(repositoryNames=[NAME])["repositories"][0]
    assert model["PrimaryContainer"]["Image"].startswith(f"{repository['repositoryUri']}@sha256:")
    role = account.iam.get_role(RoleName=model["ExecutionRoleArn"].rpartition("/")[2])["Role"]
    assert "sagemaker.amazonaws.com" in str(role["AssumeRolePolicyDocument"])


def test_the_scaled_resource_is_the_endpoints_variant(account):
    (target,) = account.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    (policy,) = account.scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    endpoint = account.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    _, name, _, variant = target["ResourceId"].split("/")
    assert name == endpoint["EndpointName"] and variant in [v["VariantName"] for v in endpoint["ProductionVariants"]]
    assert policy["ResourceId"] == target["ResourceId"]


def test_a_serverless_endpoint_has_memory_and_no_instances(cloud, runs):
    root, _, stage = runs
    account = SageMakerAccount(stage, root)
    (name,) = [each["EndpointName"] for each in account.sagemaker.list_endpoints()["Endpoints"]]
    described = account.sagemaker.describe_endpoint(EndpointName=name)
    configuration = account.sagemaker.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
    (variant,) = configuration["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 3}
    assert account.scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def look(capsys, stack):
    code = main(["--stack", stack, "--region", REGION])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out.splitlines()


KINDS = ["autoscaling target", "endpoint", "endpoint configuration", "model", "image repository", "IAM role",
         "log group"]  # fmt: skip


def test_all_that_is_left_is_listed_and_its_commands_delete_it(account, runs, capsys):
    """Of this stack alone: what is called the same up to the stage stays."""
    root, _, stage = runs
    SageMakerAccount(stage, root)
    code, (*lines, last) = look(capsys, STACK)
    assert code == LEFTOVERS and [line.split("  ")[0] for line in lines] == KINDS
    assert last == f"7 resources of stack {STACK} are left ({REGION})."
    assert "$83.95 a month" in lines[1] and "cloudtrial-endpoint-prod" not in "\n".join(lines)
    for line in lines:
        for command in line[line.index("aws ") :].split(" && "):
            run_command(shlex.split(command))
    assert look(capsys, STACK)[0] == CLEAN
    code, lines = look(capsys, f"{STACK}-prod")
    assert code == LEFTOVERS and [line.split("  ")[0] for line in lines[:-1]] == KINDS[1:]  # serverless is not scaled
    assert all(f"{NAME}-prod" in line or "cloudtrial-sagemaker-prod" in line for line in lines[:-1])


def test_an_endpoint_is_found_without_its_configuration(account, capsys):
    """A destroy that AWS has refused for a while leaves it, and it is billed."""
    used = account.sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"]
    account.sagemaker.delete_endpoint_config(EndpointConfigName=used)
    code, lines = look(capsys, STACK)
    (line,) = [line for line in lines if line.startswith("endpoint  ")]
    assert code == LEFTOVERS and "billed by the hour" in line
    assert line.endswith(f"aws sagemaker delete-endpoint --endpoint-name {ENDPOINT} --region {REGION}")


def run_command(words):
    """What AWS's command line would do: `aws SERVICE ACTION --an-option VALUE` by boto3."""
    _, service, action, *options = words
    arguments, place = {}, 0
    while place < len(options):
        name = "".join(part.capitalize() for part in options[place][2:].split("-"))
        if options[place] == "--force":
            arguments["force"], place = True, place + 1
            continue
        if service in ("ecr", "logs"):
            name = name[0].lower() + name[1:]
        if name.lower() != "region":
            arguments[name] = options[place + 1]
        place += 2
    getattr(boto3.client(service), action.replace("-", "_"))(**arguments)
