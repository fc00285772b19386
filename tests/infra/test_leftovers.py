"""What is left after a destroy: on AWS against an emulator, on Google and Heroku against provider_responses/.

These responses are written after the services' reference, not recorded from an account.
"""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto import mock_aws

from infra.leftovers import google, heroku
from infra.leftovers.__main__ import CLEAN, INCOMPLETE, LEFTOVERS, NAMED_PARTS, exit_code, main
from infra.leftovers.gcloud import condition_flag
from infra.leftovers.search import Leftover, SearchResult, StackLocation, list_prices
from infra.naming import tags
from infra.targets import TARGETS
from tests.helpers.http_server import http_server, send
from tests.helpers.infra.moto_cloud import ENVIRONMENT, ZONE
from tests.helpers.infra.moto_cloud import Account as MotoAccount
from tests.helpers.infra.program_runs import make_checkout, rehearse, well
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.integration

RESPONSES = Path(__file__).parent / "provider_responses"
REGION = "us-east-1"
OURS = {"project": "cloudtrial", "stack": "aws_ec2"}
OTHERS = {"project": "cloudtrial", "stack": "aws_ec2-prod"}
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}
)
FOREIGN = {"project": "something", "stack": "aws_ec2"}


@pytest.fixture(autouse=True)
def _no_account_of_this_machine(monkeypatch, tmp_path):
    """Whatever credentials the machine has, no test sees them."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION",
                 "AWS_DEFAULT_REGION", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_PROJECT",
                 "GOOGLE_CLOUD_PROJECT", "HEROKU_API_KEY"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def look(capsys, *arguments, folder=Path("/nowhere")):
    """Exit code, the lines, and what went to stderr."""
    code = main(arguments, folder)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


# AWS


@dataclass(frozen=True)
class Looked:
    """What one search said."""

    code: int
    lines: list[str]
    errors: str


@dataclass(frozen=True)
class Account:
    """An emulated account: what was planted by kind, and what was found there."""

    plain: dict[str, str]
    prod: dict[str, str]
    found_plain: Looked
    found_prod: Looked


@pytest.fixture(scope="module")
def account() -> Account:
    """One account with the things of two stages and of someone else; each of our two stacks is searched once."""
    with mock_aws():
        plain, prod = plant(OURS, prefix="cloudtrial"), plant(OTHERS, prefix="cloudtrial-prod")
        plant(FOREIGN, prefix="else")
        made_by_aws = ("/aws/a/cloudtrial-vm", "/aws/a/cloudtrial-vm-prod", "/aws/a/my-cloudtrial-vm")
        for name in made_by_aws:
            boto3.client("logs", region_name=REGION).create_log_group(logGroupName=name)
        return Account(plain, prod, search_quietly("aws_ec2"), search_quietly("me/cloudtrial/aws_ec2-prod"))


def search_quietly(stack):
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main(["--stack", stack, "--region", REGION], Path("/nowhere"))
    return Looked(code, out.getvalue().splitlines(), errors.getvalue())


@pytest.fixture
def empty_account() -> Iterator[None]:
    with mock_aws():
        yield


def pairs(tags):
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def plant(tags, *, prefix):
    """One thing of every kind that the program makes, and of those that AWS leaves behind."""
    ec2, s3, iam, ssm, logs = (boto3.client(name, region_name=REGION) for name in ("ec2", "s3", "iam", "ssm", "logs"))
    machines = {"InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}

    def spec(kind):
        return [{"ResourceType": kind, "Tags": pairs(tags)}]

    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16", TagSpecifications=spec("vpc"))["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway(TagSpecifications=spec("internet-gateway"))["InternetGateway"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.42.0.0/24", TagSpecifications=spec("subnet"))["Subnet"]
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=spec("route-table"))["RouteTable"]
    group = ec2.create_security_group(GroupName=f"{prefix}-web", Description="web", VpcId=vpc,
                                      TagSpecifications=spec("security-group"))["GroupId"]  # fmt: skip
    interface = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]  # AWS's own, no tags
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    machines |= {"ImageId": image, "SubnetId": subnet["SubnetId"], "TagSpecifications": spec("instance")}
    machine, ended = (ec2.run_instances(**machines)["Instances"][0] for _ in range(2))
    ec2.terminate_instances(InstanceIds=[ended["InstanceId"]])
    volume = ec2.create_volume(
        Size=16, VolumeType="gp3", AvailabilityZone=f"{REGION}a", TagSpecifications=spec("volume")
    )
    snapshot = ec2.create_snapshot(VolumeId=volume["VolumeId"], TagSpecifications=spec("snapshot"))
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=spec("elastic-ip"))
    kept = ec2.create_image(InstanceId=machine["InstanceId"], Name=f"{prefix}-kept", TagSpecifications=spec("image"))
    s3.create_bucket(Bucket=f"{prefix}-bundle-1a2b3c4")
    s3.put_bucket_tagging(Bucket=f"{prefix}-bundle-1a2b3c4", Tagging={"TagSet": pairs(tags)})
    iam.create_role(RoleName=f"{prefix}-vm", AssumeRolePolicyDocument="{}", Tags=pairs(tags))
    iam.put_role_policy(RoleName=f"{prefix}-vm", PolicyName="read",
                        PolicyDocument=POLICY)  # fmt: skip
    policy = iam.create_policy(PolicyName=f"{prefix}-p", PolicyDocument=POLICY)
    iam.attach_role_policy(RoleName=f"{prefix}-vm", PolicyArn=policy["Policy"]["Arn"])
    iam.create_instance_profile(InstanceProfileName=f"{prefix}-vm", Tags=pairs(tags))
    iam.add_role_to_instance_profile(InstanceProfileName=f"{prefix}-vm", RoleName=f"{prefix}-vm")
    ssm.put_parameter(Name=f"/{prefix}-api-token", Value="secret", Type="SecureString", Tags=pairs(tags))
    logs.create_log_group(logGroupName=f"/{prefix}/tagged", tags=tags)
    sqs = boto3.client("sqs", region_name=REGION).create_queue(QueueName=f"{prefix}-queue", tags=tags)
    return {
        "EC2 instance": machine["InstanceId"], "Elastic IP": address["AllocationId"], "EBS volume": volume["VolumeId"],
        "machine image": kept["ImageId"], "EBS snapshot": snapshot["SnapshotId"],
        "network interface": interface["NetworkInterfaceId"], "security group": group, "subnet": subnet["SubnetId"],
        "route table": table["RouteTableId"], "internet gateway": gateway["InternetGatewayId"], "VPC": vpc,
        "S3 bucket": f"{prefix}-bundle-1a2b3c4", "IAM instance profile": f"{prefix}-vm", "IAM role": f"{prefix}-vm",
        "SSM parameter": f"/{prefix}-api-token", "log group": f"/{prefix}/tagged",
        "sqs": sqs["QueueUrl"].split("/")[-1], "ended": ended["InstanceId"],
    }  # fmt: skip


def line_of(lines, kind, name):
    """The one line about it."""
    result = [line for line in lines if line.startswith(kind) and name in line]
    assert len(result) == 1, (kind, name, lines)
    return result[0]


def test_every_kind_of_aws_leftover_is_listed_with_its_removal(account):
    result = account.found_plain
    assert (result.code, result.errors) == (LEFTOVERS, "")
    for kind, name in account.plain.items():
        if kind != "ended":
            line = line_of(result.lines, kind, name)
            assert "aws " in line.split(name, 1)[1], line
    assert result.lines[-1] == f"{len(result.lines) - 1} resources of stack aws_ec2 are left ({REGION})."


def test_the_stacks_own_profile_is_searched(empty_account, tmp_path, monkeypatch, capsys):
    """It has to be there, and the commands name it."""
    (tmp_path / "Pulumi.aws_ec2.yaml").write_text(f"config:\n  aws:region: {REGION}\n  aws:profile: work\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert main(["--stack", "aws_ec2"], tmp_path) == INCOMPLETE
    assert "aws:profile of stack aws_ec2: The config profile (work) could not be found" in capsys.readouterr().err
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = a\naws_secret_access_key = b\n")
    boto3.Session(profile_name="work").client("ec2", region_name=REGION).create_vpc(
        CidrBlock="10.1.0.0/16",
        TagSpecifications=[{"ResourceType": "vpc", "Tags": pairs(tags("aws_ec2"))}],
    )
    assert main(["--stack", "aws_ec2"], tmp_path) == LEFTOVERS
    lines = capsys.readouterr().out.splitlines()
    assert "aws --profile work ec2 delete-vpc" in line_of(lines, "VPC", "vpc-")
    assert lines[-1].endswith(f"({REGION} profile work).")


def test_a_clean_account_has_nothing_left(empty_account, capsys):
    code, lines, errors = look(capsys, "--stack", "aws_ec2", "--region", REGION)
    assert (code, lines, errors) == (CLEAN, [f"Nothing of stack aws_ec2 is left ({REGION})."], "")


def test_stages_and_other_projects_are_kept_apart(account):
    """18 planted kinds less the ended machine, and the log group that AWS named; nobody else's, tagged or not."""
    for result, ours in ((account.found_plain, account.plain), (account.found_prod, account.prod)):
        for kind, name in ours.items():
            assert kind == "ended" or line_of(result.lines, kind, name)
        assert len(result.lines) - 1 == len(ours) - 1 + 1, result.lines


