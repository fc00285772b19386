"""What is left on AWS. Most is found by its tags, with each service's own calls.

AWS's tagging service is not enough: it lists no roles and instance profiles, and goes on listing deleted resources. It
is queried last, for kinds that no call here covers.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import boto3
import jmespath
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from eval.cost.billing import HOURS_PER_MONTH
from infra.errors import ProbeError
from infra.leftovers.search import Leftover, Probe, SearchResult, StackLocation, iso_date, monthly_cost, run_probes
from infra.naming import PROJECT

NO_CREDENTIALS = (
    "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`"
)
TERMINATED_STATES = ("shutting-down", "terminated")  # a terminated instance stays listed for about an hour
EC2_TYPES_LISTED = {"vpc", "subnet", "route-table", "internet-gateway", "security-group", "security-group-rule",
                    "network-interface", "elastic-ip", "instance", "volume", "snapshot", "image"}  # fmt: skip
SERVICES_LISTED = {
    "s3",
    "iam",
    "ssm",
    "logs",
    "budgets",
    "ecr",
    "sagemaker",
}  # covered by the calls below, so the tagging service's rows are dropped
DETACHED_INTERFACES = "NetworkInterfaces[?!(Attachment.InstanceId)]"  # the others go with their machine
AWS_COMMAND = re.compile(r"\baws (?=[a-z])")
Client = Any  # boto3 generates its clients at run time


@dataclass(frozen=True)
class Ec2ResourceType:
    """A type of EC2 resource: how to list it, and how to delete it."""

    kind: str
    call: str
    items: str  # JMESPath to them in the response
    id: str  # the key of the identifier
    remove: str  # after `aws ec2`
    since: str = ""
    cost: Callable[[Mapping[str, Any]], str] = lambda item: ""
    owned: Mapping[str, Any] | None = None  # arguments that leave out other accounts' public ones
    in_vpc: bool = False  # others' in the stack's VPC are listed too, for they block its deletion


def instance_cost(item: Mapping[str, Any]) -> str:
    size = item["InstanceType"].replace(".", "_")
    return monthly_cost(f"aws_ec2_{size}_hour", HOURS_PER_MONTH, "billed by the hour while it runs")


def volume_cost(item: Mapping[str, Any]) -> str:
    return monthly_cost(f"aws_ebs_{item['VolumeType']}_gb_month", item["Size"], "billed by GB")


def address_cost(item: Mapping[str, Any]) -> str:
    return monthly_cost("aws_public_ipv4_hour", HOURS_PER_MONTH, "billed by the hour")


# In the order in which they can be deleted.
EC2_RESOURCE_TYPES = (
    Ec2ResourceType("EC2 instance", "describe_instances", "Reservations[].Instances[]", "InstanceId",
            "terminate-instances --instance-ids {}", "LaunchTime", instance_cost),
    Ec2ResourceType("Elastic IP", "describe_addresses", "Addresses[]", "AllocationId",
            "release-address --allocation-id {}", cost=address_cost),
    Ec2ResourceType("EBS volume", "describe_volumes", "Volumes[]", "VolumeId",
            "delete-volume --volume-id {}", "CreateTime", volume_cost),
    Ec2ResourceType("machine image", "describe_images", "Images[]", "ImageId",
            "deregister-image --image-id {}", "CreationDate", owned={"Owners": ["self"]}),
    Ec2ResourceType("EBS snapshot", "describe_snapshots", "Snapshots[]", "SnapshotId",
            "delete-snapshot --snapshot-id {}", "StartTime", lambda item: "billed by GB", {"OwnerIds": ["self"]}),
    Ec2ResourceType("network interface", "describe_network_interfaces", DETACHED_INTERFACES, "NetworkInterfaceId",
            "delete-network-interface --network-interface-id {}", in_vpc=True),
    Ec2ResourceType("security group", "describe_security_groups", "SecurityGroups[?GroupName!='default']", "GroupId",
            "delete-security-group --group-id {}", in_vpc=True),
    Ec2ResourceType("subnet", "describe_subnets", "Subnets[]", "SubnetId", "delete-subnet --subnet-id {}", in_vpc=True),
    Ec2ResourceType("route table", "describe_route_tables", "RouteTables[?!(Associations[?Main])]", "RouteTableId",
            "delete-route-table --route-table-id {}", in_vpc=True),
    Ec2ResourceType("internet gateway", "describe_internet_gateways", "InternetGateways[]", "InternetGatewayId",
            "delete-internet-gateway --internet-gateway-id {}"),
    Ec2ResourceType("VPC", "describe_vpcs", "Vpcs[]", "VpcId", "delete-vpc --vpc-id {}"),
)  # fmt: skip


def find_leftovers(location: StackLocation, parts: tuple[str, ...]) -> SearchResult:
    """Everything of the stack that is left. Raises ProbeError when AWS accepts no credentials."""
    aws = AwsSearch(location, parts)
    aws.check_login()
    probes: dict[str, Probe] = {kind.kind: functools.partial(aws.ec2, kind) for kind in EC2_RESOURCE_TYPES}
    probes |= {
        "S3 buckets": aws.buckets,
        "IAM instance profiles": aws.instance_profiles,
        "IAM roles": aws.roles,
        "SSM parameters": aws.parameters,
        "log groups": aws.log_groups,
        "DNS records": aws.dns_records,
        "budgets": aws.budgets,
        "other tagged resources": aws.other_tagged_resources,
    }
    return search(probes, location.profile)


def search(probes: Mapping[str, Probe], profile: str) -> SearchResult:
    """What the probes of AWS find, with commands that go to the same account."""
    found = run_probes({what: functools.partial(_with_short_errors, look) for what, look in probes.items()})
    if not profile:
        return found
    leftovers = [
        replace(each, remove=AWS_COMMAND.sub(f"aws --profile {profile} ", each.remove)) for each in found.leftovers
    ]
    return replace(found, leftovers=tuple(leftovers))


class AwsSearch:
    """Probes of the stack's region in one account."""

    def __init__(self, location: StackLocation, parts: tuple[str, ...]) -> None:
        self.location, self.parts = location, parts
        try:
            self._session = boto3.Session(region_name=location.region, profile_name=location.profile or None)
        except BotoCoreError as error:
            raise ProbeError(f"aws:profile of stack {location.stack}: {_reason(error)}") from None
        self._clients: dict[str, Client] = {}  # creating a client takes longer than a request

    def check_login(self) -> None:
        """Raises ProbeError unless AWS accepts the credentials."""
        try:
            self.client("sts").get_caller_identity()
        except NoCredentialsError:
            raise ProbeError(NO_CREDENTIALS) from None
        except (BotoCoreError, ClientError) as error:
            raise ProbeError(f"AWS lets nobody in: {_reason(error)}") from None

    def ec2(self, kind: Ec2ResourceType) -> Iterator[Leftover]:
        """Resources of one type, by the stack's tags, and by its VPC."""
        client = self.client("ec2")
        filter_sets = [self._tag_filters()]
        if kind.in_vpc:
            vpcs = items(client, "describe_vpcs", "Vpcs[].VpcId", Filters=self._tag_filters())
            filter_sets += [[{"Name": "vpc-id", "Values": [vpc]}] for vpc in vpcs]
        for filters in filter_sets:
            for item in items(client, kind.call, kind.items, Filters=filters, **(kind.owned or {})):
                if _state(item) not in TERMINATED_STATES:
                    yield self._ec2_leftover(kind, item)

    def buckets(self) -> Iterator[Leftover]:
        client = self.client("s3")
        for bucket in items(client, "list_buckets", "Buckets[]"):
            name = bucket["Name"]
            try:
                tags = _as_dict(client.get_bucket_tagging(Bucket=name)["TagSet"])
            except ClientError as error:
                if _code(error) in ("NoSuchTagSet", "NoSuchBucket") or PROJECT not in name:
                    continue  # access to others' buckets may be denied
                raise
            if self.location.has_stack_tags(tags):
                command, since = f"aws s3 rb s3://{name} --force", iso_date(bucket.get("CreationDate"))
                yield Leftover("S3 bucket", name, command, since, "storage is billed by GB")

    def instance_profiles(self) -> Iterator[Leftover]:
        client = self.client("iam")
        for profile in items(client, "list_instance_profiles", "InstanceProfiles[]"):
            name = profile["InstanceProfileName"]
            tags = client.get_instance_profile(InstanceProfileName=name)["InstanceProfile"].get("Tags", [])
            if not self.location.has_stack_tags(_as_dict(tags)):
                continue
            remove_role = f"aws iam remove-role-from-instance-profile --instance-profile-name {name} --role-name"
            detach = [f"{remove_role} {role['RoleName']}" for role in profile["Roles"]]
            command = [*detach, f"aws iam delete-instance-profile --instance-profile-name {name}"]
            yield Leftover("IAM instance profile", name, " && ".join(command), iso_date(profile.get("CreateDate")))

    def roles(self) -> Iterator[Leftover]:
        """Only an empty role can be deleted, so the command empties it."""
        client = self.client("iam")
        for role in items(client, "list_roles", "Roles[]"):
            name = role["RoleName"]
            if role["Path"].startswith("/aws-service-role/"):
                continue
            if not self.location.has_stack_tags(_as_dict(client.list_role_tags(RoleName=name)["Tags"])):
                continue
            attached = items(client, "list_attached_role_policies", "AttachedPolicies[].PolicyArn", RoleName=name)
            inline = items(client, "list_role_policies", "PolicyNames[]", RoleName=name)
            command = [
                *(f"aws iam detach-role-policy --role-name {name} --policy-arn {arn}" for arn in attached),
                *(f"aws iam delete-role-policy --role-name {name} --policy-name {policy}" for policy in inline),
                f"aws iam delete-role --role-name {name}",
            ]
            yield Leftover("IAM role", name, " && ".join(command), iso_date(role.get("CreateDate")))

    def parameters(self) -> Iterator[Leftover]:
        filters = [{"Key": f"tag:{key}", "Values": [value]} for key, value in self.location.tags.items()]
        for parameter in items(self.client("ssm"), "describe_parameters", "Parameters[]", ParameterFilters=filters):
            name = parameter["Name"]
            command = f"aws ssm delete-parameter --name {name} --region {self.location.region}"
            yield Leftover("SSM parameter", name, command, iso_date(parameter.get("LastModifiedDate")))

    def log_groups(self) -> Iterator[Leftover]:
        """By tags, and by name: groups that AWS creates itself are named after what they log, and have no tags."""
        client = self.client("logs")
        for group in items(client, "describe_log_groups", "logGroups[]"):
            name = group["logGroupName"]
            if PROJECT not in name:
                continue
            tags = client.list_tags_log_group(logGroupName=name)["tags"]
            if self.location.has_stack_tags(tags) or (not tags and self.location.mentions_resource(name, self.parts)):
                command = f"aws logs delete-log-group --log-group-name {name} --region {self.location.region}"
                yield Leftover("log group", name, command, _from_ms(group.get("creationTime")), "billed by GB")

    def dns_records(self) -> Iterator[Leftover]:
        """The address record of the stack's domain, where the stack file names its hosted zone."""
        if not (self.location.zone and self.location.domain):
            return
        zone, name = self.location.zone, f"{self.location.domain}."
        answer = self.client("route53").list_resource_record_sets(
            HostedZoneId=zone, StartRecordName=name, StartRecordType="A", MaxItems="1"
        )
        for record in answer["ResourceRecordSets"]:
            if (record["Name"], record["Type"]) == (name, "A"):
                batch = json.dumps({"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]})
                command = "aws route53 change-resource-record-sets"
                yield Leftover("DNS record", f"{name} A",
                               f"{command} --hosted-zone-id {zone} --change-batch '{batch}'")  # fmt: skip

    def budgets(self) -> Iterator[Leftover]:
        """By name, where the stack file asks for one: not everyone who may deploy may look at the account's money."""
        if not self.location.budget:
            return
        account = self.client("sts").get_caller_identity()["Account"]
        for name in items(self.client("budgets"), "describe_budgets", "Budgets[].BudgetName", AccountId=account):
            if name in self.location.resource_names(["budget"]):
                yield Leftover("budget", name, f"aws budgets delete-budget --account-id {account} --budget-name {name}")

    def other_tagged_resources(self) -> Iterator[Leftover]:
        """Tagged resources of other types. The tagging service lags, so each may be deleted already."""
        filters = [{"Key": key, "Values": [value]} for key, value in self.location.tags.items()]
        client = self.client("resourcegroupstaggingapi")
        for arn in items(client, "get_resources", "ResourceTagMappingList[].ResourceARN", TagFilters=filters):
            _, _, service, _, _, resource = arn.split(":", 5)
            if service in SERVICES_LISTED or (service == "ec2" and resource.split("/")[0] in EC2_TYPES_LISTED):
                continue
            yield Leftover(f"{service} (may be deleted: tags stay listed for a while)", arn,
                           f"aws resourcegroupstaggingapi get-resources --resource-arn-list {arn} shows it; remove it "
                           f"with aws {service}")  # fmt: skip

    def _ec2_leftover(self, kind: Ec2ResourceType, item: Mapping[str, Any]) -> Leftover:
        region = f" --region {self.location.region}"
        command = f"aws ec2 {kind.remove.format(item[kind.id])}{region}"
        for attached in item.get("Attachments") or [] if kind.kind == "internet gateway" else []:
            ids = f"--internet-gateway-id {item[kind.id]} --vpc-id {attached['VpcId']}"
            command = f"aws ec2 detach-internet-gateway {ids}{region} && {command}"
        return Leftover(kind.kind, item[kind.id], command, iso_date(item.get(kind.since)), kind.cost(item))

    def _tag_filters(self) -> list[dict[str, Any]]:
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in self.location.tags.items()]

    def client(self, service: str) -> Client:
        """The service's client in the stack's region."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service)
        return self._clients[service]


def _with_short_errors(probe: Probe) -> Iterator[Leftover]:
    """Run the probe; AWS's errors become one line."""
    try:
        yield from probe()
    except (BotoCoreError, ClientError) as error:
        raise ProbeError(_reason(error)) from None


def items(client: Client, call: str, path: str, **arguments: Any) -> Iterator[Any]:
    """The items at `path` in every page of the response."""
    if client.can_paginate(call):
        yield from client.get_paginator(call).paginate(**arguments).search(path)
    else:
        yield from jmespath.search(path, getattr(client, call)(**arguments)) or []


def _state(item: Mapping[str, Any]) -> str:
    """An instance's state; other resources have none, or one in plain text."""
    state = item.get("State")
    return state.get("Name", "") if isinstance(state, Mapping) else ""


def _as_dict(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["Key"]: pair["Value"] for pair in pairs}


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


def _from_ms(moment: int | None) -> str:
    return datetime.fromtimestamp(moment / 1000, UTC).date().isoformat() if moment else ""
