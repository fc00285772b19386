"""Faults in the program for Google Cloud Run, and in the settings that both Google programs read."""

from __future__ import annotations

from scripts.mutants.fault import Fault

TARGET = "gcp_cloudrun"
PROGRAM = "infra/gcp_cloudrun/__main__.py"
SETTINGS = "infra/google.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        TARGET,
        "the provider's default forbids destroy",
        PROGRAM,
        "    deletion_protection=False,  # the provider's default forbids `pulumi destroy`\n",
        "",
    ),
    Fault(TARGET, "it runs as the default account", PROGRAM, "        service_account=account.email,\n", ""),
    Fault(
        TARGET,
        "the image is named by its tag, not its digest",
        PROGRAM,
        "image=image.ref,",
        "image=image.tags.apply(lambda tags: tags[0]),",
    ),
    Fault(
        TARGET,
        "the right to call is granted on a name that no service has",
        PROGRAM,
        '        "invoker",\n        name=service.name,',
        '        "invoker",\n        name="service",',
    ),
    Fault(
        TARGET,
        "everyone may call, whoever was asked for",
        PROGRAM,
        "member=settings.invoker,",
        'member="allUsers",',
    ),
    Fault(
        TARGET,
        "the token is a plain variable",
        PROGRAM,
        'EnvArgs(name="API_TOKEN", value_source=token_source)',
        'EnvArgs(name="API_TOKEN", value=api_token)',
    ),
    Fault(
        TARGET,
        "the service starts before it may read its token",
        PROGRAM,
        "    before_service.append(accessor)\n",
        "",
    ),
    Fault(
        TARGET,
        "80 requests at once in one instance, Google's default",
        PROGRAM,
        "        max_instance_request_concurrency=settings.concurrency,\n",
        "",
    ),
    Fault(
        TARGET,
        "as many instances as Google likes",
        PROGRAM,
        ", max_instance_count=settings.max_instances",
        "",
    ),
    Fault(TARGET, "images are never deleted: each has a tag", PROGRAM, 'tag_state="ANY"', 'tag_state="UNTAGGED"'),
    Fault(
        TARGET,
        "nothing waits until the APIs are on",
        PROGRAM,
        "after_apis = pulumi.ResourceOptions(depends_on=apis)",
        "after_apis = pulumi.ResourceOptions()",
    ),
    Fault(
        TARGET,
        "destroy switches off APIs that others use",
        PROGRAM,
        "disable_on_destroy=False",
        "disable_on_destroy=True",
    ),
    Fault(
        TARGET,
        "the region of the settings is ignored",
        PROGRAM,
        '    location=settings.region,\n    ingress="INGRESS_TRAFFIC_ALL"',
        '    location=TARGET.region,\n    ingress="INGRESS_TRAFFIC_ALL"',
    ),
    Fault(
        TARGET,
        "an absolute path: every machine builds anew",
        PROGRAM,
        "BuildContextArgs(location=artifact.path)",
        'BuildContextArgs(location=__import__("os").path.abspath(artifact.path))',
    ),
    Fault(
        TARGET,
        "the image is of this machine's kind: an Apple's is for ARM",
        PROGRAM,
        "    platforms=[docker_build.Platform.LINUX_AMD64],\n",
        "",
    ),
    Fault(
        TARGET,
        "the image is built of the default engine's stage",
        PROGRAM,
        '    build_args={"ENGINE": engine},\n',
        "",
    ),
    Fault(
        TARGET,
        "the image holds what is shipped for the default engine",
        PROGRAM,
        "deployment_files(engine=engine)",
        "deployment_files()",
    ),
    Fault(
        TARGET,
        "the registry's password is in clear",
        PROGRAM,
        "pulumi.Output.secret(gcp.organizations.get_client_config_output().access_token)",
        "gcp.organizations.get_client_config_output().access_token",
    ),
    Fault(
        TARGET,
        "ready before the model is loaded",
        PROGRAM,
        'StartupProbeHttpGetArgs(path="/readyz"',
        'StartupProbeHttpGetArgs(path="/healthz"',
    ),
    Fault(
        TARGET,
        "a fraction of a processor with several requests at once",
        SETTINGS,
        "if float(settings.vcpus) < 1 < settings.concurrency:",
        "if float(settings.vcpus) < 0 < settings.concurrency:",
    ),
)