def test_money_is_named_from_the_price_list(account):
    lines = account.found_plain.lines
    assert f"${list_prices()['aws_public_ipv4_hour'] * 730:.2f} a month" in line_of(lines, "Elastic IP", "eipalloc-")
    planted = account.plain["EBS volume"]
    assert f"${list_prices()['aws_ebs_gp3_gb_month'] * 16:.2f} a month" in line_of(lines, "EBS volume", planted)
    assert f"${list_prices()['aws_ec2_t3_small_hour'] * 730:.2f} a month" in line_of(lines, "EC2 instance", "i-")
    assert "no cost" in line_of(lines, "VPC", "vpc-")


def test_a_terminated_machine_is_not_left(account):
    assert not [line for line in account.found_plain.lines if account.plain["ended"] in line]


def test_the_commands_for_role_and_profile_empty_them_first(account):
    role = line_of(account.found_plain.lines, "IAM role", "cloudtrial-vm").split("aws iam ")[1:]
    assert [command.split()[0] for command in role] == ["detach-role-policy", "delete-role-policy", "delete-role"]
    profile = line_of(account.found_plain.lines, "IAM instance profile", "cloudtrial-vm").split("aws iam ")[1:]
    assert [c.split()[0] for c in profile] == ["remove-role-from-instance-profile", "delete-instance-profile"]


