"""Google Cloud Functions, second generation: the service as a function that Google builds from a zip."""

import pulumi
import pulumi_gcp as gcp

from infra.artifact import deployment_files, write_zip
from infra.common import StackConfig, export_endpoint
from infra.git_sha import deployed_git_sha
from infra.google import allow_invoker, enable_apis, read_google_settings, wait_for_grants, wait_until_serving
from infra.google_budget import API as BUDGET_API
from infra.google_budget import create_budget, read_budget_settings
from infra.models import model_env
from infra.naming import resource_name, tags
from infra.targets import FUNCTION_ENTRY_POINT, FUNCTION_THREADS_PER_VCPU
from infra.targets import GCP_FUNCTION as TARGET

# The Python of service/Dockerfile; maintained until October 2027. Up to python313 the build uses pip, whose reading of
# requirements.txt is meant; from python314 on it uses uv, which looks for every package in the first index alone.
RUNTIME = "python311"
REQUEST_TIMEOUT_S = 60

# Where Google copies the source before it builds; its documentation of a build account names these three.
SOURCE_BUCKETS = ("gcf-v2-sources-", "gcf-v2-uploads-", "run-sources-")

KEPT_VERSIONS = 3
DELETED_AFTER = "604800s"  # 7 days, in seconds as Google writes it back

# 1. Settings

stack = pulumi.get_stack()
config = StackConfig()
stored = config.stored_model(TARGET)  # its version is shipped; another one comes with another `up`: a release
model = config.model(stored)
engine = config.engine(model)
api_token = config.api_token()
access_env = config.access_env(api_token)
revision = config.revision()
settings = read_google_settings(config, TARGET)
budget = read_budget_settings(config)
config.reject_unknown()

name = resource_name("function", stack)
labels = tags(stack)
# More threads than requests: a request whose client has disconnected holds its thread until it ends
threads = max(settings.concurrency, round(FUNCTION_THREADS_PER_VCPU * float(settings.vcpus)))

# 2. Resources

apis = enable_apis(
    *("cloudfunctions", "run", "cloudbuild", "artifactregistry", "storage", "logging", "iam"),
    *(("secretmanager",) if api_token else ()),
    *((BUDGET_API,) if budget else ()),
)
after_apis = pulumi.ResourceOptions(depends_on=apis)

if budget:
    create_budget(name, budget, settings.project, apis)

# The source. Bucket names are unique across Google, so the project's name is part of it.
bucket = gcp.storage.Bucket(
    "source",
    name=f"{settings.project}-{name}",
    location=settings.region,
    uniform_bucket_level_access=True,
    public_access_prevention="enforced",
    force_destroy=True,
    # Google's default keeps deleted objects for 7 days, and bills them.
    soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=0),
    labels=labels,
    opts=after_apis,
)

# The content's hash is part of the name: a function whose source keeps its name is not built again.
files = deployment_files(engine=engine, target=TARGET.name, model=model)
artifact, git_sha = write_zip(f"{TARGET.name}.zip", files), deployed_git_sha(files)
source = gcp.storage.BucketObject(
    "source",
    bucket=bucket.name,
    name=f"source-{artifact.sha256[:12]}.zip",
    source=pulumi.FileAsset(artifact.path),
    # Going back after a failed update sends the same name again, and the deletion left from before would follow.
    opts=pulumi.ResourceOptions(retain_on_delete=True),
)

