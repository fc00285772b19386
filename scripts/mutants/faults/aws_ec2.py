"""Faults in the program for AWS EC2. The first sixteen are the kinds that any program for AWS invites."""

from __future__ import annotations

from scripts.mutants.fault import Fault

TARGET = "aws_ec2"
PROGRAM = "infra/aws_ec2/__main__.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        TARGET,
        "the VM gets what is shipped for the default engine",
        PROGRAM,
        "deployment_files(engine=engine)",
        "deployment_files()",
    ),
    Fault(
        TARGET,
        "a keyword that the resource does not have",
        PROGRAM,
        'resource_name("bundle", stack), force_destroy=True',
        'resource_name("bundle", stack), force_delete=True',
    ),
    Fault(
        TARGET,
        "a key that the block does not have: the metadata service stays open",
        PROGRAM,
        """metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
        http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
    )""",
        'metadata_options={"http_endpoint": "enabled", "http_token": "required", "http_put_response_hop_limit": 1}',
    ),
    Fault(
        TARGET,
        "an output in an f-string: the VM is told to fetch s3://<pulumi.output.Output object ...>",
        PROGRAM,
        'pulumi.Output.concat("s3://", bucket.bucket, "/", bundle.key)',
        'f"s3://{bucket.bucket}/{bundle.key}"',
    ),
    Fault(
        TARGET,
        "two resources of one type with one name",
        PROGRAM,
        "        name,\n        security_group_id=web.id,",
        '        "web",\n        security_group_id=web.id,',
    ),
    Fault(
        TARGET,
        "SSH is open to the internet",
        PROGRAM,
        'in {"http": 80, "https": 443}.items() if domain else {"http": 80}.items():',
        'in {"http": 80, "https": 443, "ssh": 22}.items():',
    ),
    Fault(
        TARGET,
        "the subnet lies outside the network",
        PROGRAM,
        'cidr_block="10.42.0.0/24"',
        'cidr_block="10.43.0.0/24"',
    ),
    Fault(TARGET, "IMDSv2 is optional", PROGRAM, 'http_tokens="required"', 'http_tokens="optional"'),
    Fault(TARGET, "the disk is not encrypted", PROGRAM, "encrypted=True, ", ""),
    Fault(
        TARGET,
        "a missing reference: no route leads to the gateway",
        PROGRAM,
        "RouteTableRouteArgs(cidr_block=ANYWHERE, gateway_id=gateway.id)",
        "RouteTableRouteArgs(cidr_block=ANYWHERE)",
    ),
    Fault(
        TARGET,
        "a policy that is Python, not JSON",
        PROGRAM,
        'policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": statements})',
        'policy=pulumi.Output.from_input({"Version": "2012-10-17", "Statement": statements}).apply(str)',
    ),
    Fault(
        TARGET,
        "the role may do everything with every bucket",
        PROGRAM,
        '"Action": ["s3:GetObject"], "Resource": [pulumi.Output.concat(bucket.arn, "/", bundle.key)]',
        '"Action": ["s3:*"], "Resource": ["*"]',
    ),
    Fault(
        TARGET,
        "a managed policy that does not exist",
        PROGRAM,
        "policy/AmazonSSMManagedInstanceCore",
        "policy/AmazonSSMManagedInstance",
    ),
    Fault(TARGET, "an instance type that nobody sells", PROGRAM, "instance_type=size,", 'instance_type="t3.little",'),
    Fault(
        TARGET,
        "a required argument is missing",
        PROGRAM,
        '    vpc_id=vpc.id,\n    cidr_block="10.42.0.0/24"',
        '    cidr_block="10.42.0.0/24"',
    ),
    Fault(TARGET, "a text where a number belongs", PROGRAM, "volume_size=TARGET.disk_gb", 'volume_size="16 GB"'),
    Fault(TARGET, "a value that the enumeration does not have", PROGRAM, 'volume_type="gp3"', 'volume_type="gp-3"'),
    Fault(
        TARGET,
        "new user data does not make a new VM: new code is never run",
        PROGRAM,
        "user_data_replace_on_change=True",
        "user_data_replace_on_change=False",
    ),
    Fault(
        TARGET,
        "nothing goes out: the VM cannot install the service",
        PROGRAM,
        """aws.vpc.SecurityGroupEgressRule(
    "outwards", security_group_id=web.id, ip_protocol="-1", cidr_ipv4=ANYWHERE, tags=marks
)""",
        "web",
    ),
    Fault(
        TARGET,
        "the bundle's key does not carry its hash",
        PROGRAM,
        'key=f"bundle-{artifact.sha256[:16]}.tar.gz"',
        'key="bundle.tar.gz"',
    ),
    Fault(TARGET, "destroy leaves the disk", PROGRAM, "delete_on_termination=True", "delete_on_termination=False"),
    Fault(
        TARGET,
        "the token stands in the user data",
        PROGRAM,
        'facts |= {"TOKEN_PARAMETER": token.name, "TOKEN_VERSION": token.version.apply(str)}',
        'facts |= {"API_TOKEN": token.value}',
    ),
    Fault(
        TARGET,
        "another token does not reach the VM",
        PROGRAM,
        ', "TOKEN_VERSION": token.version.apply(str)}',
        "}",
    ),
    Fault(
        TARGET,
        "the VM may read every parameter of the account",
        PROGRAM,
        '{"Effect": "Deny", "Action": read_parameters',
        '{"Effect": "Deny", "Action": ["ssm:PutParameter"]',
    ),
    Fault(
        TARGET,
        "the disk is not tagged",
        PROGRAM,
        "delete_on_termination=True, tags=named",
        "delete_on_termination=True",
    ),
    Fault(
        TARGET,
        "the address is attached by its number, not its ID",
        PROGRAM,
        "allocation_id=address.allocation_id",
        "allocation_id=address.public_ip",
    ),
    Fault(
        TARGET,
        "the VM boots before it has its rights",
        PROGRAM,
        "depends_on=[rights, session_manager, outwards, routed],",
        "depends_on=[outwards, routed],",
    ),
    Fault(
        TARGET,
        "up waits before the address leads to the VM",
        PROGRAM,
        "opts=pulumi.ResourceOptions(depends_on=reachable)",
        "opts=pulumi.ResourceOptions(depends_on=[address])",
    ),
    Fault(
        TARGET,
        "a Python of this machine alone, so that another machine sees a change",
        PROGRAM,
        'interpreter=["python3", "-c"]',
        'interpreter=[__import__("sys").executable, "-c"]',
    ),
    Fault(
        TARGET,
        "the region of the settings is ignored",
        PROGRAM,
        "region = aws.get_region().region",
        "region = TARGET.region",
    ),
    Fault(
        TARGET,
        "the default size is one that AWS does not sell",
        "infra/targets.py",
        'size="t3.small"',
        'size="t3.smal"',
    ),
)
