"""AWS EC2: one VM with nginx in front of the service, in a network of its own, behind an address that stays.

New code, or another size, is a new VM. The old one serves until the new one has proven itself on its own address; only
then does the stack's address lead to it.
There is no SSH; `pulumi stack output session` is the command that opens a shell through Session Manager.
"""

from collections import Counter

import pulumi
import pulumi_aws as aws

from infra.artifact import deployment_files, store_files, write_line, write_tar_gz
from infra.aws_ec2.user_data import MODELS_FOLDER, render, vm_files
from infra.common import StackConfig, export_endpoint
from infra.errors import ConfigError, TokenInClear
from infra.git_sha import deployed_git_sha
from infra.models import followed_env, model_env
from infra.naming import resource_name, tags
from infra.readiness import wait_until_ready
from infra.targets import AWS_EC2 as TARGET
from infra.targets import EC2_SIZES

ANYWHERE = "0.0.0.0/0"
DEBIAN = 13
IMAGE = f"/aws/service/debian/release/{DEBIAN}/latest"  # Debian's own parameters: the newest image of the release
CERTIFICATE_TIMEOUT_S = 600  # on top of the boot, for DNS and the certificate

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = rf"(?=.{{4,253}}$)({LABEL}\.)+[a-z]([a-z0-9-]{{0,61}}[a-z0-9])"
EMAIL = rf"[A-Za-z0-9._%+-]{{1,64}}@({LABEL}\.)+[a-z]{{2,63}}"
ZONE = r"Z[A-Z0-9]{4,31}"

# 1. Settings

config = StackConfig()
stored = config.stored_model(TARGET)  # the VM goes on to follow the alias: classifier-model.timer
model = config.model(stored)
engine = config.engine(model)
api_token = config.api_token()
access_env = config.access_env(api_token)
allow_token_over_http = config.flag("allowTokenOverHttp")
revision = config.revision()
size = config.choice("size", TARGET.size, EC2_SIZES)
domain = config.optional("domain", DOMAIN, "a name such as classifier.example.com, in small letters")
email = config.optional("certificateEmail", EMAIL, "an address such as you@example.com")
zone = config.optional("hostedZoneId", ZONE, "a zone of Route 53 such as Z0123456789ABC")
https = domain is not None
budget_usd = config.integer("budgetUsd", 0, 1, 1_000_000)
budget_email = config.optional("budgetEmail", EMAIL, "an address such as you@example.com")
config.reject_unknown()
if domain and not email:
    raise ConfigError("cloudtrial:domain needs cloudtrial:certificateEmail: Let's Encrypt makes the certificate for it")
if not domain and (email or zone):
    raise ConfigError("cloudtrial:certificateEmail and cloudtrial:hostedZoneId mean nothing without cloudtrial:domain")
if bool(budget_usd) != bool(budget_email):
    raise ConfigError(
        "cloudtrial:budgetUsd and cloudtrial:budgetEmail need each other: the alarm's amount, and who gets it"
    )
if api_token and not domain and not allow_token_over_http:
    raise TokenInClear()

region = aws.get_region().region
if region.startswith(("cn-", "us-gov-")):
    raise ConfigError(f"aws:region is {region!r}; this program names its resources as regions outside it do (arn:aws:)")
offers = aws.ec2.get_instance_type_offerings(
    filters=[aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=[size])],
    location_type="availability-zone",
)
if not offers.locations:
    raise ConfigError(f"cloudtrial:size is {size!r}, which {region} does not offer; choose another size or aws:region")
all_offers = aws.ec2.get_instance_type_offerings(
    filters=[aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=list(EC2_SIZES))],
    location_type="availability-zone",
)
sizes_by_zone = Counter(all_offers.locations)

stack = pulumi.get_stack()
stack_tags = tags(stack)
named = stack_tags | {"Name": resource_name("vm", stack)}

# 2. Resources

