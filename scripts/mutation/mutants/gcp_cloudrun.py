"""Mutants of the program for Google Cloud Run, and in the settings that both Google programs read."""

PROGRAM = "infra/gcp_cloudrun/__main__.py"
SETTINGS = "infra/google.py"
BUDGET = "infra/google_budget.py"

MUTANTS = {
    PROGRAM: {
        "the provider's default forbids destroy": (
            "    deletion_protection=False,  # the provider's default forbids `pulumi destroy`\n",
            "",
        ),
        "it runs as the default account": ("        service_account=account.email,\n", ""),
        "the image is named by its tag, not its digest": (
            "image=image.ref,",
            "image=image.tags.apply(lambda tags: tags[0]),",
        ),
        "the right to call is granted on a name that no service has": (
            "allow_invoker(service.name, settings, account)",
            'allow_invoker("service", settings, account)',
        ),
        "everyone may call, whoever was asked for": (
            "invoker_iam_disabled=settings.public",
            "invoker_iam_disabled=True",
        ),
        "everyone may call by a grant, which organisations forbid": (
            "[] if settings.public else [allow_invoker(service.name, settings, account)]",
            "[allow_invoker(service.name, settings, account)]",
        ),
        "the proof is asked for before the right to call is granted": ("depends_on=callable_by", "depends_on=[]"),
        "the service does not know its commit": (', "GIT_SHA": git_sha}', "}"),
        "what Google fills in is a change for ever": (', ignore_changes=["scaling"]', ""),
        "another image is not asked whether it is ready": ("triggers=[image.ref]", "triggers=[]"),
        "the token is a plain variable": (
            'EnvArgs(name="API_TOKEN", value_source=token_source)',
            'EnvArgs(name="API_TOKEN", value=api_token)',
        ),
        "the service starts before it may read its token": (
            "    grants.append(accessor)\n",
            "",
        ),
        "the service starts before its right to read the token is known": (
            "before_service.append(wait_for_grants([account], grants))",
            "before_service.extend(grants)",
        ),
        "the service starts before its right to read the store is known": ("if grants:", "if api_token:"),
        "the store's bucket is mounted to be written": ("read_only=True, mount", "read_only=False, mount"),
        "the service may write the store's bucket": ("roles/storage.objectViewer", "roles/storage.objectAdmin"),
        "folders of the store that no object is named for are not seen": ('["implicit-dirs", *only_dir]', "only_dir"),
        "the store is looked for at its bucket's root": (
            '[f"only-dir={stored.prefix}"] if stored.prefix',
            "[] if True",
        ),
        "a bucket is mounted where Google mounts none": ("if stored and generation == 1:", "if False:"),
        "80 requests at once in one instance, Google's default": (
            "        max_instance_request_concurrency=settings.concurrency,\n",
            "",
        ),
        "as many instances as Google likes": (", max_instance_count=settings.max_instances", ""),
        "images are never deleted: each has a tag": ('tag_state="ANY"', 'tag_state="UNTAGGED"'),
        "nothing waits until the APIs are on": (
            "after_apis = pulumi.ResourceOptions(depends_on=apis)",
            "after_apis = pulumi.ResourceOptions()",
        ),
        "the region of the settings is ignored": (
            '    location=settings.region,\n    ingress="INGRESS_TRAFFIC_ALL"',
            '    location=TARGET.region,\n    ingress="INGRESS_TRAFFIC_ALL"',
        ),
        "an absolute path: every machine builds anew": (
            "BuildContextArgs(location=artifact.path)",
            'BuildContextArgs(location=__import__("os").path.abspath(artifact.path))',
        ),
        "the image is of this machine's kind: an Apple's is for ARM": (
            "    platforms=[docker_build.Platform.LINUX_AMD64],\n",
            "",
        ),
        "the image is built of the default engine's stage": ('    build_args={"ENGINE": engine},\n', ""),
        "the image holds what is shipped for the default engine": (
            "deployment_files(extra, engine, model=model, ",
            "deployment_files(extra, model=model, ",
        ),
        "the registry's password is in clear": (
            "pulumi.Output.secret(gcp.organizations.get_client_config_output().access_token)",
            "gcp.organizations.get_client_config_output().access_token",
        ),
        "ready before the model is loaded": (
            'StartupProbeHttpGetArgs(path="/readyz"',
            'StartupProbeHttpGetArgs(path="/healthz"',
        ),
    },
    SETTINGS: {
        "someone else may call": ("member=settings.invoker or account.member", "member=account.member"),
        "the old right to call stays until all has passed": (
            "delete_before_replace=True",
            "delete_before_replace=False",
        ),
        "the old revision passes for the new one": (
            '"READY_REVISION": live.latest_ready_revision',
            '"READY_REVISION": live.latest_created_revision',
        ),
        "a failed revision is not asked about again": (
            "triggers=[*triggers, live.latest_created_revision, live.latest_ready_revision]",
            "triggers=[*triggers]",
        ),
        "who may not call asks without a token": (
            '**({} if settings.public else {"IDENTITY_TOKEN": "gcloud"})',
            "**{}",
        ),
        "destroy switches off APIs that others use": ("disable_on_destroy=False", "disable_on_destroy=True"),
        "an API is switched on before the one that the provider asks": (
            "*(_enable(name, first) for name in names)",
            "*(_enable(name) for name in names)",
        ),
    },
    "infra/size_limits.py": {
        "a fraction of a processor with several requests at once": (
            "if float(vcpus) < 1 < concurrency:",
            "if float(vcpus) < 0 < concurrency:",
        ),
    },
    BUDGET: {
        "the budget of one project is that of all": (
            'projects=[pulumi.Output.concat("projects/", number)], calendar_period',
            "calendar_period",
        ),
        "the mail comes when the money is spent": ('(1.0, "FORECASTED_SPEND")', '(1.0, "CURRENT_SPEND")'),
        "the budget is refused to a user, who does not say which project asks": (
            "opts=pulumi.ResourceOptions(provider=provider)",
            "opts=pulumi.ResourceOptions()",
        ),
        "the budget's API is asked before it is on": (
            "pulumi.InvokeOutputOptions(depends_on=apis)",
            "pulumi.InvokeOutputOptions()",
        ),
        "an amount without an account makes no budget, silently": (
            "    if account is None and not usd:",
            "    if account is None or not usd:",
        ),
    },
}
