"""Google Cloud Run: the service as a container that scales from zero to a few instances."""

import pulumi
import pulumi_docker_build as docker_build
import pulumi_gcp as gcp

from infra.artifact import REPOSITORY, deployment_files, write_folder
from infra.common import StackConfig, export_endpoint
from infra.errors import ConfigError
from infra.git_sha import deployed_git_sha
from infra.google import allow_invoker, enable_apis, read_google_settings, wait_for_grants, wait_until_serving
from infra.google_budget import API as BUDGET_API
from infra.google_budget import create_budget, read_budget_settings
from infra.models import followed_env, model_env
from infra.naming import resource_name, tags
from infra.targets import GCP_CLOUDRUN as TARGET

PORT = 8080
REQUEST_TIMEOUT_S = 60  # the largest batch on half a processor is done long before

# Every second, because a request waits for the first success. 240 s is the longest window allowed everywhere.
STARTUP_PERIOD_S = 1
# An instance is killed after 90 s without a response, longer than any request may take: a slow body in every thread is
# no reason to kill it.
LIVENESS_PERIOD_S, LIVENESS_FAILURES = 30, 3

KEPT_VERSIONS = 5  # a push makes one: docker-build adds no attestations
DELETED_AFTER = "604800s"  # 7 days, in seconds as Google writes it back

# Where the store's bucket is mounted, by Cloud Storage FUSE; infra/gcp_cloudrun/models.txt says what that means.
MOUNT, VOLUME = "/mnt/models", "models"
STORE_POLL_S = 30  # between two looks at the alias: each is a request to Google, of every instance that is awake
IN_PLACE_OF_MODELS = {"models/models.txt": REPOSITORY / "infra" / "gcp_cloudrun" / "models.txt"}  # the image copies it

# 1. Settings

stack = pulumi.get_stack()
config = StackConfig()
stored = config.stored_model(TARGET)  # instances go on to follow the alias, in the mounted bucket
model = config.model(stored)
engine = config.engine(model)
api_token = config.api_token()
access_env = config.access_env(api_token)
revision = config.revision()
settings = read_google_settings(config, TARGET)
budget = read_budget_settings(config)
config.reject_unknown()
generation = 1 if float(settings.vcpus) < 1 else 2  # less than one processor is sold in the first generation only
if stored and generation == 1:
    raise ConfigError(
        f"cloudtrial:vcpus is {settings.vcpus}; a bucket (cloudtrial:modelStore) is mounted with 1 or more only"
    )

name = resource_name("run", stack)
labels = tags(stack)

# 2. Resources

apis = enable_apis(
    *("run", "artifactregistry", "iam"),
    *(("secretmanager",) if api_token else ()),
    *((BUDGET_API,) if budget else ()),
)
after_apis = pulumi.ResourceOptions(depends_on=apis)

if budget:
    create_budget(name, budget, settings.project, apis)

repository = gcp.artifactregistry.Repository(
    "images",
    repository_id=name,
    location=settings.region,
    format="DOCKER",
    description="Images of the classifier",
    # Every image has a tag of its own, so age decides, not whether there is a tag. What is kept wins over what is
    # deleted; Cloud Run holds a copy of what it serves, so that not even a deleted image stops it.
    cleanup_policies=[
        gcp.artifactregistry.RepositoryCleanupPolicyArgs(
            id="keep-newest",
            action="KEEP",
            most_recent_versions=gcp.artifactregistry.RepositoryCleanupPolicyMostRecentVersionsArgs(
                keep_count=KEPT_VERSIONS
            ),
        ),
        gcp.artifactregistry.RepositoryCleanupPolicyArgs(
            id="delete-old",
            action="DELETE",
            condition=gcp.artifactregistry.RepositoryCleanupPolicyConditionArgs(
                tag_state="ANY", older_than=DELETED_AFTER
            ),
        ),
    ],
    cleanup_policy_dry_run=False,
    labels=labels,
    opts=after_apis,
)

# Built here by BuildKit (Docker's, or one that `docker buildx` knows) and pushed with the short-lived token that
# Google's provider itself holds. The tag is the content's hash: the same files are built once.
extra = IN_PLACE_OF_MODELS if stored else {}
files = deployment_files(extra, engine, model=model, ships_model=not stored)
artifact, git_sha = write_folder(TARGET.name, files), deployed_git_sha(files)
registry = f"{settings.region}-docker.pkg.dev"
image = docker_build.Image(
    "image",
    tags=[
        pulumi.Output.concat(
            registry, "/", settings.project, "/", repository.repository_id, "/service:", artifact.sha256[:12]
        )
    ],
    context=docker_build.BuildContextArgs(location=artifact.path),
    dockerfile=docker_build.DockerfileArgs(location=f"{artifact.path}/service/Dockerfile"),
    build_args={"ENGINE": engine},
    platforms=[docker_build.Platform.LINUX_AMD64],
    push=True,
    build_on_preview=False,
    registries=[
        docker_build.RegistryArgs(
            address=registry,
            username="oauth2accesstoken",
            password=pulumi.Output.secret(gcp.organizations.get_client_config_output().access_token),
        )
    ],
    labels=labels,
)

# No role in the project: the service can do nothing there.
account = gcp.serviceaccount.Account(
    "run", account_id=name, display_name="Runs the classifier on Cloud Run", opts=after_apis
)

