"""`./cloudtrial leftovers --stack NAME`: what is still there after `pulumi destroy`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import InfraError, ProbeError
from infra.leftovers.search import Findings, Leftover, Place
from infra.stackfile import read_settings
from infra.targets import AWS_EC2, HEROKU, read_stack

CLEAN, LEFT, BLIND = 0, 1, 2  # exit codes

# What the programs call the things that need a name: resource_name(part, stack).
PARTS: dict[str, tuple[str, ...]] = {
    "aws_ec2": ("vm", "web", "bundle", "api-token"),
    "gcp_cloudrun": ("run",),
    "gcp_function": ("function", "build"),
    "heroku": (),
}

EPILOG = """
Each line: what it is, its name, since when it is there, what it costs while it
lies there, and the command that removes it. Lines stand in the order in which
things can be removed. Nothing is removed here. A stack that is up is listed whole.

It looks where the stack file Pulumi.NAME.yaml says. `pulumi stack rm` deletes
that file; then say where with --region, --project or --app.

Credentials:
  AWS     as for pulumi: AWS_PROFILE, AWS_ACCESS_KEY_ID and so on
  Google  `gcloud auth application-default login`, GOOGLE_APPLICATION_CREDENTIALS,
          or GOOGLE_OAUTH_ACCESS_TOKEN
  Heroku  HEROKU_API_KEY

examples:
  ./cloudtrial leftovers --stack aws_ec2
  ./cloudtrial leftovers --stack gcp_function-prod --project my-project
  ./cloudtrial leftovers --stack heroku --app my-classifier

Exit codes: 0 nothing is left, 1 something is, 2 it could not look everywhere.
"""


def main(argv: Sequence[str] | None = None, folder: Path = REPOSITORY) -> int:
    """Look, list, say. Gives the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        place = locate(arguments, folder, os.environ)
        findings = find(place)
    except InfraError as error:
        print(f"leftovers: {error}", file=sys.stderr)
        return BLIND
    report(place, findings)
    return LEFT if findings.left else BLIND if findings.unseen else CLEAN


def locate(arguments: argparse.Namespace, folder: Path, env: Mapping[str, str]) -> Place:
    """Where the stack is, by the command line, its file and the environment. Raises ProbeError when none says it."""
    stack = arguments.stack.rpartition("/")[2]
    target, _ = read_stack(stack)
    settings = read_settings(stack, folder)
    if target is HEROKU:
        app = arguments.app or settings.get("cloudtrial:appName")
        app = _known(app, "the app", "--app", "cloudtrial:appName", stack)
        return Place(stack, target, settings.get("cloudtrial:region", target.region), app=app)
    if target is AWS_EC2:
        region = arguments.region or settings.get("aws:region") or env.get("AWS_REGION")
        region = _known(region, "the region", "--region", "aws:region", stack)
        return Place(stack, target, region, domain=settings.get("cloudtrial:domain", ""),
                     zone=settings.get("cloudtrial:hostedZoneId", ""))  # fmt: skip
    project = arguments.project or settings.get("gcp:project") or env.get("GOOGLE_PROJECT")
    project = _known(project, "the project", "--project", "gcp:project", stack)
    return Place(stack, target, arguments.region or settings.get("gcp:region") or target.region, project)


def find(place: Place) -> Findings:
    """Ask the stack's cloud. Each cloud's libraries are loaded only when it is asked."""
    parts = PARTS[place.target.name]
    if place.target is AWS_EC2:
        from infra.leftovers import aws

        return aws.find(place, parts)
    if place.target is HEROKU:
        from infra.leftovers import heroku

        return heroku.find(place, heroku.BASE)
    from infra.leftovers import google

    return google.find(place, parts, google.BASE)


def report(place: Place, findings: Findings) -> None:
    """The lines, and a last one that says how many."""
    for line in table(findings.left):
        print(line)
    for reason in findings.unseen:
        print(f"leftovers: could not look at {reason}", file=sys.stderr)
    where = place.app or " ".join(filter(None, (place.project, place.region)))
    left = len(findings.left)
    said = "Nothing" if not left else f"{left} thing{'s' if left > 1 else ''}"
    seen = ", as far as could be seen" if findings.unseen else ""
    print(f"{said} of stack {place.stack} {'are' if left > 1 else 'is'} left ({where}){seen}.")


def table(left: Sequence[Leftover]) -> list[str]:
    """One line each, in columns; the command, which is long, comes last."""
    rows = [(it.kind, it.name, f"since {it.since}" if it.since else "", it.cost or "no cost", it.remove) for it in left]
    widths = [max((len(row[n]) for row in rows), default=0) for n in range(4)]
    return ["  ".join([*(row[n].ljust(widths[n]) for n in range(4)), row[4]]) for row in rows]


def _known(value: str | None, what: str, flag: str, setting: str, stack: str) -> str:
    if not value:
        raise ProbeError(f"{what} of stack {stack} is not known: give {flag}, or set {setting} in Pulumi.{stack}.yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]*", value):
        raise ProbeError(f"{what} of stack {stack} cannot be {value!r}: see {flag}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial leftovers", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="List by tag and name what is still there after `pulumi destroy`.",
    )  # fmt: skip
    parser.add_argument("--stack", required=True, metavar="NAME", help="such as aws_ec2 or aws_ec2-prod")
    parser.add_argument("--region", help="of AWS or Google, where the stack file does not say it")
    parser.add_argument("--project", help="of Google, where the stack file does not say it")
    parser.add_argument("--app", help="of Heroku, where the stack file does not say it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
