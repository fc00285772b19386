"""The last resource of every program: `up` ends with the endpoint's own word that it serves what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pulumi
import pulumi_command as command

from infra.artifact import REPOSITORY
from service.model import Bundle

SCRIPT = REPOSITORY / "infra" / "waits" / "wait_ready.py"
POLLING = REPOSITORY / "infra" / "waits" / "polling.py"
IMPORT = "from infra.waits.polling import NoRedirect, output_of, wait\n"  # of a script


def wait_until_ready(
    name: str,
    url: pulumi.Input[str],
    *,
    model: Bundle,
    engine: str,
    git_sha: str,
    timeout_s: int,
    advice: pulumi.Input[str],
    token: pulumi.Input[str] | None = None,
    env: Mapping[str, pulumi.Input[str]] | None = None,
    triggers: Sequence[pulumi.Input[object]] = (),
    depends_on: Sequence[pulumi.Resource] = (),
    script: Path = SCRIPT,
) -> command.local.Command:
    """Ask the endpoint until it is ready, and reports this model and this commit; see infra/waits/wait_ready.py.

    One that fails is no part of the state, so another `up` asks again. It is also asked again when a trigger changes:
    these are what the program sends, because what a cloud answers may look the same over a version that failed.

    url: the endpoint's root. script: what asks it. token: where /version needs it. env: more variables of the script.
    """
    return command.local.Command(
        name,
        create=script_text(script),
        interpreter=["python3", "-c"],
        environment={
            "URL": url,
            "TIMEOUT_S": str(timeout_s),
            "MODEL_SHA256": model.files[model.engine(engine).file],
            "GIT_SHA": git_sha,
            "ADVICE": advice,
            **({"API_TOKEN": token} if token is not None else {}),
            **(env or {}),
        },
        triggers=[git_sha, *triggers],
        opts=pulumi.ResourceOptions(depends_on=depends_on),
    )


def script_text(script: Path) -> str:
    """What `python3 -c` runs: the script, whole, wherever it is run."""
    before, found, after = script.read_text(encoding="utf-8").partition(IMPORT)
    assert found, f"{script} has to import infra.waits.polling as all do"
    return before + POLLING.read_text(encoding="utf-8") + after
