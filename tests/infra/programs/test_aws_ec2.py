"""infra/aws_ec2: what is open, what the VM may do, what it is told, what `up` waits for, and what is refused."""

from __future__ import annotations

import json

import pytest
import yaml

from infra.artifact import deployment_files
from infra.aws_ec2.user_data import HOST_FILE, SETTINGS_FILE, vm_files
from infra.targets import AWS_EC2
from tests.helpers.infra.program_runs import REQUIRED, TOKEN, make_checkout, packed, refused, rehearse, well
from tests.offline_engine import fake_provider
from tests.offline_engine.engine import UNKNOWN, ProgramResult, Resource, diff, run_program
from tests.offline_engine.fake_provider import PUBLIC_IP, VM_IP
from tests.offline_engine.policy_check import find_violations

pytestmark = pytest.mark.integration

DOMAIN = {"domain": "classifier.example.com", "certificateEmail": "you@example.com"}
ZONE = {"hostedZoneId": "Z0123456789ABC"}
BUDGET = {"budgetUsd": "50", "budgetEmail": "money@example.com"}


@pytest.fixture(scope="module")
def plain() -> ProgramResult:
    """No setting but the region."""
    return well(rehearse("aws_ec2"))


@pytest.fixture(scope="module")
def full() -> ProgramResult:
    """A token, a domain and its zone."""
    return well(rehearse("aws_ec2", DOMAIN | ZONE, token=True))


@pytest.fixture(params=["plain", "full"])
def run(request) -> ProgramResult:
    """Both."""
    return request.getfixturevalue(request.param)


def settings_of(run: ProgramResult) -> dict[str, str]:
    """What the user data tells the VM."""
    return dict(line.split("=", 1) for line in written(run, SETTINGS_FILE).splitlines())


def written(run: ProgramResult, path: str) -> str:
    """The contents of a file of the user data."""
    files = yaml.safe_load(run.single("Instance").unwrapped_inputs["userData"])["write_files"]
    (text,) = [entry["content"] for entry in files if entry["path"] == path]
    return text


def allowed(run: ProgramResult) -> list[tuple[list[str], list[str]]]:
    """(actions, resources) that the role's own policy allows."""
    statements = json.loads(run.single("RolePolicy").unwrapped_inputs["policy"])["Statement"]
    return [(each["Action"], each["Resource"]) for each in statements if each["Effect"] == "Allow"]


def needs(resource: Resource, *others: Resource) -> bool:
    return {other.urn for other in others} <= set(resource.dependencies)


# What is open


@pytest.mark.parametrize(("name", "ports"), [("plain", {80}), ("full", {80, 443})])
def test_only_the_webs_ports_are_open(name, ports, request):
    run = request.getfixturevalue(name)
    rules = [rule.inputs for rule in run.of_type("SecurityGroupIngressRule")]
    assert {(rule["ipProtocol"], rule["fromPort"], rule["toPort"]) for rule in rules} == {("tcp", p, p) for p in ports}
    group = run.single("SecurityGroup")
    assert {rule["securityGroupId"] for rule in rules} == {group.id}
    assert not {"ingress", "egress"} & group.inputs.keys()
    assert run.single("Instance").inputs["vpcSecurityGroupIds"] == [group.id]


def test_vm_has_no_ssh_key_and_requires_metadata_sessions(run):
    vm = run.single("Instance").inputs
    assert "keyName" not in vm
    assert vm["metadataOptions"] == {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1}


def test_a_shell_comes_through_session_manager(run):
    attached = run.single("RolePolicyAttachment").inputs
    assert attached["policyArn"] == "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    assert attached["role"] == run.single("Role").id
    assert run.outputs["session"] == f"aws ssm start-session --region us-east-1 --target {run.single('Instance').id}"
    assert run.outputs["instance_id"] == run.single("Instance").id


def test_the_disk_is_encrypted_and_marked(run):
    vm = run.single("Instance").inputs
    disk = vm["rootBlockDevice"]
    assert (disk["encrypted"], disk["volumeType"], disk["volumeSize"]) == (True, "gp3", AWS_EC2.disk_gb)
    assert disk["tags"] == vm["tags"]


# What is shipped, and who may read it


