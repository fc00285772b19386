"""The engine of each endpoint, and pairs of endpoints that differ in the engine only. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.samples.model import TargetRun
from service.engines.names import PLAIN_ENGINE

REFERENCE_ENGINE = PLAIN_ENGINE  # of the reference predictions


@dataclass(frozen=True)
class EnginePair:
    """Two endpoints that differ in the engine only."""

    plain: str  # runs the plain engine
    alternative: str


def reported_engine(version: Mapping[str, Any]) -> str | None:
    """The engine that /version reports."""
    return version.get("engine") or (version.get("model") or {}).get("engine")


def engine_of(target_run: TargetRun) -> str | None:
    """None if it is unknown: a custom endpoint that does not report it, or one that never responded."""
    return target_run.engine or reported_engine(target_run.version)


def engines_differ(a: str | None, b: str | None) -> bool:
    """Whether two engines compute with different number formats. An unknown one counts as plain."""
    return (a or PLAIN_ENGINE) != (b or PLAIN_ENGINE)


def matching_engine_pairs(targets: Sequence[TargetRun]) -> list[EnginePair]:
    """Each endpoint with another engine, paired with one of the same target with the plain engine, if there is one.

    Of several, the one whose name differs in the engine only, else the first. Twins are paired with twins only: a
    cloud is another machine.
    """
    engine_pairs = []
    for target_run in targets:
        engine = engine_of(target_run)
        if engines_differ(engine, None):
            base_name = target_run.name.removesuffix(f"-{engine}")
            plain_targets = [t for t in targets if t.twin == target_run.twin and not engines_differ(engine_of(t), None)]
            matching_names = [
                t.name
                for t in plain_targets
                if (t.target == target_run.target if target_run.target else t.name == base_name)
            ]
            if matching_names:
                engine_pairs.append(
                    EnginePair(base_name if base_name in matching_names else matching_names[0], target_run.name)
                )
    return engine_pairs
