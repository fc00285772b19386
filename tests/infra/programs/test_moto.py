"""infra/aws_ec2, really created in moto: what it names is there, and what the VM will ask for is what it gets."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from base64 import b64decode
from io import BytesIO

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID, set_initial_no_auth_action_count

from infra.artifact import deployment_files
from infra.aws_ec2.user_data import SETTINGS_FILE, vm_files
from infra.targets import AWS_EC2
from tests.helpers.infra.moto_cloud import ENVIRONMENT, ZONE, Account
from tests.helpers.infra.program_runs import REQUIRED, TOKEN, make_checkout, well
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.integration

SETTINGS = {
    "cloudtrial:domain": "classifier.example.com",
    "cloudtrial:certificateEmail": "you@example.com",
    "cloudtrial:hostedZoneId": ZONE,
    "cloudtrial:budgetUsd": "50",
    "cloudtrial:budgetEmail": "you@example.com",
}


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """The account after an `up` with every setting, the token included."""
    root = make_checkout(tmp_path_factory.mktemp("moto") / "checkout")
    config = REQUIRED["aws_ec2"] | SETTINGS
    run = well(run_program(root, "aws_ec2", config, secrets={"cloudtrial:apiToken": TOKEN}))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with mock_aws():
            yield Account(run, root)


@pytest.fixture(scope="module")
def vm(account) -> dict:
    """The one VM, as EC2 describes it."""
    (reservation,) = account.ec2.describe_instances()["Reservations"]
    (instance,) = reservation["Instances"]
    return instance


@pytest.fixture(scope="module")
def settings(account, vm) -> dict[str, str]:
    """The settings in the user data that EC2 would hand to the VM."""
    answer = account.ec2.describe_instance_attribute(InstanceId=vm["InstanceId"], Attribute="userData")
    user_data = yaml.safe_load(b64decode(answer["UserData"]["Value"]))
    (text,) = [entry["content"] for entry in user_data["write_files"] if entry["path"] == SETTINGS_FILE]
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_vm_runs_with_its_size_image_and_metadata_locked(account, vm):
    (image,) = account.ec2.describe_images(Owners=["self"])["Images"]
    assert (vm["State"]["Name"], vm["InstanceType"], vm["ImageId"]) == ("running", AWS_EC2.size, image["ImageId"])
    assert vm["MetadataOptions"]["HttpTokens"] == "required"
    assert vm["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert "KeyName" not in vm


def test_vm_is_reachable_on_the_web_ports_only(account, vm):
    ids = [group["GroupId"] for group in vm["SecurityGroups"]]
    (group,) = account.ec2.describe_security_groups(GroupIds=ids)["SecurityGroups"]
    opened = {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in group["IpPermissions"]}
    assert opened == {("tcp", 80, 80), ("tcp", 443, 443)}
    (out,) = group["IpPermissionsEgress"]
    assert (out["IpProtocol"], out["IpRanges"]) == ("-1", [{"CidrIp": "0.0.0.0/0"}])


def test_the_disk_is_encrypted_and_as_large_as_billed(account, vm):
    (mapping,) = vm["BlockDeviceMappings"]
    (disk,) = account.ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
    assert (disk["Encrypted"], disk["VolumeType"], disk["Size"]) == (True, "gp3", AWS_EC2.disk_gb)
    assert mapping["Ebs"]["DeleteOnTermination"]


def test_the_vms_subnet_leads_to_the_internet(account, vm):
    filters = [{"Name": "association.subnet-id", "Values": [vm["SubnetId"]]}]
    (table,) = account.ec2.describe_route_tables(Filters=filters)["RouteTables"]
    (way_out,) = [route for route in table["Routes"] if route["DestinationCidrBlock"] == "0.0.0.0/0"]
    gateways = account.ec2.describe_internet_gateways(InternetGatewayIds=[way_out["GatewayId"]])
    assert gateways["InternetGateways"][0]["Attachments"][0]["VpcId"] == vm["VpcId"]


def test_the_address_and_the_name_lead_to_the_vm(account, vm):
    (address,) = account.ec2.describe_addresses()["Addresses"]
    assert address["InstanceId"] == vm["InstanceId"]
    (zone,) = account.route53.list_hosted_zones()["HostedZones"]
    records = account.route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    (record,) = [record for record in records if record["Type"] == "A"]
    assert record["Name"].rstrip(".") == "classifier.example.com"
    assert record["ResourceRecords"] == [{"Value": address["PublicIp"]}]


def test_the_budget_tells_of_costs_by_email(account):
    client, name = account.budgets, {"AccountId": DEFAULT_ACCOUNT_ID, "BudgetName": "cloudtrial-budget"}
    budget = client.describe_budget(**name)["Budget"]
    assert float(budget["BudgetLimit"]["Amount"]) == 50 and budget["BudgetLimit"]["Unit"] == "USD"
    assert (budget["TimeUnit"], budget["BudgetType"]) == ("MONTHLY", "COST")
    alarms = client.describe_notifications_for_budget(**name)["Notifications"]
    assert [(each["NotificationType"], each["Threshold"]) for each in alarms] == [("ACTUAL", 80), ("FORECASTED", 100)]


def test_vm_fetches_the_shipped_bundle(account, settings):
    bucket, key = settings["BUNDLE_URI"].removeprefix("s3://").split("/", 1)
    body = account.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert hashlib.sha256(body).hexdigest() == settings["BUNDLE_SHA256"]
    with tarfile.open(fileobj=BytesIO(body)) as archive:
        assert set(archive.getnames()) == set(deployment_files(vm_files(https=True)))


def test_emulated_bucket_is_private_encrypted_and_tls_only(account, settings):
    bucket = settings["BUNDLE_URI"].split("/")[2]
    block = account.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert len(block) == 4 and all(block.values())
    rules = account.s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    (denied,) = json.loads(account.bucket_policies[bucket])["Statement"]
    assert (denied["Effect"], denied["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_vm_fetches_the_configured_token(account, settings):
    stored = account.ssm.get_parameter(Name=settings["TOKEN_PARAMETER"], WithDecryption=True)["Parameter"]
    assert (stored["Type"], stored["Value"]) == ("SecureString", TOKEN)
    assert stored["Version"] == int(settings["TOKEN_VERSION"])


def test_the_role_has_session_managers_policy_and_one_of_its_own(account, vm):
    profile = vm["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    (role,) = account.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    attached = account.iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
    assert [policy["PolicyName"] for policy in attached] == ["AmazonSSMManagedInstanceCore"]
    assert len(account.iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]) == 1


def test_role_reads_its_artifact_stores_its_certificate_only(account, vm, settings):
    profile = vm["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    (role,) = account.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    sts = boto3.client("sts")
    keys = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="vm")["Credentials"]
    vm_s3 = boto3.client(
        "s3",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    bundle, certificate = (
        dict(zip(("Bucket", "Key"), settings[name].removeprefix("s3://").split("/", 1), strict=True))
        for name in ("BUNDLE_URI", "CERTIFICATE_URI")
    )

    @set_initial_no_auth_action_count(0)  # from here on moto judges every request by the caller's policies
    def as_the_vm():
        vm_s3.get_object(**bundle)
        vm_s3.put_object(**certificate, Body=b"x")
        vm_s3.get_object(**certificate)
        for refused in (
            lambda: vm_s3.put_object(**bundle, Body=b"x"),
            lambda: vm_s3.put_object(**bundle | {"Key": "other"}, Body=b"x"),
            lambda: vm_s3.list_objects_v2(Bucket=bundle["Bucket"]),
            vm_s3.list_buckets,
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                refused()

    as_the_vm()