def test_bucket_is_private_encrypted_tls_only_and_destroyed(run):
    bucket = run.single("aws:s3/bucket:Bucket")
    assert bucket.inputs["forceDestroy"] is True
    flags = {key: value for key, value in run.single("BucketPublicAccessBlock").inputs.items() if key != "bucket"}
    assert len(flags) == 4 and all(flags.values())
    (rule,) = run.single("BucketServerSideEncryptionConfiguration").inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "AES256"}
    (denied,) = json.loads(run.single("BucketPolicy").inputs["policy"])["Statement"]
    assert (denied["Effect"], denied["Principal"]) == ("Deny", "*")
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    arn = bucket.outputs["arn"]
    assert denied["Resource"] == [arn, f"{arn}/*"]


def test_the_bundle_is_named_by_its_contents(run):
    assert run.single("BucketObjectv2").retain_on_delete  # until the bucket goes: what is sent again has the same name
    bundle = run.single("BucketObjectv2").inputs
    sha256 = bundle["source"]["hash"]
    assert bundle["key"] == f"bundle-{sha256[:16]}.tar.gz"
    assert bundle["source"]["path"] == "./.build/aws_ec2.tar.gz"
    settings = settings_of(run)
    assert settings["BUNDLE_URI"] == f"s3://{run.single('aws:s3/bucket:Bucket').id}/{bundle['key']}"
    assert settings["BUNDLE_SHA256"] == sha256


