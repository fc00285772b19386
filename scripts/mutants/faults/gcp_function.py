"""Faults in the program for Google Cloud Functions."""

from __future__ import annotations

from scripts.mutants.fault import Fault

TARGET = "gcp_function"
PROGRAM = "infra/gcp_function/__main__.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        TARGET,
        "the zip holds what is shipped for the default engine",
        PROGRAM,
        "deployment_files(engine=engine, target=TARGET.name)",
        "deployment_files(target=TARGET.name)",
    ),
    Fault(
        TARGET,
        "the zip does not ask for functions-framework",
        PROGRAM,
        "deployment_files(engine=engine, target=TARGET.name)",
        "deployment_files(engine=engine)",
    ),
    Fault(
        TARGET,
        "the right to call is granted on the service's full path",
        PROGRAM,
        'name=function.service_config.service.apply(lambda path: path.rpartition("/")[2]),',
        "name=function.service_config.service,",
    ),
    Fault(
        TARGET,
        "the right to call is granted on the function, where it has no effect",
        PROGRAM,
        """gcp.cloudrunv2.ServiceIamMember(
        "invoker",
        name=function.service_config.service.apply(lambda path: path.rpartition("/")[2]),""",
        """gcp.cloudfunctionsv2.FunctionIamMember(
        "invoker",
        cloud_function=function.name,""",
    ),
    Fault(
        TARGET,
        "the object's name does not carry its hash: the function is never built again",
        PROGRAM,
        'name=f"source-{artifact.sha256[:12]}.zip"',
        'name="source.zip"',
    ),
    Fault(
        TARGET,
        "it is built by the project's default account",
        PROGRAM,
        "        service_account=builder.name,  # in full, as the API wants it\n",
        "",
    ),
    Fault(
        TARGET,
        "it runs as the project's default account",
        PROGRAM,
        "        service_account_email=account.email,\n",
        "",
    ),
    Fault(
        TARGET,
        "who builds may do almost everything",
        PROGRAM,
        'role="roles/logging.logWriter"',
        'role="roles/editor"',
    ),
    Fault(
        TARGET,
        "who builds may read every bucket",
        PROGRAM,
        """'resource.type == "storage.googleapis.com/Object" && ({in_source_buckets})'""",
        """'resource.type == "storage.googleapis.com/Object"'""",
    ),
    Fault(
        TARGET,
        "the build starts before its grants are known",
        PROGRAM,
        "depends_on=[*apis, settled]",
        "depends_on=apis",
    ),
    Fault(
        TARGET,
        "the wait for grants is over before they are made",
        PROGRAM,
        """    triggers=[builder.unique_id, account.unique_id, *(grant.id for grant in grants)],
    opts=pulumi.ResourceOptions(depends_on=grants),
""",
        "    triggers=[builder.unique_id, account.unique_id],\n",
    ),
    Fault(
        TARGET,
        "the wait for grants is far too short",
        "infra/gcp_function/wait.py",
        "time.sleep(120)",
        "time.sleep(1.20)",
    ),
    Fault(
        TARGET,
        "a Procfile that is started instead of the function",
        PROGRAM,
        'EXCLUDED = ("Procfile",)',
        "EXCLUDED = ()",
    ),
    Fault(
        TARGET,
        "the concurrency is left to Google",
        PROGRAM,
        "        max_instance_request_concurrency=settings.concurrency,\n",
        "",
    ),
    Fault(
        TARGET,
        "as many instances as Google likes",
        PROGRAM,
        "        max_instance_count=settings.max_instances,\n",
        "",
    ),
    Fault(
        TARGET,
        "the token is a plain variable too",
        PROGRAM,
        '            "ENGINE": engine,\n',
        '            "ENGINE": engine,\n            "API_TOKEN": api_token or "",\n',
    ),
    Fault(TARGET, "destroy fails: the bucket is not empty", PROGRAM, "    force_destroy=True,\n", ""),
    Fault(
        TARGET,
        "deleted sources are kept, and billed, for a week",
        PROGRAM,
        "    soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=0),\n",
        "",
    ),
    Fault(
        TARGET,
        "the image goes to a repository that no destroy deletes",
        PROGRAM,
        """        docker_repository=pulumi.Output.concat(
            f"projects/{settings.project}/locations/{settings.region}/repositories/", repository.repository_id
        ),
""",
        "",
    ),
    Fault(
        TARGET,
        "the region of the settings is ignored",
        PROGRAM,
        '    location=settings.region,\n    description="Image classifier"',
        '    location=TARGET.region,\n    description="Image classifier"',
    ),
)
