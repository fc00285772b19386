"""Property paths of what the rules check, by resource type. A path's `*` stands for every item of a list."""

from __future__ import annotations

# Every type of AWS or Google that a program may use is in one of these two: those that carry tags, and where, and those
# that cannot. A VM's tags do not extend to its volume.
TAGS: dict[str, tuple[str, ...]] = {
    "aws:appautoscaling/target:Target": ("tags",),
    "aws:budgets/budget:Budget": ("tags",),
    "aws:cloudwatch/logGroup:LogGroup": ("tags",),
    "aws:ec2/eip:Eip": ("tags",),
    "aws:ec2/instance:Instance": ("tags", "rootBlockDevice.tags"),
    "aws:ec2/internetGateway:InternetGateway": ("tags",),
    "aws:ec2/routeTable:RouteTable": ("tags",),
    "aws:ec2/securityGroup:SecurityGroup": ("tags",),
    "aws:ec2/subnet:Subnet": ("tags",),
    "aws:ec2/vpc:Vpc": ("tags",),
    "aws:ecr/repository:Repository": ("tags",),
    "aws:iam/instanceProfile:InstanceProfile": ("tags",),
    "aws:iam/policy:Policy": ("tags",),
    "aws:iam/role:Role": ("tags",),
    "aws:s3/bucket:Bucket": ("tags",),
    "aws:s3/bucketObjectv2:BucketObjectv2": ("tags",),
    "aws:sagemaker/endpoint:Endpoint": ("tags",),
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": ("tags",),
    "aws:sagemaker/model:Model": ("tags",),
    "aws:ssm/parameter:Parameter": ("tags",),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": ("tags",),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": ("tags",),
    "docker-build:index:Image": ("labels",),
    "gcp:artifactregistry/repository:Repository": ("labels",),
    "gcp:cloudfunctionsv2/function:Function": ("labels",),
    "gcp:cloudrunv2/service:Service": ("labels", "template.labels"),
    "gcp:secretmanager/secret:Secret": ("labels",),
    "gcp:storage/bucket:Bucket": ("labels",),
}
UNTAGGED = {
    "aws:appautoscaling/policy:Policy",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy",
    "aws:ec2/eipAssociation:EipAssociation",
    "aws:ec2/route:Route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:route53/record:Record",
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
    "aws:s3/bucketPolicy:BucketPolicy",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
    "gcp:billing/budget:Budget",
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember",
    "gcp:projects/iAMMember:IAMMember",
    "gcp:projects/service:Service",
    "gcp:secretmanager/secretIamMember:SecretIamMember",
    "gcp:secretmanager/secretVersion:SecretVersion",
    "gcp:serviceaccount/account:Account",
    "gcp:serviceaccount/iAMMember:IAMMember",
    "gcp:storage/bucketIAMMember:BucketIAMMember",
    "gcp:storage/bucketObject:BucketObject",
}

# Types that open ports of a VM.
INGRESS_RULES: dict[str, str] = {
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "",
    "aws:ec2/securityGroup:SecurityGroup": "ingress.*",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": "ingress.*",
}

# Disks, and the property that encrypts them.
DISK_BLOCKS: dict[str, tuple[str, ...]] = {
    "aws:ec2/instance:Instance": ("rootBlockDevice", "ebsBlockDevices.*"),
    "aws:ebs/volume:Volume": ("",),
}

# The account that runs or builds code.
SERVICE_ACCOUNTS: dict[str, tuple[str, ...]] = {
    "aws:sagemaker/model:Model": ("executionRoleArn",),
    "gcp:cloudrunv2/service:Service": ("template.serviceAccount",),
    "gcp:cloudfunctionsv2/function:Function": ("serviceConfig.serviceAccountEmail", "buildConfig.serviceAccount"),
}

# Policy documents of AWS, as JSON text.
POLICY_DOCUMENTS: dict[str, str] = {
    "aws:iam/policy:Policy": "policy",
    "aws:iam/role:Role": "inlinePolicies.*.policy",
    "aws:iam/rolePolicy:RolePolicy": "policy",
}

# Grants on a bucket of Google, and buckets that are mounted.
BUCKET_GRANTS = ("gcp:storage/bucketIAMMember:BucketIAMMember", "gcp:storage/bucketIAMBinding:BucketIAMBinding")
MOUNTED_BUCKETS: dict[str, tuple[str, ...]] = {"gcp:cloudrunv2/service:Service": ("template.volumes.*.gcs",)}

# The maximum number of instances of a service.
MAX_INSTANCE_COUNTS: dict[str, str] = {
    "aws:appautoscaling/target:Target": "maxCapacity",
    "gcp:cloudrunv2/service:Service": "template.scaling.maxInstanceCount",
    "gcp:cloudfunctionsv2/function:Function": "serviceConfig.maxInstanceCount",
    "heroku:formation/formation:Formation": "quantity",
}

# Properties that let `pulumi destroy` delete a resource.
DESTROYABLE: dict[str, tuple[str, bool]] = {
    "aws:ecr/repository:Repository": ("forceDelete", True),
    "aws:s3/bucket:Bucket": ("forceDestroy", True),
    "gcp:storage/bucket:Bucket": ("forceDestroy", True),
    "gcp:cloudrunv2/service:Service": ("deletionProtection", False),
}

# Environments as maps of names to plain values. Cloud Run has a list instead: CONTAINERS. A Command's is none of them:
# it is a process of this machine, its secrets are encrypted in the state, and a rule sees them laid open.
ENV_MAPS: dict[str, tuple[str, ...]] = {
    "gcp:cloudfunctionsv2/function:Function": (
        "serviceConfig.environmentVariables",
        "buildConfig.environmentVariables",
    ),
    "aws:sagemaker/model:Model": ("primaryContainer.environment",),
    "heroku:app/app:App": ("configVars",),
}
CONTAINERS: dict[str, str] = {
    "aws:sagemaker/model:Model": "primaryContainer",
    "gcp:cloudrunv2/service:Service": "template.containers.*",
}
# What AWS allows of all resources or of none.
ACCOUNT_WIDE_ACTIONS = {"ecr:GetAuthorizationToken"}
