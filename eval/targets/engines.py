"""Which engine answers where, and which endpoints differ in nothing else. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.samples.model import TargetRun
from service.engines.names import PLAIN_ENGINE

REFERENCE_ENGINE = PLAIN_ENGINE  # what the reference answers are computed with
MIN_AGREEMENT = 0.97  # of two engines; those that surely give the same label less often do not run the same model


@dataclass(frozen=True)
class EnginePair:
    """Two endpoints that differ in nothing but the engine."""

    plain: str  # runs the plain one
    alternative: str


def reported_engine(version: Mapping[str, Any]) -> str | None:
    """What an answer of /version says."""
    return version.get("engine") or (version.get("model") or {}).get("engine")


def engine_of(target_run: TargetRun) -> str | None:
    """None where it is not known: a foreign endpoint that does not say, or one that never answered."""
    return target_run.engine or reported_engine(target_run.version)


def engines_differ(a: str | None, b: str | None) -> bool:
    """Whether these two engines compute with other numbers. One that is not told counts as the plain one."""
    return (a or PLAIN_ENGINE) != (b or PLAIN_ENGINE)


def agreement_too_low(agreement_test: Mapping[str, Any]) -> bool:
    """Whether a `parity` of report.json is too low for two engines that run the same model."""
    upper_bound = agreement_test["agreement"].get("high")
    return upper_bound is not None and upper_bound < MIN_AGREEMENT


def matching_engine_pairs(targets: Sequence[TargetRun]) -> list[EnginePair]:
    """Every endpoint of another engine, with the one beside it that runs the plain one, if there is one.

    Of several, the one whose name is the same but for the engine, or else the first. A twin is paired with a twin: a
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
