"""Writes the stack file of a pull request's own stack: that of its target, less what only one stack can have or read.

Usage: python -m scripts.setup.pull_request_stack gcp_cloudrun-pr12. Used by .github/workflows/deploy.yml.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from infra.artifact import REPOSITORY
from infra.errors import InfraError, StackError
from infra.targets import AWS_EC2, read_stack

DOMAIN = ("cloudtrial:domain", "cloudtrial:certificateEmail", "cloudtrial:hostedZoneId")
BUDGET = ("cloudtrial:budgetUsd", "cloudtrial:budgetEmail", "cloudtrial:billingAccount")
APP = "cloudtrial:appName"
MAX_APP_CHARS = 30
TOKEN_OVER_HTTP = "cloudtrial:allowTokenOverHttp"
TOKEN, NEEDS_TOKEN = "cloudtrial:apiToken", "cloudtrial:protectStatus"
KEYS = ("encryptionsalt", "encryptedkey")  # without either a service holds the key, one for each stack


def main(argv: list[str], folder: Path = REPOSITORY) -> int:
    """Write the file. Returns the exit code."""
    try:
        write_stack_file(argv[0], folder)
    except (InfraError, IndexError) as error:
        print(f"pull_request_stack: {error}", file=sys.stderr)
        return 1
    return 0


def write_stack_file(stack: str, folder: Path) -> Path:
    """Pulumi.<stack>.yaml, from Pulumi.<target>.yaml. Raises StackError for a stack without a stage."""
    target, stage = read_stack(stack)
    if not stage:
        raise StackError(f"stack {stack!r} has no stage: it would take the place of the target's own stack")
    content = yaml.safe_load((folder / f"Pulumi.{target.name}.yaml").read_text(encoding="utf-8")) or {}
    settings = {key: value for key, value in (content.get("config") or {}).items() if key not in DOMAIN + BUDGET}
    if (
        target is AWS_EC2
        and DOMAIN[0] in (content.get("config") or {})
        and str(settings.get(TOKEN_OVER_HTTP)).lower() != "true"
    ):
        in_clear = [key for key in (TOKEN, NEEDS_TOKEN) if key in settings]
        if in_clear:
            print(f"pull_request_stack: {stack} goes without {', '.join(in_clear)}: it has no domain, so no HTTPS")
        settings = {key: value for key, value in settings.items() if key not in in_clear}
    if not any(key in content for key in KEYS) and (unreadable := _secret_settings(settings)):
        print(f"pull_request_stack: {stack} goes without {', '.join(unreadable)}: each stack has a key of its own")
        settings = {key: value for key, value in settings.items() if key not in unreadable}
    if app := settings.get(APP):
        settings[APP] = f"{str(app)[: MAX_APP_CHARS - len(stage) - 1].rstrip('-')}-{stage}"  # one in all of Heroku
    path = folder / f"Pulumi.{stack}.yaml"
    path.write_text(yaml.safe_dump({**content, "config": settings}, sort_keys=False), encoding="utf-8")
    return path


def _secret_settings(settings: dict[str, Any]) -> list[str]:
    """The keys of what is encrypted, and of what the programs refuse without it."""
    secret = [key for key, value in settings.items() if isinstance(value, dict) and "secure" in value]
    return secret + [key for key in settings if key == NEEDS_TOKEN and TOKEN in secret]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
