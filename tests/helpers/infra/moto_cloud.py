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
            Name="debian-12",
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

    def vpc(self, _: Resource, given: dict) -> str:
        made = self.ec2.create_vpc(CidrBlock=given["cidrBlock"], **labels("vpc", given))
        return made["Vpc"]["VpcId"]

    def gateway(self, _: Resource, given: dict) -> str:
        made = self.ec2.create_internet_gateway(**labels("internet-gateway", given))
        gateway = made["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=given["vpcId"])
        return gateway

    def subnet(self, _: Resource, given: dict) -> str:
        place = {"VpcId": given["vpcId"], "AvailabilityZone": given["availabilityZone"]}
        made = self.ec2.create_subnet(CidrBlock=given["cidrBlock"], **place, **labels("subnet", given))
        subnet = made["Subnet"]["SubnetId"]
        self.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": given["mapPublicIpOnLaunch"]})
        return subnet

    def route_table(self, _: Resource, given: dict) -> str:
        made = self.ec2.create_route_table(VpcId=given["vpcId"], **labels("route-table", given))
        table = made["RouteTable"]["RouteTableId"]
        for route in given["routes"]:
            self.ec2.create_route(
                RouteTableId=table, DestinationCidrBlock=route["cidrBlock"], GatewayId=route["gatewayId"]
            )
        return table

    def route_table_association(self, _: Resource, given: dict) -> str:
        made = self.ec2.associate_route_table(RouteTableId=given["routeTableId"], SubnetId=given["subnetId"])
        return made["AssociationId"]

    def security_group(self, resource: Resource, given: dict) -> str:
        made = self.ec2.create_security_group(
            GroupName=resource.id,
            Description=given["description"],
            VpcId=given["vpcId"],
            **labels("security-group", given),
        )
        (fresh,) = self.ec2.describe_security_groups(GroupIds=[made["GroupId"]])["SecurityGroups"]
        self.ec2.revoke_security_group_egress(  # as the provider does: nothing is open that no rule opens
            GroupId=made["GroupId"], IpPermissions=fresh["IpPermissionsEgress"]
        )
        return made["GroupId"]

    def ingress(self, _: Resource, given: dict) -> str:
        made = self.ec2.authorize_security_group_ingress(**permission(given))
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def egress(self, _: Resource, given: dict) -> str:
        made = self.ec2.authorize_security_group_egress(**permission(given))
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def bucket(self, resource: Resource, given: dict) -> str:
        self.s3.create_bucket(Bucket=resource.id)
        self.s3.put_bucket_tagging(Bucket=resource.id, Tagging={"TagSet": pairs(given["tags"])})
        return resource.id

    def public_access_block(self, resource: Resource, given: dict) -> str:
        flags = {key[0].upper() + key[1:]: value for key, value in given.items() if isinstance(value, bool)}
        self.s3.put_public_access_block(Bucket=given["bucket"], PublicAccessBlockConfiguration=flags)
        return resource.id

    def bucket_encryption(self, resource: Resource, given: dict) -> str:
        rules = [
            {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": wanted["sseAlgorithm"]}}
            for wanted in (rule["applyServerSideEncryptionByDefault"] for rule in given["rules"])
        ]
        self.s3.put_bucket_encryption(Bucket=given["bucket"], ServerSideEncryptionConfiguration={"Rules": rules})
        return resource.id

    def bucket_policy(self, resource: Resource, given: dict) -> str:
        """Put, read back and taken away: moto knows no aws:SecureTransport, and would deny every request."""
        self.s3.put_bucket_policy(Bucket=given["bucket"], Policy=given["policy"])
        self.bucket_policies[given["bucket"]] = self.s3.get_bucket_policy(Bucket=given["bucket"])["Policy"]
        self.s3.delete_bucket_policy(Bucket=given["bucket"])
        return resource.id

    def bucket_object(self, resource: Resource, given: dict) -> str:
        body = (self.root / given["source"]["path"]).read_bytes()
        self.s3.put_object(Bucket=given["bucket"], Key=given["key"], Body=body)
        return resource.id

    def parameter(self, resource: Resource, given: dict) -> str:
        self.ssm.put_parameter(Name=given["name"], Type=given["type"], Value=given["value"], Tags=pairs(given["tags"]))
        return resource.id

    def role(self, resource: Resource, given: dict) -> str:
        self.iam.create_role(
            RoleName=resource.id, AssumeRolePolicyDocument=given["assumeRolePolicy"], Tags=pairs(given["tags"])
        )
        return resource.id

    def role_policy(self, resource: Resource, given: dict) -> str:
        self.iam.put_role_policy(RoleName=given["role"], PolicyName=resource.id, PolicyDocument=given["policy"])
        return resource.id

    def role_policy_attachment(self, resource: Resource, given: dict) -> str:
        self.iam.attach_role_policy(RoleName=given["role"], PolicyArn=given["policyArn"])
        return resource.id

    def instance_profile(self, resource: Resource, given: dict) -> str:
        self.iam.create_instance_profile(InstanceProfileName=resource.id, Tags=pairs(given["tags"]))
        self.iam.add_role_to_instance_profile(InstanceProfileName=resource.id, RoleName=given["role"])
        return resource.id

    def instance(self, _: Resource, given: dict) -> str:
        disk, metadata = given["rootBlockDevice"], given["metadataOptions"]
        made = self.ec2.run_instances(
            ImageId=given["ami"],
            InstanceType=given["instanceType"],
            MinCount=1,
            MaxCount=1,
            SubnetId=given["subnetId"],
            SecurityGroupIds=given["vpcSecurityGroupIds"],
            IamInstanceProfile={"Name": given["iamInstanceProfile"]},
            UserData=given["userData"],
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
            **labels("instance", given),
        )
        return made["Instances"][0]["InstanceId"]

    def address(self, resource: Resource, given: dict) -> str:
        made = self.ec2.allocate_address(Domain=given["domain"], **labels("elastic-ip", given))
        self.real |= {resource.outputs["allocationId"]: made["AllocationId"], PUBLIC_IP: made["PublicIp"]}
        return made["AllocationId"]

    def address_association(self, _: Resource, given: dict) -> str:
        made = self.ec2.associate_address(AllocationId=given["allocationId"], InstanceId=given["instanceId"])
        return made["AssociationId"]

    def record(self, resource: Resource, given: dict) -> str:
        values = [{"Value": value} for value in given["records"]]
        wanted = {"Name": given["name"], "Type": given["type"], "TTL": int(given["ttl"]), "ResourceRecords": values}
        self.route53.change_resource_record_sets(
            HostedZoneId=given["zoneId"],
            ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": wanted}]},
        )
        return resource.id


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def labels(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": pairs(given["tags"])}]}


def permission(given: Mapping[str, Any]) -> dict[str, Any]:
    ports = {"FromPort": int(given["fromPort"]), "ToPort": int(given["toPort"])} if "fromPort" in given else {}
    rule = {"IpProtocol": given["ipProtocol"], "IpRanges": [{"CidrIp": given["cidrIpv4"]}], **ports}
    return {"GroupId": given["securityGroupId"], "IpPermissions": [rule]}


CREATORS: dict[str, Callable[[Account, Resource, dict], str]] = {
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