@pytest.mark.parametrize(("settings", "host"), [({}, PUBLIC_IP), (DOMAIN, DOMAIN["domain"])], ids=["address", "domain"])
def test_the_vm_answers_to_its_domain_or_else_its_address(settings, host, tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    config = {f"cloudtrial:{key}": value for key, value in settings.items()}
    run = well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"] | config))
    assert written(run, HOST_FILE) == f"server_name {host};\n"
    assert settings or needs(run.single("Instance"), run.single("Eip"))
    shipped = {name for name in packed(checkout, "aws_ec2") if name.startswith("vm/")}
    assert shipped == set(vm_files(https=bool(settings)))


def test_vm_of_the_onnx_engine_gets_no_torch_and_starts_onnx(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    run = well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"] | {"cloudtrial:engine": "onnx"}))
    assert settings_of(run)["ENGINE"] == "onnx"
    files = packed(checkout, "aws_ec2")
    assert set(files) == set(deployment_files(vm_files(https=False), "onnx"))
    assert b"onnxruntime==" in files["requirements.txt"] and b"torch==" not in files["requirements.txt"]


def test_role_without_token_and_domain_reads_one_object_only(plain):
    bucket, bundle = plain.single("aws:s3/bucket:Bucket"), plain.single("BucketObjectv2")
    assert allowed(plain) == [(["s3:GetObject"], [f"{bucket.outputs['arn']}/{bundle.inputs['key']}"])]


def test_role_may_read_the_token_and_store_the_certificate(full):
    bucket = full.single("aws:s3/bucket:Bucket")
    assert allowed(full)[1:] == [
        (["ssm:GetParameter"], [full.single("Parameter").outputs["arn"]]),
        (["s3:GetObject", "s3:PutObject"], [f"{bucket.outputs['arn']}/certificate-classifier.example.com.pem"]),
    ]


@pytest.mark.parametrize("name", ["plain", "full"])
def test_session_managers_policy_opens_no_other_parameter(name, request):
    run = request.getfixturevalue(name)
    statements = json.loads(run.single("RolePolicy").unwrapped_inputs["policy"])["Statement"]
    (denied,) = [each for each in statements if each["Effect"] == "Deny"]
    assert denied["Action"] == ["ssm:GetParameter", "ssm:GetParameters"]
    if name == "plain":
        assert denied["Resource"] == ["*"]
    else:
        assert denied["NotResource"] == [run.single("Parameter").outputs["arn"]]


def test_only_ec2_may_take_the_role(run):
    (statement,) = json.loads(run.single("Role").inputs["assumeRolePolicy"])["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert run.single("InstanceProfile").inputs["role"] == run.single("Role").id
    assert run.single("Instance").inputs["iamInstanceProfile"] == run.single("InstanceProfile").id


# The token


def test_token_is_in_one_resource_and_nowhere_in_clear(full):
    parameter = full.single("Parameter")
    assert (parameter.inputs["type"], parameter.unwrapped_inputs["value"]) == ("SecureString", TOKEN)
    assert [r.name for r in full.resources.values() if TOKEN in json.dumps(r.unwrapped_inputs)] == ["api-token"]
    assert TOKEN not in "".join(resource.cleartext for resource in full.resources.values())
    assert TOKEN not in json.dumps(full.outputs)


def test_user_data_names_the_token_parameter_and_its_version(full):
    parameter = full.single("Parameter")
    settings = settings_of(full)
    assert settings["TOKEN_PARAMETER"] == parameter.inputs["name"] == "/cloudtrial-api-token"
    assert settings["TOKEN_VERSION"] == str(parameter.outputs["version"])
    assert isinstance(full.single("Instance").inputs["userData"], str)  # not marked secret: a preview shows it


def test_a_token_needs_https_or_an_explicit_setting():
    """With HTTPS, or with the setting, other tests deploy one."""
    message = refused(rehearse("aws_ec2", {"allowTokenOverHttp": "false"}, token=True))
    assert message.startswith("cloudtrial:apiToken would travel in clear: set cloudtrial:domain and")
    assert "pulumi config set cloudtrial:allowTokenOverHttp true" in message


def test_without_a_token_there_is_no_parameter(plain):
    assert plain.of_type("Parameter") == []
    assert "TOKEN_PARAMETER" not in settings_of(plain)


# The VM


def test_new_user_data_is_a_new_vm_and_a_new_image_is_not(run):
    vm = run.single("Instance")
    assert vm.inputs["userDataReplaceOnChange"] is True
    assert vm.ignore_changes == ("ami",)
    asked = [arguments["name"] for token, arguments in run.invokes if token.endswith("getParameter")]
    assert asked == ["/aws/service/debian/release/13/latest/amd64"]


def test_another_revision_is_another_vm_and_nothing_else(plain):
    found = settings_of(well(rehearse("aws_ec2", {"revision": "r7"})))
    assert found == settings_of(plain) | {"REVISION": "r7"}


def test_the_vm_has_its_rights_and_its_way_out_before_it_boots(run):
    (outwards,) = run.of_type("SecurityGroupEgressRule")
    assert needs(
        run.single("Instance"),
        run.single("RolePolicy"),
        run.single("RolePolicyAttachment"),
        run.single("RouteTableAssociation"),
        run.single("BucketObjectv2"),
        outwards,
    )
    assert (outwards.inputs["ipProtocol"], outwards.inputs["cidrIpv4"]) == ("-1", "0.0.0.0/0")


def test_the_subnet_is_in_a_zone_that_has_the_size(plain):
    asked = [arguments for token, arguments in plain.invokes if token.endswith("getInstanceTypeOfferings")]
    assert asked[0]["filters"] == [{"name": "instance-type", "values": [AWS_EC2.size]}]
    subnet = plain.single("Subnet")
    assert subnet.inputs["availabilityZone"] == "us-east-1c"  # b has it as well, and fewer of the others
    assert subnet.ignore_changes == ("availabilityZone",)
    assert plain.single("Vpc").inputs["cidrBlock"] == "10.42.0.0/16"


def test_the_zone_has_the_size_though_another_has_more_of_them():
    run = well(rehearse("aws_ec2", {"size": "c7a.large"}))
    assert run.single("Subnet").inputs["availabilityZone"] == "us-east-1e"


@pytest.mark.parametrize("size", ["t3.small", "t4g.small"])
def test_burstable_vm_says_that_cpu_above_baseline_is_billed(size):
    run = well(rehearse("aws_ec2", {"size": size}))
    assert run.single("Instance").inputs["creditSpecification"] == {"cpuCredits": "unlimited"}


def test_a_graviton_vm_is_another_one_with_an_arm64_image(tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    before, after = (
        well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"] | {"cloudtrial:size": size}))
        for size in ("t3.small", "t4g.small")
    )
    asked = [arguments["name"] for token, arguments in after.invokes if token.endswith("getParameter")]
    assert asked == ["/aws/service/debian/release/13/latest/arm64"]
    assert after.single("Instance").inputs["ami"] != before.single("Instance").inputs["ami"]
    assert diff(before, after) == {
        "Instance vm": "replace",
        "Command boots": "replace",
        "EipAssociation address": "replace",
        "Command ready": "replace",
    }


def test_size_without_cpu_credits_gets_no_credit_setting():
    run = well(rehearse("aws_ec2", {"size": "c7i.large"}))
    vm = run.single("Instance").inputs
    assert vm["instanceType"] == run.outputs["size"] == "c7i.large"
    assert "creditSpecification" not in vm


# The address, and what `up` waits for


def test_the_address_is_the_vms_and_needs_the_gateway(run):
    attached, address = run.single("EipAssociation"), run.single("Eip")
    assert attached.inputs["instanceId"] == run.single("Instance").id
    assert attached.inputs["allocationId"] == address.outputs["allocationId"]
    assert needs(address, run.single("InternetGateway"))
    assert run.outputs["address"] == PUBLIC_IP


def test_outputs_are_the_contract(plain):
    wanted = {"url": f"http://{PUBLIC_IP}", "target": "aws_ec2", "region": "us-east-1", "size": AWS_EC2.size}
    assert {key: plain.outputs[key] for key in wanted} == wanted
    assert len(plain.outputs["model_version"]) == 12
    assert "aws:index/getRegion:getRegion" in [token for token, _ in plain.invokes]  # not the default by chance


def test_domain_gives_an_https_url_and_a_record_of_the_address(full):
    assert full.outputs["url"] == "https://classifier.example.com"
    record = full.single("Record").inputs
    assert (record["name"], record["type"], record["records"]) == ("classifier.example.com", "A", [PUBLIC_IP])
    assert record["zoneId"] == ZONE["hostedZoneId"]
    settings = settings_of(full)
    assert (settings["DOMAIN"], settings["CERTIFICATE_EMAIL"]) == tuple(DOMAIN.values())


def test_a_domain_without_a_zone_leaves_dns_to_its_owner():
    run = well(rehearse("aws_ec2", DOMAIN))
    assert run.of_type("Record") == []
    assert (run.outputs["url"], run.outputs["address"]) == ("https://classifier.example.com", PUBLIC_IP)


def command(run: ProgramResult, name: str) -> Resource:
    """One of the two that ask: "boots" the new VM, "ready" the url."""
    (found,) = [each for each in run.of_type("Command") if each.name == name]
    return found


def test_a_new_vm_proves_itself_before_it_gets_the_address(run):
    boots, vm = command(run, "boots"), run.single("Instance")
    assert boots.inputs["triggers"] == [settings_of(run)["GIT_SHA"], vm.id]
    assert boots.inputs["environment"]["URL"] == run.outputs["url"]
    assert needs(boots, vm, *run.of_type("SecurityGroupIngressRule"))
    assert needs(run.single("EipAssociation"), boots)
    advice = boots.inputs["environment"]["ADVICE"]
    assert "The VM before it still serves." in advice
    assert f"pulumi up --replace '{vm.urn}'" in advice and run.outputs["session"] in advice


def test_the_new_vms_address_is_in_a_file_and_no_input(tmp_path, monkeypatch):
    """After a refresh a VM's public address is the stack's, or any other: no later plan may show that."""
    checkout = make_checkout(tmp_path / "checkout")
    first = well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"]))
    file = checkout / command(first, "boots").inputs["environment"]["ADDRESS_FILE"]
    assert file == checkout / ".build/aws_ec2.address" and file.read_text() == f"{VM_IP}\n"
    monkeypatch.setattr(fake_provider, "VM_IP", PUBLIC_IP)
    refreshed = well(run_program(checkout, "aws_ec2", REQUIRED["aws_ec2"]))
    assert file.read_text() == f"{PUBLIC_IP}\n" and diff(first, refreshed) == {}


def test_up_waits_for_the_service_behind_the_url_of_each_new_vm(run):
    ready, vm = command(run, "ready"), run.single("Instance")
    given = ready.inputs["environment"]
    assert "ADDRESS_FILE" not in given
    assert given["URL"] == run.outputs["url"]
    assert settings_of(run)["GIT_SHA"] == given["GIT_SHA"]
    assert run.outputs["session"] in given["ADVICE"] and "/var/log/cloud-init-output.log" in given["ADVICE"]
    assert int(given["TIMEOUT_S"]) >= AWS_EC2.boot_timeout_s
    assert ready.inputs["triggers"] == [given["GIT_SHA"], vm.id]
    assert needs(ready, run.single("EipAssociation"), *run.of_type("Record"))


@pytest.mark.parametrize(("name", "settings"), [("plain", {}), ("full", DOMAIN | ZONE)])
def test_preview_knows_the_resources_and_not_their_ids(name, settings, request):
    run = request.getfixturevalue(name)
    preview = well(rehearse("aws_ec2", settings, token=name == "full", preview=True))
    assert set(preview.resources) == set(run.resources)
    assert preview.single("Instance").inputs["userData"] == UNKNOWN


# Money


def test_a_budget_counts_the_account_and_tells_twice():
    """A filter by tag would find nothing on the first day; see the program."""
    run = well(rehearse("aws_ec2-prod", BUDGET))
    budget = run.single("Budget").inputs
    assert (budget["name"], budget["limitAmount"], budget["limitUnit"]) == ("cloudtrial-budget-prod", "50", "USD")
    assert (budget["budgetType"], budget["timeUnit"]) == ("COST", "MONTHLY")
    assert not {"costFilters", "filterExpression"} & budget.keys()
    assert [
        (each["notificationType"], each["comparisonOperator"], each["threshold"], each["thresholdType"])
        for each in budget["notifications"]
    ] == [("ACTUAL", "GREATER_THAN", 80, "PERCENTAGE"), ("FORECASTED", "GREATER_THAN", 100, "PERCENTAGE")]
    assert all(each["subscriberEmailAddresses"] == ["money@example.com"] for each in budget["notifications"])
    assert find_violations(run.resources.values()) == []


def test_without_a_setting_there_is_no_budget(plain):
    assert plain.of_type("Budget") == []


# All of it


def test_every_rule_is_kept(run):
    assert find_violations(run.resources.values()) == []


def test_nothing_stays_after_a_destroy(run):
    for resource in run.resources.values():
        assert not {"disableApiTermination", "skipDestroy"} & resource.inputs.keys()


def test_a_stage_has_names_of_its_own():
    run = well(rehearse("aws_ec2-prod", token=True))
    assert run.single("aws:s3/bucket:Bucket").name == "cloudtrial-bundle-prod"
    assert run.single("Parameter").inputs["name"] == "/cloudtrial-api-token-prod"
    assert run.single("Instance").inputs["tags"] == {
        "project": "cloudtrial",
        "stack": "aws_ec2-prod",
        "Name": "cloudtrial-vm-prod",
    }


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param({"size": "t2.micro"}, "one of t3.micro, t3.small", id="unknown-size"),
        pytest.param({"size": "t4g.nano"}, "one of t3.micro, t3.small", id="unsold-arm"),
        pytest.param({"domain": "a.example.com"}, "needs cloudtrial:certificateEmail", id="domain-without-email"),
        pytest.param({"certificateEmail": "a@example.com"}, "without cloudtrial:domain", id="email-without-domain"),
        pytest.param(ZONE, "without cloudtrial:domain", id="zone-without-domain"),
        pytest.param(DOMAIN | {"domain": "https://a.example.com"}, "a name such as", id="url-for-domain"),
        pytest.param(DOMAIN | {"domain": "localhost"}, "a name such as", id="domain-without-a-dot"),
        pytest.param(DOMAIN | {"certificateEmail": "a@b.de;reboot"}, "an address such as", id="email-with-a-command"),
        pytest.param(DOMAIN | {"hostedZoneId": "example.com"}, "a zone of Route 53", id="name-for-zone"),
        pytest.param({"budgetUsd": "50"}, "need each other", id="budget-for-nobody"),
        pytest.param({"budgetEmail": "a@example.com"}, "need each other", id="budget-of-nothing"),
        pytest.param(BUDGET | {"budgetUsd": "12.50"}, "a whole number from 1", id="budget-with-cents"),
        pytest.param(BUDGET | {"budgetUsd": "0"}, "a whole number from 1", id="budget-of-zero"),
        pytest.param(BUDGET | {"budgetEmail": "you"}, "an address such as", id="budget-for-no-address"),
    ],
)
def test_invalid_setting_is_refused(config, reason):
    assert reason in refused(rehearse("aws_ec2", config))