def test_untagged_log_group_is_matched_by_its_name(account):
    line_of(account.found_plain.lines, "log group", "/aws/a/cloudtrial-vm ")
    line_of(account.found_prod.lines, "log group", "/aws/a/cloudtrial-vm-prod ")


def test_domain_record_is_looked_up_in_the_stack_files_zone(empty_account, capsys, tmp_path):
    client = boto3.client("route53")
    zone = client.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"].rpartition("/")[2]
    record = {"Name": "app.example.com.", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "203.0.113.7"}]}
    change = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=change)
    settings = (
        f"config:\n  aws:region: {REGION}\n  cloudtrial:domain: app.example.com\n  cloudtrial:hostedZoneId: {zone}\n"
    )
    (tmp_path / "Pulumi.aws_ec2.yaml").write_text(settings)
    code, lines, _ = look(capsys, "--stack", "aws_ec2", folder=tmp_path)
    batch = json.loads(shlex.split(lines[0])[-1])
    assert code == LEFTOVERS and batch["Changes"][0]["ResourceRecordSet"] == record
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)  # the command does what it says
    assert look(capsys, "--stack", "aws_ec2", folder=tmp_path)[0] == CLEAN


def test_one_service_that_refuses_hides_no_other(empty_account, capsys, monkeypatch):
    from botocore.exceptions import ClientError

    from infra.leftovers.aws import AwsSearch

    def denied(self):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not\nallowed"}}, "ListRoles")

    monkeypatch.setattr(AwsSearch, "roles", denied)
    code, lines, errors = look(capsys, "--stack", "aws_ec2", "--region", REGION)
    assert code == INCOMPLETE and "but the search is incomplete" in lines[-1]
    assert errors.startswith("leftovers: could not search IAM roles: ") and errors.count("\n") == 1


