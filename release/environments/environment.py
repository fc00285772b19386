"""Where a release deploys: what twins and stacks have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from service.model import Bundle


@dataclass(frozen=True)
class Address:
    """Where a deployment is asked, and by what it is priced."""

    url: str  # or sagemaker:ENDPOINT@REGION
    size: str | None = None  # None: the target's own
    region: str | None = None  # the same


Addresses = Mapping[str, Address]  # by place


class Environment(Protocol):
    """Deploys versions, stage by stage. Every call may be repeated, as a resumed release does."""

    ready_timeout_s: float  # of a deployment that has been made

    def deploy(self, stage: str, bundle: Bundle) -> Addresses:
        """The candidate in its stage; of prod, a canary. Raises CandidateBroken, or ReleaseError."""
        ...

    def production(self, bundle: Bundle) -> Addresses:
        """What serves users now, with the version that NAME@prod points to. Raises ReleaseError."""
        ...

    def follow_production(self, bundle: Bundle) -> Addresses:
        """The same, brought to what NAME@prod points to by now. Raises CandidateBroken, or ReleaseError."""
        ...

    def close(self) -> None:
        """End what lives no longer than the release."""
        ...
