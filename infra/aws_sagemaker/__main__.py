"""AWS SageMaker: the service behind an endpoint, on instances that follow the traffic, or serverless.

Model and configuration cannot be changed: another one is made beside the old one, the endpoint goes over to it once it
answers, and the old one is deleted. Pulumi draws the end of their names: after a failure the endpoint serves by the old
ones, which stay, names and all, until an `up` has passed. So one may go back, which makes the same anew.

AWS refuses another instance type of a variant that is scaled, and makes no serverless one of instances. So another size
is another endpoint, with a log, a model and a configuration of its own. The size is in their names, and in the
program's names of them, so the old ones stay whole until `up` has proven the new endpoint, also where that fails and
one goes back.
"""

import json

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as docker_build

from infra.artifact import REPOSITORY, deployment_files, write_folder
from infra.aws_sagemaker.mounted_model import IN_PLACE_OF_MODELS, mounted_version, read_statements, version_uri
from infra.aws_sagemaker.probe import probe_env
from infra.common import StackConfig, export_endpoint
from infra.errors import ConfigError
from infra.git_sha import deployed_git_sha
from infra.models import model_env
from infra.naming import endpoint_name, resource_name, tags
from infra.readiness import wait_until_ready
from infra.size_limits import MAX_SAGEMAKER_INSTANCES, check_sagemaker
from infra.targets import AWS_SAGEMAKER as TARGET
from infra.targets import SAGEMAKER_SIZES, sagemaker_target

VARIANT = "main"  # of every configuration: the autoscaler knows it by this name
# Of one instance, above which another is started: half of what two vCPUs do at 100 ms each, as AWS advises half.
INVOCATIONS_PER_MINUTE = 300
SCALE_OUT_COOLDOWN_S, SCALE_IN_COOLDOWN_S = 60, 300  # the effect of an instance is seen minutes after its start
KEPT_IMAGES = 5  # an instance that is started later pulls its image again: the newest have to stay
LOG_DAYS = 30
READY_TIMEOUT_S = 180  # AWS's provider has waited until the endpoint is in service

# 1. Settings

stack = pulumi.get_stack()
config = StackConfig()
stored = config.stored_model(TARGET)  # another version comes with another `up`: a release
model = config.model(stored)
engine = config.engine(model)
revision = config.revision()
size = config.choice("size", TARGET.size, SAGEMAKER_SIZES)
target = sagemaker_target(size)
serverless = target.billing == "serverless"
mounted = mounted_version(stored, serverless=serverless)  # at /opt/ml/model, so that another one needs no other image
least = config.integer("minInstances", 0 if serverless else 1, 1, MAX_SAGEMAKER_INSTANCES)
most = config.integer("maxInstances", target.max_instances, 1, MAX_SAGEMAKER_INSTANCES)
per_minute = config.integer("invocationsPerMinute", INVOCATIONS_PER_MINUTE, 1, 1_000_000)
config.reject_unknown()
check_sagemaker(size, least, most)

region = aws.get_region().region
if region.startswith(("cn-", "us-gov-")):
    raise ConfigError(f"aws:region is {region!r}; this program names its resources as regions outside it do (arn:aws:)")
name = resource_name("endpoint", stack)
name_with_size = endpoint_name(stack, size)
stack_tags = tags(stack)

# 2. Resources

repository = aws.ecr.Repository("images", name=name, force_delete=True, tags=stack_tags)
lifecycle = aws.ecr.LifecyclePolicy(
    "images",
    repository=repository.name,
    policy=json.dumps(
        {
            "rules": [
                {
                    "rulePriority": 1,
                    "description": "keep the newest",
                    "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": KEPT_IMAGES},
                    "action": {"type": "expire"},
                }
            ]
        }
    ),
)

# Built here by BuildKit and pushed with a password that AWS gives for twelve hours. The tag is the content's hash: the
# same files are built once. SageMaker refuses OCI's manifests; attestations, which need them, docker-build adds none.
extra = IN_PLACE_OF_MODELS if mounted else {}
files = deployment_files(extra, engine, TARGET.name, model, ships_model=not mounted)
artifact, git_sha = write_folder(TARGET.name, files), deployed_git_sha(files)
login = aws.ecr.get_authorization_token_output(registry_id=repository.registry_id)
image = docker_build.Image(
    "image",
    tags=[pulumi.Output.concat(repository.repository_url, ":", artifact.sha256[:12])],
    context=docker_build.BuildContextArgs(location=artifact.path),
    dockerfile=docker_build.DockerfileArgs(location=f"{artifact.path}/service/Dockerfile"),
    target="sagemaker",
    build_args={"ENGINE": engine},
    platforms=[docker_build.Platform.LINUX_AMD64],
    exports=[docker_build.ExportArgs(registry=docker_build.ExportRegistryArgs(oci_media_types=False))],
    push=False,  # it would be one more export, with manifests as BuildKit likes
    build_on_preview=False,
    registries=[
        docker_build.RegistryArgs(
            address=repository.repository_url, username=login.user_name, password=pulumi.Output.secret(login.password)
        )
    ],
    labels=stack_tags,
)

