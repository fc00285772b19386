"""Which engine answers where, and which endpoints differ in nothing else. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.samples.model import TargetRun
from infra.local.names import PLAIN_ENGINE

REFERENCE_ENGINE = PLAIN_ENGINE  # what the reference answers are computed with
LEAST_AGREEMENT = 0.97  # of two engines; those that surely give the same label less often do not run the same model


@dataclass(frozen=True)
class Pair:
    """Two endpoints that differ in nothing but the engine."""

    a: str  # runs the plain one
    b: str


def told_engine(version: Mapping[str, Any]) -> str | None:
    """What an answer of /version says."""
    return version.get("engine") or (version.get("model") or {}).get("engine")


def engine_of(it: TargetRun) -> str | None:
    """None where it is not known: a foreign endpoint that does not say, or one that never answered."""
    return it.engine or told_engine(it.version)


def may_differ(a: str | None, b: str | None) -> bool:
    """Whether these two engines compute with other numbers. One that is not told counts as the plain one."""
    return (a or PLAIN_ENGINE) != (b or PLAIN_ENGINE)


def surely_apart(both: Mapping[str, Any]) -> bool:
    """Whether a `parity` of report.json is too low for two engines that run the same model."""
    high = both["agreement"].get("high")
    return high is not None and high < LEAST_AGREEMENT


def pairs(targets: Sequence[TargetRun]) -> list[Pair]:
    """Every endpoint of another engine, with the one beside it that runs the plain one, if there is one.

    Of several, the one whose name is the same but for the engine, or else the first. A twin is paired with a twin: a
    cloud is another machine.
    """
    found = []
    for it in targets:
        engine = engine_of(it)
        if may_differ(engine, None):
            stem = it.name.removesuffix(f"-{engine}")
            beside = [t for t in targets if t.twin == it.twin and not may_differ(engine_of(t), None)]
            same = [t.name for t in beside if (t.target == it.target if it.target else t.name == stem)]
            if same:
                found.append(Pair(stem if stem in same else same[0], it.name))
    return found
