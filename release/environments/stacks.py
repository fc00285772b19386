"""Stages as Pulumi stacks: TARGET-beta, TARGET-gamma, TARGET-prod, each deployed by `make up`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from eval.errors import EndpointError
from eval.targets.endpoints import ROOT
from eval.targets.stacks import stack_endpoint
from infra.stackfile import read_settings
from release.environments.environment import Address, Addresses
from release.errors import ReleaseError
from release.plan import PROD, Plan, canary_stage
from service.model import Bundle
from service.store_layout import version_of

UP_ARGUMENTS = "--yes --non-interactive --color never"
FOLLOW_TIMEOUT_S = 900.0  # a VM's timer, a mounted bucket's cache, or an instance that starts anew


class StackStages:
    """Deployed stacks. A stage's stack has NAME@VERSION in its settings, production's NAME@prod."""

    ready_timeout_s = FOLLOW_TIMEOUT_S

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]):
        self.plan, self.log, self.say = plan, folder / "logs" / "stacks.log", say

    def deploy(self, stage: str, bundle: Bundle) -> Addresses:
        """The stage's stacks, with this version; of prod, the stacks of the stage before, which have it."""
        if PROD in self.plan.stages:
            self._check_production_settings()
        if stage == PROD:
            return self._addresses(canary_stage(self.plan))
        version = version_of((bundle.folder / "model.json").read_bytes())
        return self._up(stage, f"{self.plan.model}@{version}")

    def production(self, bundle: Bundle) -> Addresses:
        return self._addresses(PROD)

    def follow_production(self, bundle: Bundle) -> Addresses:
        """`make up`: Heroku and Functions are sent the version; a VM and Cloud Run follow the alias without it."""
        return self._up(PROD, f"{self.plan.model}@{PROD}")

    def close(self) -> None:
        """They stay."""

    def _check_production_settings(self) -> None:
        """Raises ReleaseError where a file of production's settings names another store or model, or none.

        What `_up` sets is in this checkout alone: the next `make up` of another one would go back.
        """
        wanted = {"cloudtrial:modelStore": self.plan.store, "cloudtrial:model": f"{self.plan.model}@{PROD}"}
        stacks = [f"{place}-{PROD}" for place in self.plan.places]
        if lacking := [stack for stack in stacks if not wanted.items() <= read_settings(stack, ROOT).items()]:
            files = ", ".join(f"Pulumi.{stack}.yaml" for stack in lacking)
            commands = [
                f"`pulumi config set {key} {value} --stack {stack}`"
                for stack in lacking
                for key, value in wanted.items()
            ]
            raise ReleaseError(
                f"{files}: production does not follow {self.plan.model}@{PROD} of {self.plan.store}, so its next"
                f" `make up` would take the release back. Run {', '.join(commands)}, then commit the file"
            )

    def _up(self, stage: str, reference: str) -> Addresses:
        for place in self.plan.places:
            stack = f"{place}-{stage}"
            self.say(f"  {stage}: make up STACK={stack}, with cloudtrial:model {reference}")
            self._call(["pulumi", "stack", "select", "--create", stack])
            for key, value in (("modelStore", self.plan.store), ("model", reference)):
                self._call(["pulumi", "config", "set", f"cloudtrial:{key}", value, "--stack", stack])
            self._call(["make", "up", f"STACK={stack}", f"ARGS={UP_ARGUMENTS}"])
        return self._addresses(stage)

    def _addresses(self, stage: str) -> Addresses:
        pulumi = _find("pulumi")
        try:
            found = {place: stack_endpoint(pulumi, f"{place}-{stage}") for place in self.plan.places}
            return {
                place: Address(each.sagemaker.text if each.sagemaker else each.url, each.size, each.region)
                for place, each in found.items()
            }
        except EndpointError as error:
            raise ReleaseError(str(error)) from None

    def _call(self, command: Sequence[str]) -> None:
        """Run a command, whose output is added to the log. Raises ReleaseError with its last line."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [_find(command[0]), *command[1:]], cwd=ROOT, env=os.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        )  # fmt: skip
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        if done.returncode:
            last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
            raise ReleaseError(f"`{' '.join(command)}` ended with {done.returncode}: {last[:300]}; see {self.log}")


def _find(program: str) -> str:
    if path := shutil.which(program):
        return path
    hint = "`make pulumi` installs it and prints the PATH to set" if program == "pulumi" else "install it"
    raise ReleaseError(f"--stacks needs the {program} program on PATH: {hint}")
