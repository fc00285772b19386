"""The search for leftovers: one probe for each kind of resource, and the records that it returns."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.cost.price_list import load_price_list
from infra.errors import ProbeError
from infra.naming import resource_name, tags
from infra.targets import Target

GIB = 2**30


@dataclass(frozen=True)
class Leftover:
    """One resource that is left."""

    kind: str  # "S3 bucket"
    name: str  # as its cloud calls it
    remove: str  # the command that removes it
    since: str = ""  # the date of its creation; empty: not known
    cost: str = ""  # while it exists; empty: nothing
    kept_by_cloud: bool = False  # after every `down`, as the cloud made it by itself


@dataclass(frozen=True)
class StackLocation:
    """Where the resources of a stack are, and how they are recognised."""

    stack: str
    target: Target
    region: str
    project: str = ""  # Google's
    billing_account: str = ""  # Google's, of a stack with a budget
    app: str = ""  # Heroku's
    domain: str = ""
    zone: str = ""  # the hosted zone that holds the domain
    budget: bool = False  # the stack file asks for one
    profile: str = ""  # of AWS's configuration, whose account it is in; empty: that of the environment

    @property
    def tags(self) -> dict[str, str]:
        """The tags of every resource of the stack that can carry tags."""
        return tags(self.stack)

    def has_stack_tags(self, tags_or_labels: Mapping[str, str] | None) -> bool:
        """Whether these are the stack's tags."""
        return self.tags.items() <= (tags_or_labels or {}).items()

    def resource_names(self, parts: Iterable[str]) -> set[str]:
        """The names that the program gives to these parts."""
        return {resource_name(part, self.stack) for part in parts}

    def mentions_resource(self, text: str, parts: Sequence[str]) -> bool:
        """Whether the text contains one of those names as a whole: not `cloudtrial-run` in `cloudtrial-run-prod`."""
        names = "|".join(re.escape(name) for name in sorted(self.resource_names(parts)))
        return bool(parts) and re.search(rf"(?<![a-z0-9-])({names})(?![a-z0-9-])", text) is not None


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search."""

    leftovers: tuple[Leftover, ...]
    errors: tuple[str, ...]  # which probe failed, and why


Probe = Callable[[], Iterable[Leftover]]


def run_probes(probes: Mapping[str, Probe]) -> SearchResult:
    """Run every probe; a failed one does not hide the others' results."""
    leftovers: dict[tuple[str, str], Leftover] = {}
    errors: list[str] = []
    for kind, probe in probes.items():
        try:
            for leftover in probe():
                leftovers.setdefault((leftover.kind, leftover.name), leftover)
        except ProbeError as error:
            errors.append(f"{kind}: {error}")
    return SearchResult(tuple(leftovers.values()), tuple(errors))


@functools.cache
def list_prices() -> dict[str, float]:
    """List price in dollars per unit, by its id in eval/cost/prices.yaml."""
    return {price.id: price.amount for price in load_price_list().entries}


def monthly_cost(price_id: str, amount: float, unknown: str) -> str:
    """The cost of `amount` units at the list price, as text; `unknown` where the list has no such price."""
    price = list_prices().get(price_id)
    return unknown if price is None else f"${price * amount:,.2f} a month"


def iso_date(moment: object) -> str:
    """The date of a timestamp, which clouds return as text or as a datetime."""
    return str(moment)[:10] if moment else ""
