"""`./cloudtrial leftovers --stack NAME`: list the resources that are left after `pulumi destroy`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import InfraError, ProbeError
from infra.leftovers.search import Leftover, SearchResult, StackLocation
from infra.stackfile import read_settings
from infra.targets import AWS_EC2, AWS_SAGEMAKER, HEROKU, read_stack

CLEAN, LEFTOVERS, INCOMPLETE = 0, 1, 2  # exit codes

# The parts that the programs name by resource_name(part, stack).
NAMED_PARTS: dict[str, tuple[str, ...]] = {
    "aws_ec2": ("vm", "web", "bundle", "api-token", "budget"),
    "aws_sagemaker": ("endpoint", "sagemaker"),
    "gcp_cloudrun": ("run",),
    "gcp_function": ("function", "build"),
    "heroku": (),
}

EPILOG = """
Each line: the kind of resource, its name, the date of its creation, its cost, and
the command that deletes it, in the order in which they can be deleted. Nothing is
deleted here. A stack that is up is listed whole.

Region, project and app come from the stack file Pulumi.NAME.yaml. `pulumi stack
rm` deletes that file; then give --region, --project or --app.

Credentials:
  AWS     as for pulumi: the stack's aws:profile, or AWS_PROFILE, AWS_ACCESS_KEY_ID
  Google  `gcloud auth application-default login`, GOOGLE_APPLICATION_CREDENTIALS,
          or GOOGLE_OAUTH_ACCESS_TOKEN
  Heroku  HEROKU_API_KEY

examples:
  ./cloudtrial leftovers --stack aws_ec2
  ./cloudtrial leftovers --stack gcp_function-prod --project my-project
  ./cloudtrial leftovers --stack heroku --app my-classifier

Exit codes: 0 nothing is left, but for what Google keeps of every function; 1 something
is; 2 the search is incomplete.
"""


def main(argv: Sequence[str] | None = None, folder: Path = REPOSITORY) -> int:
    """Search, and print the list. Returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        location = locate(arguments, folder, os.environ)
        result = find_leftovers(location)
    except InfraError as error:
        print(f"leftovers: {error}", file=sys.stderr)
        return INCOMPLETE
    report(location, result)
    return exit_code(result)


def exit_code(result: SearchResult) -> int:
    """What the cloud keeps after every `down` is no fault."""
    if all(each.kept_by_cloud for each in result.leftovers):
        return INCOMPLETE if result.errors else CLEAN
    return LEFTOVERS


def locate(arguments: argparse.Namespace, folder: Path, env: Mapping[str, str]) -> StackLocation:
    """Where the stack is, by the command line, its file, the environment. Raises ProbeError when none names it."""
    stack = arguments.stack.rpartition("/")[2]
    target, _ = read_stack(stack)
    settings = read_settings(stack, folder)
    if target is HEROKU:
        app = arguments.app or settings.get("cloudtrial:appName")
        app = _checked_name(app, "the app", "--app", "cloudtrial:appName", stack)
        return StackLocation(stack, target, settings.get("cloudtrial:region") or target.region, app=app)
    if target in (AWS_EC2, AWS_SAGEMAKER):
        region = arguments.region or settings.get("aws:region") or env.get("AWS_REGION")
        region = _checked_name(region, "the region", "--region", "aws:region", stack)
        return StackLocation(stack, target, region, domain=settings.get("cloudtrial:domain", ""),
                     zone=settings.get("cloudtrial:hostedZoneId", ""),
                     budget="cloudtrial:budgetUsd" in settings,
                     profile=settings.get("aws:profile", ""))  # fmt: skip
    project = arguments.project or settings.get("gcp:project") or env.get("GOOGLE_PROJECT")
    project = _checked_name(project, "the project", "--project", "gcp:project", stack)
    region = arguments.region or settings.get("gcp:region") or target.region
    billing_account = settings.get("cloudtrial:billingAccount", "")
    return StackLocation(stack, target, region, project, billing_account)


def find_leftovers(location: StackLocation) -> SearchResult:
    """Search the stack's cloud. Each cloud's libraries are imported only when they are used."""
    parts = NAMED_PARTS[location.target.name]
    if location.target is AWS_EC2:
        from infra.leftovers import aws

        return aws.find_leftovers(location, parts)
    if location.target is AWS_SAGEMAKER:
        from infra.leftovers import sagemaker

        return sagemaker.find_leftovers(location, parts)
    if location.target is HEROKU:
        from infra.leftovers import heroku

        return heroku.find_leftovers(location, heroku.BASE)
    from infra.leftovers import google

    return google.find_leftovers(location, parts, google.BASE)


def report(location: StackLocation, result: SearchResult) -> None:
    """Print a line for each leftover, and their number last."""
    for line in table(result.leftovers):
        print(line)
    for reason in result.errors:
        print(f"leftovers: could not search {reason}", file=sys.stderr)
    profile = location.profile and f"profile {location.profile}"
    where = location.app or " ".join(filter(None, (location.project, location.region, profile)))
    count = len(result.leftovers)
    amount = "Nothing" if not count else f"{count} resource{'s' if count > 1 else ''}"
    caveat = ", but the search is incomplete" if result.errors else ""
    kept = sum(each.kept_by_cloud for each in result.leftovers)
    kept_text = f", {kept} kept by the cloud itself" if kept else ""
    print(f"{amount} of stack {location.stack} {'are' if count > 1 else 'is'} left ({where}){kept_text}{caveat}.")


def table(leftovers: Sequence[Leftover]) -> list[str]:
    """One row each, in columns; the command, the longest, comes last."""
    rows = [
        (each.kind, each.name, f"since {each.since}" if each.since else "", each.cost or "no cost", each.remove)
        for each in leftovers
    ]
    widths = [max((len(row[n]) for row in rows), default=0) for n in range(4)]
    return ["  ".join([*(row[n].ljust(widths[n]) for n in range(4)), row[4]]) for row in rows]


def _checked_name(value: str | None, what: str, flag: str, setting: str, stack: str) -> str:
    if not value:
        raise ProbeError(f"{what} of stack {stack} is not known: give {flag}, or set {setting} in Pulumi.{stack}.yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]*", value):
        raise ProbeError(f"{what} of stack {stack} cannot be {value!r}: see {flag}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial leftovers", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="List, by tag and name, the resources that are left after `pulumi destroy`.",
    )  # fmt: skip
    parser.add_argument("--stack", required=True, metavar="NAME", help="such as aws_ec2 or aws_ec2-prod")
    parser.add_argument("--region", help="of AWS or Google; default: from the stack file")
    parser.add_argument("--project", help="of Google; default: from the stack file")
    parser.add_argument("--app", help="of Heroku; default: from the stack file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