# The alarm. It counts the whole account's costs: a filter by tag finds nothing until the tag is activated in the
# billing console, which can be done a day after it is first seen, and a budget that finds nothing raises no alarm.
if budget_usd and budget_email:
    aws.budgets.Budget(
        "budget",
        name=resource_name("budget", stack),
        budget_type="COST",
        limit_amount=str(budget_usd),
        limit_unit="USD",
        time_unit="MONTHLY",
        notifications=[
            aws.budgets.BudgetNotificationArgs(
                comparison_operator="GREATER_THAN",
                notification_type=kind,
                threshold=percent,
                threshold_type="PERCENTAGE",
                subscriber_email_addresses=[budget_email],
            )
            for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
        ],
        tags=stack_tags,
    )

# A network with one public subnet, in the zone of those with the size that has most of the others: for a later size.
# Not every zone of a region has every size (us-east-1 has one without t3).
vpc = aws.ec2.Vpc("vpc", cidr_block="10.42.0.0/16", enable_dns_hostnames=True, tags=named)
gateway = aws.ec2.InternetGateway("gateway", vpc_id=vpc.id, tags=stack_tags)
subnet = aws.ec2.Subnet(
    "public",
    vpc_id=vpc.id,
    cidr_block="10.42.0.0/24",
    availability_zone=min(offers.locations, key=lambda each: (-sizes_by_zone[each], each)),
    map_public_ip_on_launch=True,  # the VM's way out until it has the stack's address
    tags=stack_tags,
    opts=pulumi.ResourceOptions(ignore_changes=["availability_zone"]),  # another size must not move the network
)
routes = aws.ec2.RouteTable(
    "public",
    vpc_id=vpc.id,
    routes=[aws.ec2.RouteTableRouteArgs(cidr_block=ANYWHERE, gateway_id=gateway.id)],
    tags=stack_tags,
)
route_association = aws.ec2.RouteTableAssociation("public", subnet_id=subnet.id, route_table_id=routes.id)

# The firewall opens the web's ports, and everything outwards, for Debian's packages, PyPI and AWS.
web = aws.ec2.SecurityGroup(
    resource_name("web", stack), vpc_id=vpc.id, description="The web in, everything out", tags=stack_tags
)
open_ports = [
    aws.vpc.SecurityGroupIngressRule(
        name,
        security_group_id=web.id,
        ip_protocol="tcp",
        from_port=port,
        to_port=port,
        cidr_ipv4=ANYWHERE,
        tags=stack_tags,
    )
    for name, port in ({"http": 80, "https": 443} if domain else {"http": 80}).items()
]
outwards = aws.vpc.SecurityGroupEgressRule(
    "outwards", security_group_id=web.id, ip_protocol="-1", cidr_ipv4=ANYWHERE, tags=stack_tags
)

# The artifact, in a private bucket, under a name with its hash.
bucket = aws.s3.Bucket(resource_name("bundle", stack), force_destroy=True, tags=stack_tags)
private = aws.s3.BucketPublicAccessBlock(
    "bundle",
    bucket=bucket.id,
    block_public_acls=True,
    block_public_policy=True,
    ignore_public_acls=True,
    restrict_public_buckets=True,
)
aws.s3.BucketServerSideEncryptionConfiguration(
    "bundle",
    bucket=bucket.id,
    rules=[
        aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
            apply_server_side_encryption_by_default=(
                aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                    sse_algorithm="AES256"
                )
            )
        )
    ],
)
aws.s3.BucketPolicy(
    "bundle",
    bucket=bucket.id,
    policy=pulumi.Output.json_dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "EncryptedConnectionsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
    ),
    opts=pulumi.ResourceOptions(depends_on=[private]),  # S3 refuses two such changes at once
)
own_files = vm_files(https=https, follows_store=bool(stored)) | (store_files() if stored else {})
files = deployment_files(own_files, engine, model=model, ships_model=not stored)
artifact, git_sha = write_tar_gz("aws_ec2.tar.gz", files), deployed_git_sha(files)
bundle = aws.s3.BucketObjectv2(
    "bundle",
    bucket=bucket.id,
    key=f"bundle-{artifact.sha256[:16]}.tar.gz",
    source=pulumi.FileAsset(artifact.path),
    tags=stack_tags,
    # Going back after a failed update sends the same key again, and the deletion that is left from before would follow.
    opts=pulumi.ResourceOptions(retain_on_delete=True),
)