@pytest.mark.slow
def test_every_resource_of_the_aws_program_is_listed(capsys, monkeypatch, tmp_path):
    """Created in the emulator from what the program registers, as if `pulumi destroy` had been forgotten."""
    root = make_checkout(tmp_path / "checkout")
    settings = {
        "aws:region": REGION, "cloudtrial:domain": "app.example.com", "cloudtrial:certificateEmail": "you@example.com",
        "cloudtrial:hostedZoneId": ZONE, "cloudtrial:budgetUsd": "50", "cloudtrial:budgetEmail": "you@example.com",
    }  # fmt: skip
    run = well(run_program(root, "aws_ec2-prod", settings, secrets={"cloudtrial:apiToken": "a-token-nobody-may-see"}))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        zone = MotoAccount(run, root).real[ZONE]
        lines = "\n".join(f"  {key}: {value}" for key, value in (settings | {"cloudtrial:hostedZoneId": zone}).items())
        (tmp_path / "Pulumi.aws_ec2-prod.yaml").write_text(f"config:\n{lines}\n")
        code, result, errors = look(capsys, "--stack", "aws_ec2-prod", folder=tmp_path)
        other = look(capsys, "--stack", "aws_ec2", "--region", REGION)
    assert (code, errors) == (LEFTOVERS, "")
    kinds = {line.split("  ")[0] for line in result[:-1]}
    assert kinds >= {
        "EC2 instance", "Elastic IP", "security group", "subnet", "route table", "internet gateway", "VPC", "S3 bucket",
        "IAM instance profile", "IAM role", "SSM parameter", "DNS record", "budget",
    }, result  # fmt: skip
    assert other[0] == CLEAN, other


# Google and Heroku


