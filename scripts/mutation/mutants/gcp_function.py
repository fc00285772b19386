"""Mutants of the program for Google Cloud Functions."""

PROGRAM = "infra/gcp_function/__main__.py"

MUTANTS = {
    PROGRAM: {
        "the zip holds what is shipped for the default engine": (
            "deployment_files(engine=engine, target=TARGET.name, model=model)",
            "deployment_files(target=TARGET.name, model=model)",
        ),
        "what was shipped again after a failed update is deleted": (
            "opts=pulumi.ResourceOptions(retain_on_delete=True)",
            "opts=None",
        ),
        "the zip does not ask for functions-framework": (
            "deployment_files(engine=engine, target=TARGET.name, model=model)",
            "deployment_files(engine=engine, model=model)",
        ),
        "the right to call is granted on the service's full path": (
            'allow_invoker(service.apply(lambda path: path.rpartition("/")[2]), settings',
            "allow_invoker(service, settings",
        ),
        "the right to call is granted on the function, where it has no effect": (
            'invoker = allow_invoker(service.apply(lambda path: path.rpartition("/")[2]), settings, account)',
            """invoker = gcp.cloudfunctionsv2.FunctionIamMember(
    "invoker", cloud_function=function.name, role="roles/run.invoker", member=settings.invoker or account.member
)""",
        ),
        "the proof is asked for before the right to call is granted": ("depends_on=[invoker]", "depends_on=[]"),
        "the function does not know its commit": ('            "GIT_SHA": git_sha,\n', ""),
        "the object's name does not carry its hash: the function is never built again": (
            'name=f"source-{artifact.sha256[:12]}.zip"',
            'name="source.zip"',
        ),
        "it is built by the project's default account": (
            "        service_account=builder.name,  # in full, as the API wants it\n",
            "",
        ),
        "it runs as the project's default account": ("        service_account_email=account.email,\n", ""),
        "who builds may do almost everything": ('role="roles/logging.logWriter"', 'role="roles/editor"'),
        "who builds may read every bucket": (
            """'resource.type == "storage.googleapis.com/Object" && ({in_source_buckets})'""",
            """'resource.type == "storage.googleapis.com/Object"'""",
        ),
        "the build starts before its grants are known": ("depends_on=[*apis, settled]", "depends_on=apis"),
        "the concurrency is left to Google": ("        max_instance_request_concurrency=settings.concurrency,\n", ""),
        "as many instances as Google likes": ("        max_instance_count=settings.max_instances,\n", ""),
        "the token is a plain variable too": (
            "            **model_env(model.folder.name, engine),\n",
            '            **model_env(model.folder.name, engine),\n            "API_TOKEN": api_token or "",\n',
        ),
        "destroy fails: the bucket is not empty": ("    force_destroy=True,\n", ""),
        "deleted sources are kept, and billed, for a week": (
            "    soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=0),\n",
            "",
        ),
        "the image goes to a repository that no destroy deletes": (
            """        docker_repository=pulumi.Output.concat(
            f"projects/{settings.project}/locations/{settings.region}/repositories/", repository.repository_id
        ),
""",
            "",
        ),
        "the region of the settings is ignored": (
            '    location=settings.region,\n    description="Image classifier"',
            '    location=TARGET.region,\n    description="Image classifier"',
        ),
    },
    "infra/google.py": {
        "the wait for grants is over before they are made": (
            "*(grant.id for grant in grants)],\n        opts=pulumi.ResourceOptions(depends_on=grants),\n",
            "],\n",
        ),
    },
    "infra/waits/google_wait.py": {
        "the wait for grants is far too short": ("time.sleep(120)", "time.sleep(1.20)"),
    },
}