# The token, which the VM fetches itself: user data can be read by everyone who may describe the VM.
token = None
if api_token:
    token = aws.ssm.Parameter(
        "api-token",
        name=f"/{resource_name('api-token', stack)}",
        type="SecureString",
        value=api_token,
        description="What every POST to the classifier has to carry",
        tags=stack_tags,
    )

# The VM may read its bundle, its token and its model's versions, store its certificate, and be reached by Session
# Manager. Amazon's policy for the last allows reading every parameter of the account; the denial revokes that.
role = aws.iam.Role(
    resource_name("vm", stack),
    assume_role_policy=pulumi.Output.json_dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
            ],
        }
    ),
    tags=stack_tags,
)
session_manager = aws.iam.RolePolicyAttachment(
    "session-manager", role=role.name, policy_arn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
)
certificate_key = f"certificate-{domain}.pem"
read_parameters = ["ssm:GetParameter", "ssm:GetParameters"]
statements = [
    {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [pulumi.Output.concat(bucket.arn, "/", bundle.key)]},
    {"Effect": "Deny", "Action": read_parameters, **({"NotResource": [token.arn]} if token else {"Resource": ["*"]})},
]
if token:
    statements.append({"Effect": "Allow", "Action": ["ssm:GetParameter"], "Resource": [token.arn]})
if domain:
    certificate_arn = pulumi.Output.concat(bucket.arn, "/", certificate_key)
    statements.append({"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": [certificate_arn]})
if stored:
    every_key = f"{stored.key_prefix}*"
    store_arn = f"arn:aws:s3:::{stored.bucket}"
    listed = {"StringLike": {"s3:prefix": [every_key]}}
    statements += [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{store_arn}/{every_key}"]},
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [store_arn], "Condition": listed},
    ]
role_policy = aws.iam.RolePolicy(
    "vm", role=role.name, policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": statements})
)
profile = aws.iam.InstanceProfile(resource_name("vm", stack), role=role.name, tags=stack_tags)

# The address, which outlives the VM. Where there is no domain it is the host that nginx answers to.
address = aws.ec2.Eip("address", domain="vpc", tags=named, opts=pulumi.ResourceOptions(depends_on=[gateway]))
host = domain or address.public_ip

# The VM. A change of the user data (other code, another token) or of the size replaces it, and starts from the newest
# image; a newer image alone changes nothing. (docs/pulumi-engine.md: what is ignored is ignored of a running VM only.)
settings: dict[str, pulumi.Input[str]] = {
    "AWS_DEFAULT_REGION": region,
    **(followed_env(str(stored.reference), engine, MODELS_FOLDER) if stored else model_env(model.folder.name, engine)),
    **({"STORE_URL": stored.url} if stored else {}),
    "BUNDLE_URI": pulumi.Output.concat("s3://", bucket.bucket, "/", bundle.key),
    "BUNDLE_SHA256": artifact.sha256,
    "GIT_SHA": git_sha,
    **access_env,
    **revision,
}
if token:
    settings |= {"TOKEN_PARAMETER": token.name, "TOKEN_VERSION": token.version.apply(str)}
if domain and email:
    certificate_uri = pulumi.Output.concat("s3://", bucket.bucket, "/", certificate_key)
    settings |= {"DOMAIN": domain, "CERTIFICATE_EMAIL": email, "CERTIFICATE_URI": certificate_uri}