# The built image. Google's default repository is never cleaned up, and no destroy deletes it.
repository = gcp.artifactregistry.Repository(
    "images",
    repository_id=name,
    location=settings.region,
    format="DOCKER",
    description="Images of the classifier, built from its source",
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

# The account that builds may write its log, push to this one repository, and read the copies of sources: no other
# bucket of the project, because a build runs what the package index sends.
builder = gcp.serviceaccount.Account(
    "build",
    account_id=resource_name("build", stack),
    display_name="Builds the classifier's function",
    opts=after_apis,
)
in_source_buckets = " || ".join(f'resource.name.startsWith("projects/_/buckets/{start}")' for start in SOURCE_BUCKETS)
grants = [
    gcp.projects.IAMMember(
        "build-log",
        project=settings.project,
        role="roles/logging.logWriter",
        member=builder.member,
    ),
    gcp.artifactregistry.RepositoryIamMember(
        "build-push",
        repository=repository.repository_id,
        location=settings.region,
        role="roles/artifactregistry.writer",
        member=builder.member,
    ),
    gcp.projects.IAMMember(
        "build-read",
        project=settings.project,
        role="roles/storage.objectViewer",
        member=builder.member,
        condition=gcp.projects.IAMMemberConditionArgs(
            title="sources-of-functions",
            description="Only the buckets that Google copies sources to",
            expression=f'resource.type == "storage.googleapis.com/Object" && ({in_source_buckets})',
        ),
    ),
]

# No role in the project: the service can do nothing there.
account = gcp.serviceaccount.Account(
    "run", account_id=name, display_name="Runs the classifier's function", opts=after_apis
)

token_env: list[gcp.cloudfunctionsv2.FunctionServiceConfigSecretEnvironmentVariableArgs] = []
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
    grants.append(
        gcp.secretmanager.SecretIamMember(
            "api-token", secret_id=secret.id, role="roles/secretmanager.secretAccessor", member=account.member
        )
    )
    # The version by its number: another token makes another revision, where "latest" would wait for new instances.
    token_env.append(
        gcp.cloudfunctionsv2.FunctionServiceConfigSecretEnvironmentVariableArgs(
            key="API_TOKEN", project_id=settings.project, secret=secret.secret_id, version=version.version
        )
    )

settled = wait_for_grants([builder, account], grants)

function = gcp.cloudfunctionsv2.Function(
    "function",
    name=name,
    location=settings.region,
    description="Image classifier",
    labels=labels,
    build_config=gcp.cloudfunctionsv2.FunctionBuildConfigArgs(
        runtime=RUNTIME,
        entry_point=FUNCTION_ENTRY_POINT,
        environment_variables=revision or None,  # another is built again, also after a build that failed
        service_account=builder.name,  # in full, as the API wants it
        docker_repository=pulumi.Output.concat(
            f"projects/{settings.project}/locations/{settings.region}/repositories/", repository.repository_id
        ),
        source=gcp.cloudfunctionsv2.FunctionBuildConfigSourceArgs(
            storage_source=gcp.cloudfunctionsv2.FunctionBuildConfigSourceStorageSourceArgs(
                bucket=bucket.name, object=source.name
            )
        ),
    ),
    service_config=gcp.cloudfunctionsv2.FunctionServiceConfigArgs(
        # Both are set: without a CPU, Google derives it from the memory, 0.583 vCPU for 1 GiB.
        available_cpu=settings.vcpus,
        available_memory=settings.memory,
        max_instance_request_concurrency=settings.concurrency,
        min_instance_count=settings.min_instances,
        max_instance_count=settings.max_instances,
        timeout_seconds=REQUEST_TIMEOUT_S,
        ingress_settings="ALLOW_ALL",
        all_traffic_on_latest_revision=True,
        service_account_email=account.email,
        environment_variables={
            **model_env(model.folder.name, engine),
            "GIT_SHA": git_sha,
            "THREADS": str(threads),
            "LOG_EXECUTION_ID": "true",  # Google sets it where it is missing
            **access_env,
            **revision,
        },
        secret_environment_variables=token_env,
    ),
    opts=pulumi.ResourceOptions(depends_on=[*apis, settled]),
)

# Such a function is a Cloud Run service underneath, and only that service's policy decides who may call. A function
# has no switch for everyone, as Cloud Run has: it takes a grant to allUsers.
service = function.service_config.service  # in full
invoker = allow_invoker(service.apply(lambda path: path.rpartition("/")[2]), settings, account)

wait_until_serving(
    function.service_config.uri,
    service,
    settings,
    model=model,
    engine=engine,
    git_sha=git_sha,
    token=api_token if "PROTECT_STATUS" in access_env else None,
    triggers=[artifact.sha256],
    depends_on=[invoker],
)

# 3. Outputs

export_endpoint(TARGET, function.service_config.uri, settings.region, settings.size, model, engine, stored)
