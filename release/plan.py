"""What a release will do, written down before it begins. Pure, but for reading and writing its file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from release.errors import ReleaseError

PLAN_FILE = "release.json"
SCHEMA_VERSION = 1
BETA, GAMMA, PROD = STAGES = ("beta", "gamma", "prod")


@dataclass(frozen=True)
class Plan:
    """Everything that a resumed release has to know."""

    id: str
    model: str  # its name in the store
    reference: str  # as the candidate was named: NAME@candidate
    version: str  # that it meant when the release began
    production: str | None  # the version of NAME@prod then; None: there is none yet
    store: str  # folder or URL
    stages: tuple[str, ...]
    places: tuple[str, ...]  # targets whose twins are measured, or with `stacks` the stacks' names without the stage
    stacks: bool = False
    engine: str | None = None  # of the twins; None: the model's plain one
    images: str | None = None  # as `./cloudtrial run --images`; None: the golden set alone
    limit: int | None = None  # of the test set's images
    canary: int = 300  # images of the canary
    seed: int = 0
    margin: float = 0.005  # of every score
    p95_margin: float = 0.10
    failure_margin: float = 0.01
    only: tuple[str, ...] = ()  # criteria that gamma judges; empty: all of them

    @property
    def released(self) -> bool:
        """Whether NAME@prod was the candidate when the release began: production has only to follow it."""
        return self.version == self.production and PROD in self.stages


@dataclass(frozen=True)
class Step:
    """One line of a plan."""

    stage: str
    name: str
    what: str


def steps(plan: Plan) -> list[Step]:
    """Every step, in order."""
    return [Step(stage, name, what) for stage in plan.stages for name, what in _steps_of(plan, stage)]


def _steps_of(plan: Plan, stage: str) -> list[tuple[str, str]]:
    where = ", ".join(f"stack {place}-{stage}" if plan.stacks else f"{place}'s twin" for place in plan.places)
    alias = f"{plan.model}@{stage}"
    beside = f"beside {plan.production}" if plan.production else "alone: there is no production yet"
    test_set = f"{plan.limit or 'all'} images of {plan.images or 'the golden set'}"
    begin = [
        ("deploy", f"{plan.version} to {where}"),
        ("ready", "/readyz, and /version reports that version (of SageMaker: its answer does)"),
        ("self_test", "the bundle's self-test, by HTTP"),
    ]
    follow = ("follow", f"{where} follows {alias}")
    if plan.released:
        return [follow, *begin[1:]] if stage == PROD else []
    if stage == BETA:
        return [
            *begin,
            ("run", "the golden set"),
            ("gate", "the answers are those of the bundle itself, without HTTP"),
            ("promote", f"{alias} -> {plan.version}"),
        ]
    if stage == GAMMA:
        return [
            *begin,
            ("run", f"{test_set}, {beside}"),
            ("gate", f"not worse than production by {plan.margin * 100:g} pp or more"),
            ("promote", f"{alias} -> {plan.version}"),
        ]
    canary = (
        f"stack(s) of {canary_stage(plan)}, which have it" if plan.stacks else f"{plan.version} to a second {where}"
    )
    return [
        ("deploy", f"canary: {canary}"),
        *begin[1:],
        ("run", f"canary: {plan.canary} images, {beside}"),
        ("gate", "no criterion is worse"),
        ("promote", f"{alias} -> {plan.version}"),
        follow,
        ("verify", f"the {plan.canary} images again; worse, or not ready: {alias} -> {plan.production or 'nothing'}"),
    ]


def canary_stage(plan: Plan) -> str:
    """Whose stacks are prod's canary: they have the candidate already."""
    return plan.stages[plan.stages.index(PROD) - 1] if plan.stages[0] != PROD else GAMMA


def check_stages(stages: tuple[str, ...]) -> tuple[str, ...]:
    """The stages. Raises ReleaseError for another name or order."""
    if not stages or list(stages) != [stage for stage in STAGES if stage in stages]:
        raise ReleaseError(f"--stages {','.join(stages)}: expected some of {','.join(STAGES)}, in this order")
    return stages


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the file, whole or not at all."""
    part = folder / f"{PLAN_FILE}.part"
    part.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **asdict(plan)}, indent=2) + "\n", encoding="utf-8")
    os.replace(part, folder / PLAN_FILE)


def read_plan(folder: Path) -> Plan:
    """The plan of a release's folder. Raises ReleaseError."""
    path = folder / PLAN_FILE
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError("another version of this program wrote it")
        known = {field.name for field in fields(Plan)}
        lists: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return Plan(**{key: value for key, value in lists.items() if key in known})
    except FileNotFoundError:
        raise ReleaseError(f"{folder} is no release: it has no {PLAN_FILE}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}; start a new release") from None
