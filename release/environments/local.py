"""Stages as local twins: the candidate's, and production's beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.errors import ModelError, TwinError
from infra.local.twins import Twin, local_twins
from infra.models import choose_engine
from release.environments.environment import Urls
from release.errors import CandidateBroken, ReleaseError
from release.plan import PROD, Plan
from service.engines.names import twin_name
from service.model import Bundle


class LocalStages:
    """Twins that serve the folder `served/ROLE`, a link to a version's bundle. They end with this process."""

    ready_timeout_s = 30.0

    def __init__(
        self, plan: Plan, folder: Path, say: Callable[[str], None], env: Mapping[str, Mapping[str, str]] | None = None
    ):
        """`env`: settings of the service, by role: candidate or production."""
        self.plan, self.folder, self.say, self.env = plan, folder, say, env or {}
        self._twins: dict[str, list[Twin]] = {}
        self._open: dict[str, contextlib.ExitStack] = {}

    def deploy(self, stage: str, bundle: Bundle) -> Urls:
        try:
            return self._start("candidate", f"canary of {PROD}" if stage == PROD else stage, bundle)
        except (TwinError, ModelError) as error:
            raise CandidateBroken(f"it does not start: {error}") from None

    def production(self, bundle: Bundle) -> Urls:
        try:
            return self._start("production", PROD, bundle)
        except (TwinError, ModelError) as error:
            raise ReleaseError(f"production's version does not start: {error}") from None

    def follow_production(self, bundle: Bundle) -> Urls:
        """A release of production's twins, at the same address; they are started where a resumed release has none."""
        if "production" not in self._twins:
            return self.production(bundle)
        self._serve("production", bundle)
        try:
            for twin in self._twins["production"]:
                twin.restart()
        except TwinError as error:
            raise CandidateBroken(f"production does not start with it: {error}") from None
        return {twin.target.name: twin.url for twin in self._twins["production"]}

    def close(self) -> None:
        for role in list(self._open):
            self._stop(role)

    def _start(self, role: str, title: str, bundle: Bundle) -> Urls:
        """Twins of a role, each place one; those that it had are ended."""
        self._stop(role)
        engine = choose_engine(bundle, self.plan.engine)
        link = self._serve(role, bundle)
        settings = {"MODEL_DIR": str(link), **self.env.get(role, {})}
        stack = self._open[role] = contextlib.ExitStack()
        twins = stack.enter_context(
            local_twins(
                self.plan.places,
                self.folder / "logs" / title.replace(" ", "-"),
                env={twin_name(place, engine): settings for place in self.plan.places},
                on_event=lambda text: self.say(f"  {title}: {text.splitlines()[0]}"),
                engines=[engine],
            )
        )
        if twins.failures:
            self._stop(role)
            raise TwinError(_cause(next(iter(twins.failures.values()))))
        self._twins[role] = twins.running
        return {twin.target.name: twin.url for twin in twins.running}

    def _stop(self, role: str) -> None:
        self._twins.pop(role, None)
        if stack := self._open.pop(role, None):
            stack.close()

    def _serve(self, role: str, bundle: Bundle) -> Path:
        """Let the folder that a role's twins read be this bundle, from their next start on."""
        link = self.folder / "served" / role
        link.parent.mkdir(parents=True, exist_ok=True)
        part = link.with_name(f"{role}.part")
        part.unlink(missing_ok=True)
        part.symlink_to(bundle.folder.resolve(), target_is_directory=True)
        os.replace(part, link)
        return link.absolute()


def _cause(failure: str) -> str:
    """A twin's failure with the last line of its log that the service wrote itself, which names the cause."""
    first, *log = [line.strip() for line in failure.splitlines() if line.strip()]
    own = [line for line in log if not line.startswith("[")]  # in brackets: the server's, which only saw it end
    return f"{first}: {own[-1]}" if own else first