architecture = EC2_SIZES[size].architecture
is_burstable = EC2_SIZES[size].baseline_vcpus is not None
vm = aws.ec2.Instance(
    "vm",
    ami=aws.ssm.get_parameter(name=f"{IMAGE}/{architecture}").value,
    instance_type=size,
    # Explicit, not the default: CPU above the baseline is billed, as in the cost model, not throttled.
    credit_specification=aws.ec2.InstanceCreditSpecificationArgs(cpu_credits="unlimited") if is_burstable else None,
    subnet_id=subnet.id,
    vpc_security_group_ids=[web.id],
    iam_instance_profile=profile.name,
    metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
        http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
    ),
    root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
        volume_type="gp3", volume_size=TARGET.disk_gb, encrypted=True, delete_on_termination=True, tags=named
    ),
    user_data=pulumi.Output.all(settings, host).apply(
        lambda resolved: render(resolved[0], host=resolved[1], https=https)
    ),
    user_data_replace_on_change=True,
    tags=named,
    opts=pulumi.ResourceOptions(
        ignore_changes=["ami"],  # a newer image must not replace a running VM by itself
        replace_on_changes=["instance_type"],  # in place, AWS stops the only VM, which may then not start again
        depends_on=[role_policy, session_manager, outwards, route_association],  # needed from the first second
    ),
)

# The new VM proves itself on its own address. That is in a file, not among the inputs: once it has the stack's, every
# refresh would show a change. A VM that fails leaves the address, and the VM before, as they are.
url = pulumi.Output.concat("https://" if domain else "http://", host)
profile = pulumi.Config("aws").get("profile")
in_account = f" --profile {profile}" if profile else ""
session = pulumi.Output.concat("aws ssm start-session", in_account, " --region ", region, " --target ", vm.id)
token_of_status = api_token if "PROTECT_STATUS" in access_env else None
advice = pulumi.Output.concat(
    "Its boot is in /var/log/cloud-init-output.log on the VM; a shell there: ",
    session,
    f"\nWithout one: aws ec2 get-console-output{in_account} --latest --output text --region ",
    region,
    " --instance-id ",
    vm.id,
    "\nAnother `pulumi up` asks again; a boot that failed is not repeated: pulumi up --replace '",
    vm.urn,
    "' makes another VM",
)
boots = wait_until_ready(
    "boots",
    url,
    model=model,
    engine=engine,
    git_sha=git_sha,
    timeout_s=TARGET.boot_timeout_s,
    advice=pulumi.Output.concat("The VM before it still serves.\n", advice),
    token=token_of_status,
    env={"ADDRESS_FILE": vm.public_ip.apply(lambda ip: write_line(f"{stack}.address", ip))},
    triggers=[vm.id],
    depends_on=open_ports,
)

# The address, and its DNS name.
attached = aws.ec2.EipAssociation(
    "address",
    allocation_id=address.allocation_id,
    instance_id=vm.id,
    opts=pulumi.ResourceOptions(depends_on=[boots]),
)
reachable: list[pulumi.Resource] = [attached]
if domain and zone:
    reachable.append(
        aws.route53.Record("domain", zone_id=zone, name=domain, type="A", ttl=60, records=[address.public_ip])
    )

# `up` ends when clients reach the service, and it is the one that was sent.
wait_until_ready(
    "ready",
    url,
    model=model,
    engine=engine,
    git_sha=git_sha,
    timeout_s=TARGET.boot_timeout_s + (CERTIFICATE_TIMEOUT_S if domain else 0),
    advice=advice,
    token=token_of_status,
    triggers=[vm.id],
    depends_on=reachable,
)

# 3. Outputs

export_endpoint(TARGET, url, region, size, model, engine, stored)
pulumi.export("instance_id", vm.id)
pulumi.export("address", address.public_ip)
pulumi.export("session", session)
