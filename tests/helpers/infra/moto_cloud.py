"""Creates in moto, an emulator of AWS, what the miniature engine recorded: with boto3, in order, as the provider would.

What the engine invented (identifiers, the address, the image) is replaced by moto's own as it comes to be, so that a
resource that names another really has to be given that one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from moto.core import DEFAULT_ACCOUNT_ID

from tests.offline_engine.engine import ProgramResult, Resource
from tests.offline_engine.fake_provider import PUBLIC_IP

REGION = "us-east-1"
ZONE = "Z0123456789ABC"  # the hosted zone that a test may name
ROOT_DEVICE = "/dev/xvda"  # as Debian's image has it
# What moto reads: credentials for boto3, so that none are looked for elsewhere, and Amazon's own policies.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
}


class Account:
    """An AWS account in moto with a run's resources. To be made within mock_aws, under ENVIRONMENT."""

    def __init__(self, run: ProgramResult, root: Path):
        self.root = root
        self.ec2, self.iam, self.s3, self.ssm, self.route53 = map(boto3.client, ("ec2", "iam", "s3", "ssm", "route53"))
        self.budgets = boto3.client("budgets")
        self.real: dict[str, str] = {}  # what the engine invented -> what moto has
        self.bucket_policies: dict[str, str] = {}  # by bucket; see bucket_policy
        self._before(run)
        for resource in run.resources.values():
            if resource.type.startswith("aws:"):
                self._create(resource)

    def _before(self, run: ProgramResult) -> None:
        """What is there before the program runs: the image, and a zone where one is named."""
        invented = {vm.inputs["ami"] for vm in run.of_type("Instance")}
        image = self.ec2.register_image(
            Name="debian-13",
            RootDeviceName=ROOT_DEVICE,
            BlockDeviceMappings=[{"DeviceName": ROOT_DEVICE, "Ebs": {"VolumeSize": 8}}],
        )
        self.real |= dict.fromkeys(invented, image["ImageId"])
        for record in run.of_type("Record"):
            name = record.inputs["name"].partition(".")[2]
            zone = self.route53.create_hosted_zone(Name=name, CallerReference="test")["HostedZone"]
            self.real[record.inputs["zoneId"]] = zone["Id"].removeprefix("/hostedzone/")

    def _create(self, resource: Resource) -> None:
        kind = resource.type.rpartition(":")[2]
        if kind not in CREATORS:
            raise LookupError(f"moto_kit creates no {resource.type} yet; add it to CREATORS")
        real_id = CREATORS[kind](self, resource, self._resolved(resource.unwrapped_inputs))
        self.real[resource.id] = real_id

    def _resolved(self, value: Any) -> Any:
        """The inputs with moto's values for invented ones, also within texts."""
        text = json.dumps(value)
        for invented, real in self.real.items():
            text = text.replace(invented, real)
        return json.loads(text)

    def budget(self, resource: Resource, inputs: dict) -> str:
        self.budgets.create_budget(
            AccountId=DEFAULT_ACCOUNT_ID,
            Budget={
                "BudgetName": inputs["name"],
                "BudgetLimit": {"Amount": inputs["limitAmount"], "Unit": inputs["limitUnit"]},
                "TimeUnit": inputs["timeUnit"],
                "BudgetType": inputs["budgetType"],
            },
            NotificationsWithSubscribers=[
                {
                    "Notification": {
                        "NotificationType": alarm["notificationType"],
                        "ComparisonOperator": alarm["comparisonOperator"],
                        "Threshold": alarm["threshold"],
                        "ThresholdType": alarm["thresholdType"],
                    },
                    "Subscribers": [
                        {"SubscriptionType": "EMAIL", "Address": address}
                        for address in alarm["subscriberEmailAddresses"]
                    ],
                }
                for alarm in inputs["notifications"]
            ],
        )
        return resource.id

    def vpc(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.create_vpc(CidrBlock=inputs["cidrBlock"], **labels("vpc", inputs))
        return response["Vpc"]["VpcId"]

    def gateway(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.create_internet_gateway(**labels("internet-gateway", inputs))
        gateway = response["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=inputs["vpcId"])
        return gateway

    def subnet(self, _: Resource, inputs: dict) -> str:
        place = {"VpcId": inputs["vpcId"], "AvailabilityZone": inputs["availabilityZone"]}
        response = self.ec2.create_subnet(CidrBlock=inputs["cidrBlock"], **place, **labels("subnet", inputs))
        subnet = response["Subnet"]["SubnetId"]
        self.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": inputs["mapPublicIpOnLaunch"]})
        return subnet

    def route_table(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.create_route_table(VpcId=inputs["vpcId"], **labels("route-table", inputs))
        table = response["RouteTable"]["RouteTableId"]
        for route in inputs["routes"]:
            self.ec2.create_route(
                RouteTableId=table, DestinationCidrBlock=route["cidrBlock"], GatewayId=route["gatewayId"]
            )
        return table

    def route_table_association(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.associate_route_table(RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"])
        return response["AssociationId"]

    def security_group(self, resource: Resource, inputs: dict) -> str:
        response = self.ec2.create_security_group(
            GroupName=resource.id,
            Description=inputs["description"],
            VpcId=inputs["vpcId"],
            **labels("security-group", inputs),
        )
        (fresh,) = self.ec2.describe_security_groups(GroupIds=[response["GroupId"]])["SecurityGroups"]
        self.ec2.revoke_security_group_egress(  # as the provider does: nothing is open that no rule opens
            GroupId=response["GroupId"], IpPermissions=fresh["IpPermissionsEgress"]
        )
        return response["GroupId"]

    def ingress(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.authorize_security_group_ingress(**permission(inputs))
        return response["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def egress(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.authorize_security_group_egress(**permission(inputs))
        return response["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def bucket(self, resource: Resource, inputs: dict) -> str:
        self.s3.create_bucket(Bucket=resource.id)
        self.s3.put_bucket_tagging(Bucket=resource.id, Tagging={"TagSet": pairs(inputs["tags"])})
        return resource.id

    def public_access_block(self, resource: Resource, inputs: dict) -> str:
        flags = {key[0].upper() + key[1:]: value for key, value in inputs.items() if isinstance(value, bool)}
        self.s3.put_public_access_block(Bucket=inputs["bucket"], PublicAccessBlockConfiguration=flags)
        return resource.id

    def bucket_encryption(self, resource: Resource, inputs: dict) -> str:
        rules = [
            {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": wanted["sseAlgorithm"]}}
            for wanted in (rule["applyServerSideEncryptionByDefault"] for rule in inputs["rules"])
        ]
        self.s3.put_bucket_encryption(Bucket=inputs["bucket"], ServerSideEncryptionConfiguration={"Rules": rules})
        return resource.id

    def bucket_policy(self, resource: Resource, inputs: dict) -> str:
        """Put, read back and taken away: moto knows no aws:SecureTransport, and would deny every request."""
        self.s3.put_bucket_policy(Bucket=inputs["bucket"], Policy=inputs["policy"])
        self.bucket_policies[inputs["bucket"]] = self.s3.get_bucket_policy(Bucket=inputs["bucket"])["Policy"]
        self.s3.delete_bucket_policy(Bucket=inputs["bucket"])
        return resource.id

    def bucket_object(self, resource: Resource, inputs: dict) -> str:
        body = (self.root / inputs["source"]["path"]).read_bytes()
        self.s3.put_object(Bucket=inputs["bucket"], Key=inputs["key"], Body=body)
        return resource.id

    def parameter(self, resource: Resource, inputs: dict) -> str:
        self.ssm.put_parameter(
            Name=inputs["name"], Type=inputs["type"], Value=inputs["value"], Tags=pairs(inputs["tags"])
        )
        return resource.id

    def role(self, resource: Resource, inputs: dict) -> str:
        self.iam.create_role(
            RoleName=resource.id, AssumeRolePolicyDocument=inputs["assumeRolePolicy"], Tags=pairs(inputs["tags"])
        )
        return resource.id

    def role_policy(self, resource: Resource, inputs: dict) -> str:
        self.iam.put_role_policy(RoleName=inputs["role"], PolicyName=resource.id, PolicyDocument=inputs["policy"])
        return resource.id

    def role_policy_attachment(self, resource: Resource, inputs: dict) -> str:
        self.iam.attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
        return resource.id

    def instance_profile(self, resource: Resource, inputs: dict) -> str:
        self.iam.create_instance_profile(InstanceProfileName=resource.id, Tags=pairs(inputs["tags"]))
        self.iam.add_role_to_instance_profile(InstanceProfileName=resource.id, RoleName=inputs["role"])
        return resource.id

    def instance(self, _: Resource, inputs: dict) -> str:
        disk, metadata = inputs["rootBlockDevice"], inputs["metadataOptions"]
        response = self.ec2.run_instances(
            ImageId=inputs["ami"],
            InstanceType=inputs["instanceType"],
            MinCount=1,
            MaxCount=1,
            SubnetId=inputs["subnetId"],
            SecurityGroupIds=inputs["vpcSecurityGroupIds"],
            IamInstanceProfile={"Name": inputs["iamInstanceProfile"]},
            UserData=inputs["userData"],
            MetadataOptions={
                "HttpEndpoint": metadata["httpEndpoint"],
                "HttpTokens": metadata["httpTokens"],
                "HttpPutResponseHopLimit": int(metadata["httpPutResponseHopLimit"]),
            },
            BlockDeviceMappings=[
                {
                    "DeviceName": ROOT_DEVICE,
                    "Ebs": {
                        "VolumeType": disk["volumeType"],
                        "VolumeSize": int(disk["volumeSize"]),
                        "Encrypted": disk["encrypted"],
                        "DeleteOnTermination": disk["deleteOnTermination"],
                    },
                }
            ],
            **labels("instance", inputs),
        )
        return response["Instances"][0]["InstanceId"]

    def address(self, resource: Resource, inputs: dict) -> str:
        response = self.ec2.allocate_address(Domain=inputs["domain"], **labels("elastic-ip", inputs))
        self.real |= {resource.outputs["allocationId"]: response["AllocationId"], PUBLIC_IP: response["PublicIp"]}
        return response["AllocationId"]

    def address_association(self, _: Resource, inputs: dict) -> str:
        response = self.ec2.associate_address(AllocationId=inputs["allocationId"], InstanceId=inputs["instanceId"])
        return response["AssociationId"]

    def record(self, resource: Resource, inputs: dict) -> str:
        values = [{"Value": value} for value in inputs["records"]]
        wanted = {"Name": inputs["name"], "Type": inputs["type"], "TTL": int(inputs["ttl"]), "ResourceRecords": values}
        self.route53.change_resource_record_sets(
            HostedZoneId=inputs["zoneId"],
            ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": wanted}]},
        )
        return resource.id


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def labels(kind: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": pairs(inputs["tags"])}]}


def permission(inputs: Mapping[str, Any]) -> dict[str, Any]:
    ports = {"FromPort": int(inputs["fromPort"]), "ToPort": int(inputs["toPort"])} if "fromPort" in inputs else {}
    rule = {"IpProtocol": inputs["ipProtocol"], "IpRanges": [{"CidrIp": inputs["cidrIpv4"]}], **ports}
    return {"GroupId": inputs["securityGroupId"], "IpPermissions": [rule]}


CREATORS: dict[str, Callable[[Account, Resource, dict], str]] = {
    "Budget": Account.budget,
    "BucketObjectv2": Account.bucket_object,
    "BucketPolicy": Account.bucket_policy,
    "BucketPublicAccessBlock": Account.public_access_block,
    "BucketServerSideEncryptionConfiguration": Account.bucket_encryption,
    "Bucket": Account.bucket,
    "Eip": Account.address,
    "EipAssociation": Account.address_association,
    "Instance": Account.instance,
    "InstanceProfile": Account.instance_profile,
    "InternetGateway": Account.gateway,
    "Parameter": Account.parameter,
    "Record": Account.record,
    "Role": Account.role,
    "RolePolicy": Account.role_policy,
    "RolePolicyAttachment": Account.role_policy_attachment,
    "RouteTable": Account.route_table,
    "RouteTableAssociation": Account.route_table_association,
    "SecurityGroup": Account.security_group,
    "SecurityGroupEgressRule": Account.egress,
    "SecurityGroupIngressRule": Account.ingress,
    "Subnet": Account.subnet,
    "Vpc": Account.vpc,
}