env = [
    gcp.cloudrunv2.ServiceTemplateContainerEnvArgs(name=key, value=value)
    for key, value in (
        (followed_env(str(stored.reference), engine, MOUNT) if stored else model_env(model.folder.name, engine))
        | ({"MODEL_POLL_S": str(STORE_POLL_S)} if stored else {})
        | {"WEB_THREADS": str(settings.concurrency), "GIT_SHA": git_sha}
        | access_env
        | revision
    ).items()
]
before_service: list[pulumi.Resource] = [*apis]
grants: list[pulumi.CustomResource] = []
if api_token:
    secret = gcp.secretmanager.Secret(
        "api-token",
        secret_id=name,
        replication=gcp.secretmanager.SecretReplicationArgs(auto=gcp.secretmanager.SecretReplicationAutoArgs()),
        deletion_protection=False,
        labels=labels,
        opts=after_apis,
    )
    version = gcp.secretmanager.SecretVersion("api-token", secret=secret.id, secret_data=api_token)
    accessor = gcp.secretmanager.SecretIamMember(
        "api-token", secret_id=secret.id, role="roles/secretmanager.secretAccessor", member=account.member
    )
    # The version by its number: another token makes another revision, where "latest" would wait for new instances.
    token_source = gcp.cloudrunv2.ServiceTemplateContainerEnvValueSourceArgs(
        secret_key_ref=gcp.cloudrunv2.ServiceTemplateContainerEnvValueSourceSecretKeyRefArgs(
            secret=secret.secret_id, version=version.version
        )
    )
    env.append(gcp.cloudrunv2.ServiceTemplateContainerEnvArgs(name="API_TOKEN", value_source=token_source))
    grants.append(accessor)

# The store's bucket, which is not this stack's: it may be read, and is mounted read-only.
volumes: list[gcp.cloudrunv2.ServiceTemplateVolumeArgs] = []
mounts: list[gcp.cloudrunv2.ServiceTemplateContainerVolumeMountArgs] = []
if stored:
    grants.append(
        gcp.storage.BucketIAMMember(
            "store", bucket=stored.bucket, role="roles/storage.objectViewer", member=account.member
        )
    )
    # implicit-dirs: folders that are nothing but a part of their objects' names are seen.
    only_dir = [f"only-dir={stored.prefix}"] if stored.prefix else []
    mounted = gcp.cloudrunv2.ServiceTemplateVolumeGcsArgs(
        bucket=stored.bucket, read_only=True, mount_options=["implicit-dirs", *only_dir]
    )
    volumes.append(gcp.cloudrunv2.ServiceTemplateVolumeArgs(name=VOLUME, gcs=mounted))
    mounts.append(gcp.cloudrunv2.ServiceTemplateContainerVolumeMountArgs(name=VOLUME, mount_path=MOUNT))

if grants:
    before_service.append(wait_for_grants([account], grants))

service = gcp.cloudrunv2.Service(
    "service",
    name=name,
    location=settings.region,
    ingress="INGRESS_TRAFFIC_ALL",
    # Everyone by the service's own switch, not by a grant to allUsers, which many an organisation forbids. It is set at
    # once with whatever else is changed: from "everyone" to someone there is no moment in which everyone still may.
    invoker_iam_disabled=settings.public,
    deletion_protection=False,  # the provider's default forbids `pulumi destroy`
    labels=labels,
    template=gcp.cloudrunv2.ServiceTemplateArgs(
        service_account=account.email,
        execution_environment=f"EXECUTION_ENVIRONMENT_GEN{generation}",
        timeout=f"{REQUEST_TIMEOUT_S}s",
        # The network uses every core for each image, so more concurrent requests would only queue inside.
        # Cloud Run's own 80 would hide the load from its autoscaler.
        max_instance_request_concurrency=settings.concurrency,
        scaling=gcp.cloudrunv2.ServiceTemplateScalingArgs(
            min_instance_count=settings.min_instances, max_instance_count=settings.max_instances
        ),
        labels=labels,
        volumes=volumes or None,
        containers=[
            gcp.cloudrunv2.ServiceTemplateContainerArgs(
                image=image.ref,  # by digest: exactly the image built above
                ports=gcp.cloudrunv2.ServiceTemplateContainerPortsArgs(container_port=PORT),
                envs=env,
                volume_mounts=mounts or None,
                resources=gcp.cloudrunv2.ServiceTemplateContainerResourcesArgs(
                    limits={"cpu": settings.vcpus, "memory": settings.memory},
                    cpu_idle=True,  # request-based billing: between requests an instance costs nothing
                    startup_cpu_boost=TARGET.startup_cpu_boost,
                ),
                startup_probe=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeArgs(
                    http_get=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeHttpGetArgs(path="/readyz", port=PORT),
                    period_seconds=STARTUP_PERIOD_S,
                    timeout_seconds=STARTUP_PERIOD_S,
                    failure_threshold=TARGET.boot_timeout_s // STARTUP_PERIOD_S,
                ),
                liveness_probe=gcp.cloudrunv2.ServiceTemplateContainerLivenessProbeArgs(
                    http_get=gcp.cloudrunv2.ServiceTemplateContainerLivenessProbeHttpGetArgs(
                        path="/healthz", port=PORT
                    ),
                    period_seconds=LIVENESS_PERIOD_S,
                    timeout_seconds=LIVENESS_PERIOD_S,
                    failure_threshold=LIVENESS_FAILURES,
                ),
            )
        ],
    ),
    # Google fills in the service's own scaling, beside the template's, with zeros: after a refresh a change for ever.
    opts=pulumi.ResourceOptions(depends_on=before_service, ignore_changes=["scaling"]),
)
callable_by = [] if settings.public else [allow_invoker(service.name, settings, account)]

wait_until_serving(
    service.uri,
    service.id,
    settings,
    model=model,
    engine=engine,
    git_sha=git_sha,
    token=api_token if "PROTECT_STATUS" in access_env else None,
    triggers=[image.ref],
    depends_on=callable_by,
)

# 3. Outputs

export_endpoint(TARGET, service.uri, settings.region, settings.size, model, engine, stored)
