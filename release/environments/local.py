"""Stages as local twins: the candidate's, and production's beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.errors import ModelError, TwinError
from infra.local.following.twin_store import TwinStore
from infra.local.running.twin import Twin
from infra.local.twins import local_twins
from infra.models import choose_engine
from release.environments.environment import Address, Addresses
from release.errors import CandidateBroken, ReleaseError
from release.plan import PROD, Plan
from service.engines.names import twin_name
from service.model import Bundle
from store.model_store import ModelStore

POLL_S = 2.0  # between a twin's two looks at its folder


class LocalStages:
    """Twins that get the folder `served/ROLE` by their platform's own way. They end with this process."""

    ready_timeout_s = 60.0

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        say: Callable[[str], None],
        store: ModelStore,
        env: Mapping[str, Mapping[str, str]] | None = None,
    ):
        """`env`: settings of the service, by role: candidate or production."""
        self.plan, self.folder, self.say, self.store, self.env = plan, folder, say, store, env or {}
        self._twins: dict[str, list[Twin]] = {}
        self._open: dict[str, contextlib.ExitStack] = {}

    def deploy(self, stage: str, bundle: Bundle) -> Addresses:
        title = f"canary of {PROD}" if stage == PROD else stage
        try:
            return self._start("candidate", title, bundle, f"{self.plan.model}@{bundle.folder.name}")
        except (TwinError, ModelError) as error:
            raise CandidateBroken(f"it does not start: {error}") from None

    def production(self, bundle: Bundle) -> Addresses:
        try:
            return self._start("production", PROD, bundle, self._production)
        except (TwinError, ModelError) as error:
            raise ReleaseError(f"production's version does not start: {error}") from None

    def follow_production(self, bundle: Bundle) -> Addresses:
        """The running service switches by itself once its folder has the version, or is sent it by a release.

        A twin that has ended is started.
        """
        if "production" not in self._twins:
            return self.production(bundle)
        self.store.follow(self._production, self._served("production"))
        try:
            for twin in self._twins["production"]:
                if twin.release() is None and not twin.alive():
                    twin.restart()
        except TwinError as error:
            raise CandidateBroken(f"production does not start with it: {error}") from None
        return {twin.target.name: Address(twin.url) for twin in self._twins["production"]}

    def close(self) -> None:
        for role in list(self._open):
            self._stop(role)

    @property
    def _production(self) -> str:
        return f"{self.plan.model}@{PROD}"

    def _served(self, role: str) -> Path:
        return self.folder.absolute() / "served" / role

    def _start(self, role: str, title: str, bundle: Bundle, reference: str) -> Addresses:
        """Twins of a role, each place one; those that it had are ended."""
        self._stop(role)
        self.store.follow(reference, self._served(role))
        engine = choose_engine(bundle, self.plan.engine)
        stack = self._open[role] = contextlib.ExitStack()
        twins = stack.enter_context(
            local_twins(
                self.plan.places,
                self.folder / "logs" / title.replace(" ", "-"),
                env={twin_name(place, engine): self.env.get(role, {}) for place in self.plan.places},
                on_event=lambda text: self.say(f"  {title}: {text.splitlines()[0]}"),
                engines=[engine],
                store=TwinStore(self._served(role), reference, POLL_S),
            )
        )
        if twins.failures:
            self._stop(role)
            raise TwinError(_cause(next(iter(twins.failures.values()))))
        self._twins[role] = twins.running
        return {twin.target.name: Address(twin.url) for twin in twins.running}

    def _stop(self, role: str) -> None:
        self._twins.pop(role, None)
        if stack := self._open.pop(role, None):
            stack.close()


def _cause(failure: str) -> str:
    """A twin's failure with the last line of its log that the service wrote itself, which names the cause."""
    first, *log = [line.strip() for line in failure.splitlines() if line.strip()]
    own = [line for line in log if not line.startswith("[")]  # in brackets: the server's, which only saw it end
    return f"{first}: {own[-1]}" if own else first