# The group to which SageMaker writes what the service prints. Made here, it has an end, and goes with the stack.
log_group = aws.cloudwatch.LogGroup(
    f"log-{size}", name=f"/aws/sagemaker/Endpoints/{name_with_size}", retention_in_days=LOG_DAYS, tags=stack_tags
)

# What runs may pull its image, read its model where that is mounted, and write to its log; a password for the registry
# is of all registries or none.
role = aws.iam.Role(
    resource_name("sagemaker", stack),
    assume_role_policy=json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "sagemaker.amazonaws.com"}}
            ],
        }
    ),
    tags=stack_tags,
)
role_policy = aws.iam.RolePolicy(
    f"sagemaker-{size}",
    role=role.name,
    policy=pulumi.Output.json_dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                    "Resource": [repository.arn],
                },
                {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": ["*"]},
                {
                    "Effect": "Allow",
                    "Action": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    "Resource": [log_group.arn, pulumi.Output.concat(log_group.arn, ":*")],
                },
                *(read_statements(mounted) if mounted else []),
            ],
        }
    ),
)

env = model_env(model.folder.name, engine) | {"GIT_SHA": git_sha} | revision
data = None
if mounted:
    folder = aws.sagemaker.ModelPrimaryContainerModelDataSourceS3DataSourceArgs(
        s3_uri=version_uri(mounted), s3_data_type="S3Prefix", compression_type="None"
    )
    data = aws.sagemaker.ModelPrimaryContainerModelDataSourceArgs(s3_data_sources=[folder])
served = aws.sagemaker.Model(
    name_with_size,
    execution_role_arn=role.arn,
    primary_container=aws.sagemaker.ModelPrimaryContainerArgs(
        image=pulumi.Output.concat(repository.repository_url, "@", image.digest),  # with a tag too, AWS documents none
        environment=env,
        model_data_source=data,
    ),
    tags=stack_tags,
    opts=pulumi.ResourceOptions(depends_on=[role_policy]),
)

if serverless:
    variant = aws.sagemaker.EndpointConfigurationProductionVariantArgs(
        variant_name=VARIANT,
        model_name=served.name,
        serverless_config=aws.sagemaker.EndpointConfigurationProductionVariantServerlessConfigArgs(
            memory_size_in_mb=target.memory_mib, max_concurrency=most
        ),
    )
else:
    variant = aws.sagemaker.EndpointConfigurationProductionVariantArgs(
        variant_name=VARIANT,
        model_name=served.name,
        instance_type=size,
        initial_instance_count=least,
        container_startup_health_check_timeout_in_seconds=TARGET.boot_timeout_s,
    )
configuration = aws.sagemaker.EndpointConfiguration(
    name_with_size,
    production_variants=[variant],
    tags=stack_tags,
)

# Of one size it keeps its name; an update that fails leaves it with the configuration that it had.
endpoint = aws.sagemaker.Endpoint(
    f"endpoint-{size}",
    name=name_with_size,
    endpoint_config_name=configuration.name,
    tags=stack_tags,
    opts=pulumi.ResourceOptions(depends_on=[log_group]),
)

# More instances while each has more requests than that, and fewer after a quarter of an hour with less.
if not serverless and most > least:
    scaling = aws.appautoscaling.Target(
        f"instances-{size}",
        service_namespace="sagemaker",
        scalable_dimension="sagemaker:variant:DesiredInstanceCount",
        resource_id=pulumi.Output.concat("endpoint/", endpoint.name, "/variant/", VARIANT),
        min_capacity=least,
        max_capacity=most,
        tags=stack_tags,
    )
    aws.appautoscaling.Policy(
        f"instances-{size}",
        name=name_with_size,
        policy_type="TargetTrackingScaling",
        service_namespace=scaling.service_namespace,
        scalable_dimension=scaling.scalable_dimension,
        resource_id=scaling.resource_id,
        target_tracking_scaling_policy_configuration=aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs(
            target_value=per_minute,
            scale_out_cooldown=SCALE_OUT_COOLDOWN_S,
            scale_in_cooldown=SCALE_IN_COOLDOWN_S,
            predefined_metric_specification=aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationPredefinedMetricSpecificationArgs(
                predefined_metric_type="SageMakerVariantInvocationsPerInstance"
            ),
        ),
    )

# `up` ends when signed calls are answered by what was sent.
url = f"https://runtime.sagemaker.{region}.amazonaws.com"
profile = pulumi.Config("aws").get("profile")
wait_until_ready(
    "ready",
    url,
    model=model,
    engine=engine,
    git_sha=git_sha,
    timeout_s=READY_TIMEOUT_S,
    advice=pulumi.Output.concat(
        "Its log: aws logs tail ", log_group.name, " --region ", region, f" --profile {profile}" if profile else ""
    ),
    script=REPOSITORY / "infra" / "waits" / "sagemaker_ready.py",
    env={
        "API_URL": f"https://api.sagemaker.{region}.amazonaws.com",
        "REGION": region,
        "ENDPOINT": endpoint.name,  # so that it waits for the endpoint
        "CONFIG": configuration.name,
        **probe_env(model),
        **({"PROFILE": profile} if profile else {}),
    },
    triggers=[configuration.name],
)

# 3. Outputs

export_endpoint(TARGET, url, region, size, model, engine, stored)
pulumi.export("endpoint", endpoint.name)
