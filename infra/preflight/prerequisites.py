"""What has to be there before a stack is previewed or deployed: settings, credentials, tools. One line for each lack.

Nothing is asked over the network but whether a Google project has the two APIs by which the others are switched on,
what the alias of a model store points to, where the store is in a bucket, and whether a virtual machine has a role.
"""

from __future__ import annotations

import netrc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import ConfigError, StackFileError
from infra.preflight.backend import missing_login
from infra.preflight.deployment_spec import read_deployment_spec
from infra.stackfile import read_secret_keys, read_settings
from infra.targets import AWS_EC2, AWS_SAGEMAKER, GCP_CLOUDRUN, HEROKU, read_stack

DOCKER_TIMEOUT_S = 30
AWS_CLI = "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
PUBLIC_INVOKER = "allUsers"


def find_missing(stack: str, pulumi_arguments: Sequence[str] = (), folder: Path = REPOSITORY) -> list[str]:
    """A line for each thing that is missing. Raises StackError for a stack of no target.

    pulumi_arguments: those that preview or up is going to get; `--config KEY=VALUE` among them is a setting.
    """
    name = stack.rpartition("/")[2]
    target, _ = read_stack(name)
    try:
        settings = read_settings(name, folder) | dict(given_settings(pulumi_arguments))
        secret_keys = read_secret_keys(name, folder)
    except StackFileError as error:
        return [str(error)]
    lines = list(missing_login(name, folder, os.environ, interactive=sys.stdin.isatty()))
    try:
        read_deployment_spec(name, settings, secret_keys)
    except ConfigError as error:
        lines.append(str(error))
    known = settings | dict.fromkeys(secret_keys, "[secret]")  # a secret's value is not needed here
    if target is AWS_EC2:
        lines += missing_for_aws(stack, known)
    elif target is AWS_SAGEMAKER:
        lines += [*missing_for_aws(stack, known), *missing_to_sign(known), *missing_docker()]
    elif target is HEROKU:
        lines += missing_for_heroku(stack, known)
    else:
        lines += missing_for_google(stack, known)
        if target is GCP_CLOUDRUN:
            lines += missing_docker()
    return lines


def given_settings(pulumi_arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each `--config KEY=VALUE`."""
    for place, argument in enumerate(pulumi_arguments):
        option, separator, text = argument.partition("=")
        if option in ("-c", "--config") and not separator:
            text = "".join(pulumi_arguments[place + 1 : place + 2])
        elif option != "--config":
            continue
        key, _, value = text.partition("=")
        yield key, value


def missing_for_aws(stack: str, settings: Mapping[str, str]) -> Iterator[str]:
    """A region, and credentials as botocore finds them: whether AWS accepts them is not asked."""
    import botocore.exceptions  # a tenth of a second, for those whose stack is elsewhere
    import botocore.session

    session = botocore.session.Session(profile=settings.get("aws:profile"))
    try:
        chain = session.get_component("credential_provider")
        if settings.get("aws:skipMetadataApiCheck") == "true":
            chain.remove("iam-role")  # a virtual machine's own, for which the provider asks unless it is told not to
        if not ("aws:region" in settings or os.environ.get("AWS_REGION") or session.get_config_variable("region")):
            yield _unset("aws:region", "us-east-1", stack)
        if "aws:accessKey" not in settings and session.get_credentials() is None:
            yield "no AWS credentials: `aws configure`, `aws sso login`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
    except botocore.exceptions.BotoCoreError as error:
        yield f"no AWS credentials: {' '.join(str(error).split())}"


def missing_to_sign(settings: Mapping[str, str]) -> Iterator[str]:
    """What signs the calls by which `up` proves an endpoint: keys of the environment, or AWS's CLI with others."""
    in_environment = os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")
    if (settings.get("aws:profile") or not in_environment) and shutil.which("aws") is None:
        yield (f"no aws program, which hands `up` the keys that sign its calls (or set AWS_ACCESS_KEY_ID): {AWS_CLI}")


def missing_for_google(stack: str, settings: Mapping[str, str]) -> Iterator[str]:
    """A project, credentials, the APIs behind all others, and gcloud where only invited callers get an answer."""
    from infra.preflight import google_access

    project = settings.get("gcp:project")
    if not project:
        yield _unset("gcp:project", "YOUR-PROJECT", stack)
    if "gcp:credentials" not in settings and "gcp:accessToken" not in settings:
        credentials = google_access.find_credentials()
        if isinstance(credentials, str):
            yield credentials
        elif project:
            yield from google_access.missing_apis(credentials, project)
    invoker = settings.get("cloudtrial:invoker", PUBLIC_INVOKER)
    if invoker != PUBLIC_INVOKER and shutil.which("gcloud") is None:
        yield (f"no gcloud, whose identity token `up` needs to ask a service that only {invoker} may call:"
               " https://cloud.google.com/sdk/docs/install")  # fmt: skip


def missing_docker() -> Iterator[str]:
    """A daemon that answers, or a builder of buildx that needs none here."""
    if shutil.which("docker") is None:
        yield "no docker program to build the image: https://docs.docker.com/get-started/get-docker/"
        return
    for command, says in ((["docker", "info"], ""), (["docker", "buildx", "ls"], r"\brunning\b")):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DOCKER_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and re.search(says, done.stdout.decode(errors="replace")):
            return
    yield "Docker does not answer, and the image is built by it: start Docker (`docker info` says what is wrong)"


def missing_for_heroku(stack: str, settings: Mapping[str, str]) -> Iterator[str]:
    """The app's name, and a key where the provider looks for one."""
    if not settings.get("cloudtrial:appName"):
        yield _unset("cloudtrial:appName", "YOUR-NAME", stack)
    if not (os.environ.get("HEROKU_API_KEY") or "heroku:apiKey" in settings or _netrc_has("api.heroku.com")):
        yield "no HEROKU_API_KEY: `heroku authorizations:create` prints one; export it as HEROKU_API_KEY"


def _netrc_has(host: str) -> bool:
    path = Path(os.environ.get("NETRC_PATH") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _unset(key: str, example: str, stack: str) -> str:
    # `pulumi config set` alone makes no stack.
    return f"{key} is not set: pulumi stack select --create {stack} && pulumi config set {key} {example}"
