"""A store in a folder whose model the twins serve, each by its platform's own way to a new version.

EC2's runs the timer unit's command and follows the folder that this fills; Cloud Run's follows the store itself, as a
mounted bucket; Heroku's and the function's get the version shipped, SageMaker's gets it mounted as /opt/ml/model, and
these three another one by a release.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ModelError, StartError, TwinError
from infra.local.process import bare_environment
from infra.local.process_spec import ProcessSpec
from infra.local.start_commands import aws_ec2_pull, aws_ec2_pull_interval_s
from infra.stored_model import StoredModel, pull_model, resolve_model
from infra.targets import AWS_EC2, GCP_CLOUDRUN, Target

INTERVAL = Path(__file__).with_name("interval.py")
FIRST_PULL_TIMEOUT_S = 600  # as the unit's TimeoutStartSec


@dataclass(frozen=True)
class TwinStore:
    """Where the store is, and which of its models is served."""

    folder: Path
    reference: str  # NAME@ALIAS
    poll_s: float | None = None  # between two looks of timer and service; None: as the platforms have it

    def pull(self, into: Path) -> StoredModel:
        """The version that the alias points to now. Raises TwinError."""
        try:
            return pull_model(str(self.folder.resolve()), self.reference, into)
        except ModelError as error:
            raise TwinError(str(error)) from None

    def version(self) -> str:
        """What the alias points to now. Raises TwinError."""
        try:
            return resolve_model(str(self.folder.resolve()), self.reference)
        except ModelError as error:
            raise TwinError(str(error)) from None

    def settings(self, target: Target, place: Path) -> dict[str, str]:
        """The variables by which the target's service follows the store; none where the model is shipped.

        place: a folder of the twin's own.
        """
        folder = {AWS_EC2.name: place / "models", GCP_CLOUDRUN.name: self.folder.resolve()}.get(target.name)
        if folder is None:
            return {}
        poll = {} if self.poll_s is None else {"MODEL_POLL_S": f"{self.poll_s:g}"}
        return {"MODEL_STORE": str(folder), "MODEL": self.reference, **poll}

    def timer(self, settings: Mapping[str, str], root: Path) -> ProcessSpec:
        """What stands for the VM's timer: the unit's command, again and again. It has run once when this returns.

        root: of what is shipped, with the package `store`. Raises StartError with what the first pull printed.
        """
        pull = aws_ec2_pull(dict(settings) | {"STORE_URL": str(self.folder.resolve())})
        done = subprocess.run(
            pull.command, cwd=root, env={**bare_environment(), **pull.env}, timeout=FIRST_PULL_TIMEOUT_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
            errors="replace",
        )  # fmt: skip
        if done.returncode:
            raise StartError(f"the first pull ended with status {done.returncode}\n{done.stdout}".rstrip())
        interval_s = aws_ec2_pull_interval_s() if self.poll_s is None else self.poll_s
        return ProcessSpec((sys.executable, "-I", "-S", str(INTERVAL), f"{interval_s:g}", *pull.command), pull.env)
