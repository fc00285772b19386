"""Mutants of the program for AWS EC2. The first sixteen are the kinds that any program for AWS invites."""

PROGRAM = "infra/aws_ec2/__main__.py"

MUTANTS = {
    PROGRAM: {
        "the VM gets what is shipped for the default engine": (
            "deployment_files(own_files, engine, model=model, ",
            "deployment_files(own_files, model=model, ",
        ),
        "what was shipped again after a failed update is deleted": (
            "opts=pulumi.ResourceOptions(retain_on_delete=True)",
            "opts=None",
        ),
        "a keyword that the resource does not have": (
            'resource_name("bundle", stack), force_destroy=True',
            'resource_name("bundle", stack), force_delete=True',
        ),
        "a key that the block does not have: the metadata service stays open": (
            """metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
        http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
    )""",
            'metadata_options={"http_endpoint": "enabled", "http_token": "required", "http_put_response_hop_limit": 1}',
        ),
        "an output in an f-string: the VM is told to fetch s3://<pulumi.output.Output object ...>": (
            'pulumi.Output.concat("s3://", bucket.bucket, "/", bundle.key)',
            'f"s3://{bucket.bucket}/{bundle.key}"',
        ),
        "two resources of one type with one name": (
            "        name,\n        security_group_id=web.id,",
            '        "web",\n        security_group_id=web.id,',
        ),
        "SSH is open to the internet": (
            'in ({"http": 80, "https": 443} if domain else {"http": 80}).items()',
            'in {"http": 80, "https": 443, "ssh": 22}.items()',
        ),
        "the subnet lies outside the network": ('cidr_block="10.42.0.0/24"', 'cidr_block="10.43.0.0/24"'),
        "IMDSv2 is optional": ('http_tokens="required"', 'http_tokens="optional"'),
        "the disk is not encrypted": ("encrypted=True, ", ""),
        "a missing reference: no route leads to the gateway": (
            "RouteTableRouteArgs(cidr_block=ANYWHERE, gateway_id=gateway.id)",
            "RouteTableRouteArgs(cidr_block=ANYWHERE)",
        ),
        "a policy that is Python, not JSON": (
            'policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": statements})',
            'policy=pulumi.Output.from_input({"Version": "2012-10-17", "Statement": statements}).apply(str)',
        ),
        "the role may do everything with every bucket": (
            '"Action": ["s3:GetObject"], "Resource": [pulumi.Output.concat(bucket.arn, "/", bundle.key)]',
            '"Action": ["s3:*"], "Resource": ["*"]',
        ),
        "a managed policy that does not exist": (
            "policy/AmazonSSMManagedInstanceCore",
            "policy/AmazonSSMManagedInstance",
        ),
        "an instance type that nobody sells": ("instance_type=size,", 'instance_type="t3.little",'),
        "a required argument is missing": (
            '    vpc_id=vpc.id,\n    cidr_block="10.42.0.0/24"',
            '    cidr_block="10.42.0.0/24"',
        ),
        "a text where a number belongs": ("volume_size=TARGET.disk_gb", 'volume_size="16 GB"'),
        "a value that the enumeration does not have": ('volume_type="gp3"', 'volume_type="gp-3"'),
        "new user data does not make a new VM: new code is never run": (
            "user_data_replace_on_change=True",
            "user_data_replace_on_change=False",
        ),
        "nothing goes out: the VM cannot install the service": (
            """aws.vpc.SecurityGroupEgressRule(
    "outwards", security_group_id=web.id, ip_protocol="-1", cidr_ipv4=ANYWHERE, tags=stack_tags
)""",
            "web",
        ),
        "the bundle's key does not carry its hash": (
            'key=f"bundle-{artifact.sha256[:16]}.tar.gz"',
            'key="bundle.tar.gz"',
        ),
        "destroy leaves the disk": ("delete_on_termination=True", "delete_on_termination=False"),
        "the token stands in the user data": (
            'settings |= {"TOKEN_PARAMETER": token.name, "TOKEN_VERSION": token.version.apply(str)}',
            'settings |= {"API_TOKEN": token.value}',
        ),
        "another token does not reach the VM": (', "TOKEN_VERSION": token.version.apply(str)}', "}"),
        "the VM may read every parameter of the account": (
            '{"Effect": "Deny", "Action": read_parameters',
            '{"Effect": "Deny", "Action": ["ssm:PutParameter"]',
        ),
        "the disk is not tagged": ("delete_on_termination=True, tags=named", "delete_on_termination=True"),
        "the address is attached by its number, not its ID": (
            "allocation_id=address.allocation_id",
            "allocation_id=address.public_ip",
        ),
        "the VM boots before it has its rights": (
            "depends_on=[role_policy, session_manager, outwards, route_association],",
            "depends_on=[outwards, route_association],",
        ),
        "up waits before the address leads to the VM": (
            "depends_on=reachable,",
            "depends_on=[address],",
        ),
        "the address is moved to a VM that may never be ready": (
            "depends_on=[boots]",
            "depends_on=[vm]",
        ),
        "the new VM is asked on the stack's address, which leads to the old one": (
            '    env={"ADDRESS_FILE": vm.public_ip.apply(lambda ip: write_line(f"{stack}.address", ip))},\n',
            "",
        ),
        "the VM's passing address is an input: each refresh shows a change": (
            'write_line(f"{stack}.address", ip)',
            'write_line(f"{ip}.address", ip)',
        ),
        "the VM may read every model of the store's bucket": ('every_key = f"{stored.key_prefix}*"', 'every_key = "*"'),
        "the VM may write its model in the store": (
            '"Action": ["s3:GetObject"], "Resource": [f"{store_arn}/{every_key}"]',
            '"Action": ["s3:GetObject", "s3:PutObject"], "Resource": [f"{store_arn}/{every_key}"]',
        ),
        "the VM may list all of the store's bucket": (', "Condition": listed}', "}"),
        "a VM that follows a store is shipped the model: another version is another VM": (
            "ships_model=not stored",
            "ships_model=True",
        ),
        "the VM is not told where the store is": ('    **({"STORE_URL": stored.url} if stored else {}),\n', ""),
        "a new VM is asked once for all": (
            "    triggers=[vm.id],\n    depends_on=open_ports,",
            "    depends_on=open_ports,",
        ),
        "an amount for whom nobody is told is taken": ("if bool(budget_usd) != bool(budget_email):", "if False:"),
        "a budget that counts what has the tag: on the first day, nothing": (
            '        time_unit="MONTHLY",\n',
            '        time_unit="MONTHLY",\n        cost_filters=[{"name": "TagKeyValue", "values": ["stack$x"]}],\n',
        ),
        "an alarm of actual costs alone comes late": (
            '("ACTUAL", 80), ("FORECASTED", 100)',
            '("ACTUAL", 80), ("ACTUAL", 100)',
        ),
        "the zone may lack the size": ("min(offers.locations, key", "min(all_offers.locations, key"),
        "the zone has fewest of the other sizes": ("(-sizes_by_zone[each], each)", "(sizes_by_zone[each], each)"),
        "an amd64 image on an ARM processor": ('name=f"{IMAGE}/{architecture}"', 'name=f"{IMAGE}/amd64"'),
        "another size stops the only VM": ('        replace_on_changes=["instance_type"],', ""),
        "the region of the settings is ignored": ("region = aws.get_region().region", "region = TARGET.region"),
    },
    "infra/targets.py": {
        "the default size is one that AWS does not sell": ('size="t3.small"', 'size="t3.smal"'),
    },
}
