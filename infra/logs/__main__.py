"""`./cloudtrial logs STACK`: read a stack's log, by the platform's own command line."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import InfraError, LogsError
from infra.naming import endpoint_name, resource_name
from infra.stackfile import read_settings
from infra.targets import AWS_EC2, AWS_SAGEMAKER, GCP_CLOUDRUN, HEROKU, Target, read_stack

DONE, FAILED = 0, 1  # exit codes, where the platform's program was not started
PULUMI_TIMEOUT_S = 60
LINES = "200"
SINCE = "1h"  # `aws logs tail` counts no lines
JOURNAL = f"sudo journalctl --unit classifier --unit nginx --lines {LINES} --no-pager"
INSTALL = {  # program -> how to get it
    "aws": "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html",
    "session-manager-plugin": "https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html (without it: --boot)",
    "gcloud": "https://cloud.google.com/sdk/docs/install",
    "heroku": "https://devcenter.heroku.com/articles/heroku-cli",
    "pulumi": "make pulumi",
}

EPILOG = """
The command is printed, then run; arguments that are not known here are added to it.
It needs the platform's own program: heroku, gcloud, or aws with AWS's
session-manager-plugin. --boot, for a VM whose service never started, needs aws alone.

examples:
  ./cloudtrial logs heroku --tail
  ./cloudtrial logs gcp_cloudrun-prod --limit 1000
  ./cloudtrial logs aws_ec2 --boot
  ./cloudtrial logs aws_sagemaker --follow

The exit code is that of the command; 1 if it could not be started.
"""


def main(argv: Sequence[str] | None = None, folder: Path = REPOSITORY) -> int:
    """Print the command, and run it. Returns its exit code."""
    arguments, more = _parser().parse_known_args(argv)
    try:
        command, programs = log_command(arguments.stack, folder, boot=arguments.boot)
        for program in programs:
            require(program)
    except InfraError as error:
        print(f"logs: {error}", file=sys.stderr)
        return FAILED
    command += more
    print(shlex.join(command), file=sys.stderr, flush=True)
    return subprocess.run(command).returncode


def log_command(stack: str, folder: Path, *, boot: bool = False) -> tuple[list[str], tuple[str, ...]]:
    """The command, and the programs that it needs. Raises InfraError where the stack does not say what is asked."""
    name = stack.rpartition("/")[2]
    target, _ = read_stack(name)
    if boot and target is not AWS_EC2:
        raise LogsError(f"--boot is of virtual machines, and {name} is a {target.kind}: leave it out")
    settings = read_settings(name, folder)
    if target is AWS_EC2:
        return _vm_command(stack, settings, boot=boot)
    if target is AWS_SAGEMAKER:
        region = settings.get("aws:region") or os.environ.get("AWS_REGION") or target.region
        region = _checked(region, "aws:region", name)
        size = _checked(settings.get("cloudtrial:size") or target.size, "cloudtrial:size", name)
        group = f"/aws/sagemaker/Endpoints/{endpoint_name(name, size)}"
        return ["aws", "logs", "tail", group, "--since", SINCE, "--region", region, *_profile(settings)], ("aws",)
    if target is HEROKU:
        app = _setting(settings, "cloudtrial:appName", name)
        return ["heroku", "logs", "--app", app, "--num", LINES], ("heroku",)
    return _google_command(target, name, settings), ("gcloud",)


def require(program: str) -> None:
    """Raises LogsError, which says how to get it, where the program is not on PATH."""
    if shutil.which(program) is None:
        raise LogsError(f"there is no {program} on PATH: {INSTALL[program]}")


def _google_command(target: Target, name: str, settings: Mapping[str, str]) -> list[str]:
    project = _setting(settings, "gcp:project", name)
    where = ["--project", project, "--region", settings.get("gcp:region") or target.region, "--limit", LINES]
    if target is GCP_CLOUDRUN:
        return ["gcloud", "run", "services", "logs", "read", resource_name("run", name), *where]
    return ["gcloud", "functions", "logs", "read", resource_name("function", name), "--gen2", *where]


def _profile(settings: Mapping[str, str]) -> list[str]:
    """The option of aws by which it asks the stack's account."""
    return ["--profile", profile] if (profile := settings.get("aws:profile")) else []


def _vm_command(stack: str, settings: Mapping[str, str], *, boot: bool) -> tuple[list[str], tuple[str, ...]]:
    outputs = _outputs(stack)
    instance, region = _output(outputs, "instance_id", stack), _output(outputs, "region", stack)
    if boot:
        command = ["aws", "ec2", "get-console-output", "--instance-id", instance, "--latest", "--output", "text"]
        return [*command, "--region", region, *_profile(settings)], ("aws",)
    command = ["aws", "ssm", "start-session", "--target", instance, "--region", region, *_profile(settings)]
    run = ["--document-name", "AWS-StartInteractiveCommand", "--parameters", json.dumps({"command": [JOURNAL]})]
    return command + run, ("aws", "session-manager-plugin")


def _outputs(stack: str) -> Mapping[str, object]:
    require("pulumi")
    command = ["pulumi", "stack", "output", "--json", "--non-interactive", "--stack", stack]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=PULUMI_TIMEOUT_S, encoding="utf-8")  # fmt: skip
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        raise LogsError(f"stack {stack}: pulumi did not respond within {PULUMI_TIMEOUT_S} s") from None
    except ValueError:
        raise LogsError(f"stack {stack}: pulumi printed no JSON for its outputs") from None
    lines = done.stderr.strip().splitlines() or [f"pulumi ended with {done.returncode}"]
    raise LogsError(f"stack {stack}: {lines[-1]}")


def _output(outputs: Mapping[str, object], key: str, stack: str) -> str:
    if not (value := outputs.get(key)):
        raise LogsError(f"stack {stack} has no output {key}: deploy it first, make up STACK={stack}")
    return _checked(str(value), key, stack)


def _setting(settings: Mapping[str, str], key: str, stack: str) -> str:
    if not (value := settings.get(key)):
        raise LogsError(f"{key} of stack {stack} is not known: set it in Pulumi.{stack}.yaml")
    return _checked(value, key, stack)


def _checked(value: str, key: str, stack: str) -> str:
    """The value, which must not be read as an option of the command."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]*", value):
        raise LogsError(f"{key} of stack {stack} cannot be {value!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial logs", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Read a stack's log, by the platform's own command line.", allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("stack", metavar="STACK", help="such as heroku, or aws_ec2-prod")
    parser.add_argument("--boot", action="store_true", help="of a VM: its console, from the start on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