@contextmanager
def serving(name: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server with the responses of provider_responses/NAME.json: its URL, and the requests with their keys."""
    responses = json.loads((RESPONSES / f"{name}.json").read_text())
    requests: list[tuple[str, str]] = []

    def respond(request, body):
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items() if key in ("prefix", "pageToken")}
        key = f"{request.command} {url.path}" + "".join(f"?{name}={value}" for name, value in query.items())
        requests.append((key, request.headers.get("Authorization", "")))
        is_billing = "/billingbudgets/" in key
        assert request.headers.get("X-Goog-User-Project") == ("my-project" if is_billing else None)
        if key.endswith(":getIamPolicy"):
            # Google answers an older version under made-up roles, roles/x_withcond_<hash>
            assert json.loads(body) == {"options": {"requestedPolicyVersion": 3}}
        response = responses.get(key, {"status": 404, "body": {"error": {"code": 404, "message": f"no {key}"}}})
        status, answer = 200, response
        if isinstance(response, dict):
            status, answer = response.get("status", 200), response.get("body", response)
        send(request, status, json.dumps(answer), Content_Type="application/json; charset=UTF-8")

    with http_server(respond) as port:
        yield f"http://127.0.0.1:{port}", requests


def ask_google(name, capsys, monkeypatch, stack="gcp_function", folder=Path("/nowhere")):
    with serving(name) as (url, requests):
        monkeypatch.setattr(google, "BASE", url + "/{api}")
        monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "a-token")
        result = look(capsys, "--stack", stack, "--project", "my-project", folder=folder)
    assert {key for _, key in requests} == {"Bearer a-token"}
    return result


GOOGLE_LEFT = {
    "function ": "gcloud functions delete cloudtrial-function --gen2 --region us-central1",
    "Cloud Run service": "gcloud run services delete cloudtrial-function --region us-central1",
    "image repository": "gcloud artifacts repositories delete cloudtrial-function --location us-central1",
    "bucket": "gcloud storage rm --recursive gs://my-project-cloudtrial-function",
    "secret": "gcloud secrets delete cloudtrial-function",
    "service account  cloudtrial-function@": "gcloud iam service-accounts delete cloudtrial-function@my-project.iam",
    "service account  cloudtrial-build@": "gcloud iam service-accounts delete cloudtrial-build@my-project.iam",
    "grant to a deleted account  roles/logging": "gcloud projects remove-iam-policy-binding my-project --member='del",
    "grant to a deleted account  roles/storage": "--role=roles/storage.objectViewer --condition='expression=resource.",
    "function source": "gcloud storage rm gs://gcf-v2-sources-123456789012-us-central1/cloudtrial-function/",
    "function image  my--project__us--central1__cloudtrial--function ": "gcloud artifacts packages delete my--pro",
    "function image  my--project__us--central1__cloudtrial--function/cache": "gcloud artifacts packages delete my--",
}


def test_every_kind_of_google_leftover_is_listed_on_all_pages(capsys, monkeypatch):
    code, lines, errors = ask_google("google_left", capsys, monkeypatch)
    squeezed = [" ".join(line.split()) for line in lines]
    assert (code, errors) == (LEFTOVERS, "")
    for start, command in GOOGLE_LEFT.items():
        result = [
            line for line in squeezed if f"{line} ".startswith(" ".join(start.split()) + start[len(start.rstrip()) :])
        ]
        assert [line for line in result if command in line], (start, squeezed)
    assert len(lines) - 1 == len(GOOGLE_LEFT)
    counted = f"{len(GOOGLE_LEFT)} resources of stack gcp_function are left (my-project us-central1)"
    assert lines[-1] == f"{counted}, 1 kept by the cloud itself."
    assert not [line for line in lines if "prod" in line or "someone" in line]


CONDITION = {"expression": 'a.startsWith("b")', "title": "sources", "description": "Only these"}


@pytest.mark.parametrize(
    ("condition", "flag"),
    [
        (None, "--condition=None"),
        ({}, "--condition=None"),
        (CONDITION, '--condition=expression=a.startsWith("b"),title=sources,description=Only these'),
        (CONDITION | {"description": ""}, '--condition=expression=a.startsWith("b"),title=sources'),
        (
            CONDITION | {"expression": 'f("it\'s", 1)'},
            '--condition=^;^expression=f("it\'s", 1);title=sources;description=Only these',
        ),
    ],
    ids=["none", "empty", "whole", "no-description", "comma-and-quotes"],
)
def test_a_condition_is_one_word_of_the_shell_as_gcloud_wants_it(condition, flag):
    assert shlex.split(condition_flag(condition)) == [flag]


def test_the_command_for_a_conditional_grant_names_its_condition(capsys, monkeypatch):
    _, lines, _ = ask_google("google_left", capsys, monkeypatch)
    command = line_of(lines, "grant to a deleted account", "roles/storage.objectViewer").partition("gcloud ")[2]
    words = shlex.split(command)
    assert words[-3] == "--role=roles/storage.objectViewer"
    assert words[-2].endswith('gcf-v2-sources-")),title=sources-of-functions,description=Only the buckets that Google '
                              "copies sources to")  # fmt: skip


def test_a_budget_is_listed_of_the_stacks_own_project_alone(capsys, monkeypatch, tmp_path):
    """A billing account has the budgets of many projects, perhaps of another with a stack of the same name."""
    account = "0123AB-4567CD-89EF01"
    (tmp_path / "Pulumi.gcp_function.yaml").write_text(
        f"config:\n  cloudtrial:billingAccount: {account}\n", encoding="utf-8"
    )
    _, lines, errors = ask_google("google_left", capsys, monkeypatch, folder=tmp_path)
    budgets = [line for line in lines if line.startswith("budget ")]
    name = "11111111-1111-1111-1111-111111111111"
    assert len(budgets) == 1 and errors == ""
    path = f"billingAccounts/{account}/budgets/{name}"
    assert budgets[0].endswith(f"gcloud billing budgets delete {path} --billing-project my-project --quiet")


def test_google_prices_and_dates_stand_in_the_lines(capsys, monkeypatch):
    _, lines, _ = ask_google("google_left", capsys, monkeypatch)
    price = list_prices()["gcp_artifact_registry_gib_month"] * 3
    assert f"since 2026-11-20  ${price:.2f} a month" in line_of(lines, "image repository", "cloudtrial-function")
    assert "1 instances kept warm" in line_of(lines, "Cloud Run service", "cloudtrial-function")


@pytest.mark.parametrize("stack", ["gcp_cloudrun", "gcp_function-prod"])
def test_what_a_google_program_names_is_what_is_looked_for(stack):
    """Service accounts carry no labels, so they are found by these names alone; the rest carries the stack's labels."""
    run = well(rehearse(stack, token=True))
    location = StackLocation(stack, TARGETS[stack.partition("-")[0]], "us-central1", "example-project")
    accounts = {account.unwrapped_inputs["accountId"] for account in run.of_type("Account")}
    assert accounts and accounts == location.resource_names(NAMED_PARTS[location.target.name])
    for kind in ("Repository", "Bucket", "Secret", "Service", "Function"):
        for resource in run.of_type(kind):
            if not resource.type.startswith("gcp:projects/"):
                assert location.has_stack_tags(resource.unwrapped_inputs["labels"]), resource


@pytest.mark.parametrize(
    ("kept", "errors", "code"),
    [
        ([True], (), CLEAN),
        ([True, False], (), LEFTOVERS),
        ([True, False], ("a",), LEFTOVERS),
        ([True], ("a",), INCOMPLETE),
    ],
)
def test_what_google_keeps_of_every_function_is_no_failure(kept, errors, code):
    """`make leftovers` ends a job that has closed a pull request."""
    found = tuple(Leftover("function source", "a", "rm", kept_by_cloud=each) for each in kept)
    assert exit_code(SearchResult(found, errors)) == code


def test_google_buckets_are_listed_whole_unless_shared(capsys, monkeypatch):
    code, lines, _ = ask_google("google_alone", capsys, monkeypatch)
    assert code == LEFTOVERS and [line.split("  ")[0] for line in lines[:-1]] == [
        *["bucket of function sources"] * 3, "repository of function images"]  # fmt: skip
    assert not [line for line in lines if "europe-west1" in line]


@pytest.mark.parametrize("stack", ["gcp_function", "gcp_cloudrun", "gcp_cloudrun-prod"])
def test_clean_project_and_disabled_api_have_no_leftovers(capsys, monkeypatch, stack):
    code, lines, errors = ask_google("google_clean", capsys, monkeypatch, stack)
    assert (code, errors) == (CLEAN, "")
    assert lines == [f"Nothing of stack {stack} is left (my-project us-central1)."]


def test_refused_google_calls_are_reported(capsys, monkeypatch):
    code, _, errors = ask_google("google_denied", capsys, monkeypatch)
    assert code == INCOMPLETE
    assert "leftovers: could not search service accounts: 403: Permission 'iam.serviceAccounts.list' denied" in errors
    assert "leftovers: could not search functions: Google could not reach projects/my-project/loc" in errors


def ask_heroku(name, capsys, monkeypatch):
    with serving(name) as (url, requests):
        monkeypatch.setattr(heroku, "BASE", url)
        monkeypatch.setenv("HEROKU_API_KEY", "a-key")
        result = look(capsys, "--stack", "heroku", "--app", "my-classifier")
    assert {key for _, key in requests} == {"Bearer a-key"}
    return result


def test_leftover_heroku_app_is_listed_with_price_and_add_ons(capsys, monkeypatch):
    code, lines, errors = ask_heroku("heroku_left", capsys, monkeypatch)
    assert (code, errors) == (LEFTOVERS, "")
    app = line_of(lines, "Heroku app", "my-classifier")
    assert f"since 2026-11-20  ${list_prices()['heroku_basic_month']:.2f} a month for 1 basic" in app
    assert app.endswith("heroku apps:destroy --app my-classifier --confirm my-classifier")
    assert "as plan papertrail:choklad costs" in line_of(lines, "Heroku add-on", "papertrail-round-12345")
    assert lines[-1] == "2 resources of stack heroku are left (my-classifier)."


@pytest.mark.parametrize("name", ["heroku_clean", "heroku_someone_elses"])
def test_missing_or_foreign_heroku_app_is_no_leftover(capsys, monkeypatch, name):
    assert ask_heroku(name, capsys, monkeypatch) == (CLEAN, ["Nothing of stack heroku is left (my-classifier)."], "")


def test_refused_heroku_key_is_one_line(capsys, monkeypatch):
    code, _, errors = ask_heroku("heroku_bad_key", capsys, monkeypatch)
    assert code == INCOMPLETE and "set HEROKU_API_KEY" in errors and errors.count("\n") == 1


def test_unreachable_heroku_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(heroku, "BASE", "http://127.0.0.1:9")
    monkeypatch.setenv("HEROKU_API_KEY", "a-key")
    code, _, errors = look(capsys, "--stack", "heroku", "--app", "my-classifier")
    assert code == INCOMPLETE and "does not answer" in errors and errors.count("\n") == 1


# Location and credentials


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--stack", "azure"], "'azure' names no target", id="stack"),
        pytest.param(["--stack", "aws_ec2"], "give --region, or set aws:region", id="region"),
        pytest.param(["--stack", "gcp_cloudrun"], "give --project, or set gcp:project", id="project"),
        pytest.param(["--stack", "heroku"], "give --app, or set cloudtrial:appName", id="app"),
        pytest.param(["--stack", "heroku", "--app", "../account"], "cannot be '../account'", id="odd-app"),
        pytest.param(["--stack", "aws_ec2", "--region", REGION], "AWS_PROFILE", id="no-aws-credentials"),
        pytest.param(
            ["--stack", "gcp_function", "--project", "p"], "gcloud auth application-default login", id="no-adc"
        ),
        pytest.param(["--stack", "heroku", "--app", "a"], "HEROKU_API_KEY", id="no-heroku-key"),
    ],
)
def test_missing_location_or_credentials_is_one_line(capsys, arguments, says):
    code, lines, errors = look(capsys, *arguments)
    assert (code, lines) == (INCOMPLETE, []) and says in errors and errors.count("\n") == 1


def test_a_stack_file_that_is_no_yaml_is_one_line(capsys, tmp_path):
    (tmp_path / "Pulumi.aws_ec2.yaml").write_text("config: [\n")
    code, _, errors = look(capsys, "--stack", "aws_ec2", folder=tmp_path)
    assert code == INCOMPLETE and "Pulumi.aws_ec2.yaml cannot be read" in errors and errors.count("\n") == 1


def test_every_target_has_its_names():
    assert set(NAMED_PARTS) == set(TARGETS)
