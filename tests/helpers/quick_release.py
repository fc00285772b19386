"""A release whose deployments and measurements are made up: every file, record and alias is real, no twin is started.

A deployment is a file that says what it serves, so it outlives the process as a stack does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from eval.dataset.image_set import ImageSet
from eval.gate.criteria import Criterion, Verdict
from eval.progress import Reporter
from release.decision import Parity
from release.environments.environment import Address, Addresses
from release.errors import CandidateBroken, ReleaseError
from release.journal import only_release_of
from release.measure import Meter
from release.plan import BETA, GAMMA, PROD, STAGES, Plan, read_plan, write_plan
from release.stages import Release
from service.model import Bundle
from store.model_store import ModelStore

PLACE = "gcp_cloudrun"


def make_plan(version: str, production: str | None, **changes) -> Plan:
    plan = Plan(
        id="20260101-000000-0000",
        model="tiny",
        reference="tiny@candidate",
        version=version,
        production=production,
        store="store",
        stages=STAGES,
        places=(PLACE,),
    )
    return replace(plan, **changes)


@dataclass
class QuickEnvironment:
    """Writes down what each stage serves."""

    folder: Path
    broken: bool = False  # the candidate starts nowhere
    broken_in_production: bool = False
    deployed: list[str] = field(default_factory=list)
    closed: int = 0
    ready_timeout_s: float = 1.0

    def deploy(self, stage: str, bundle: Bundle) -> Addresses:
        if self.broken:
            raise CandidateBroken("it does not start: the self-test failed")
        return self._serve(stage if stage != PROD else "canary", bundle)

    def production(self, bundle: Bundle) -> Addresses:
        return self._serve(PROD, bundle)

    def follow_production(self, bundle: Bundle) -> Addresses:
        addresses = self._serve(PROD, bundle)
        if self.broken_in_production and bundle.folder.name == self.deployed[0].partition("=")[2]:
            raise CandidateBroken("production does not start with it")
        return addresses

    def close(self) -> None:
        self.closed += 1

    def _serve(self, where: str, bundle: Bundle) -> Addresses:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / where).write_text(bundle.folder.name, encoding="utf-8")
        self.deployed.append(f"{where}={bundle.folder.name}")
        return {PLACE: Address(f"file:{self.folder / where}")}


class QuickMeter(Meter):
    """Finds what it is told to find."""

    def __init__(self, plan: Plan, verdicts: Mapping[str, Verdict], say: Callable[[str], None] = print):
        super().__init__(plan, Reporter())
        self.verdicts, self.measured = verdicts, list[str]()

    def __setattr__(self, name, value):  # the real one is frozen
        object.__setattr__(self, name, value)

    def images(self, stage: str, bundle: Bundle) -> ImageSet:
        return ImageSet(f"images of {stage}", bundle.classes, ())

    def prove(self, url: str, bundle: Bundle, timeout_s: float) -> int:
        served = Path(url.removeprefix("file:")).read_text(encoding="utf-8")
        if served != bundle.folder.name:
            raise ReleaseError(f"{url} serves {served}")
        return 2

    def measure(self, folder, image_set, addresses) -> tuple[str, ...]:
        folder.mkdir(exist_ok=True)
        self.measured.append(folder.name)
        return ()

    def parity(self, folder, addresses, bundle, production, image_set):
        agreeing = 0 if self.verdicts.get(BETA) == Verdict.WORSE else 10
        agreement = 0.1 if self.verdicts.get(BETA) == Verdict.UNDECIDED else 0.9
        return (Parity(PLACE, 10, 10, agreeing, 0.0, 0.05),), {PLACE: agreement} if production else {}

    def failed_more(self, production, candidate) -> tuple[str, ...]:
        return ()

    def judge(self, production, candidate, only) -> tuple[Criterion, ...]:
        stage = {GAMMA: GAMMA, PROD: PROD}.get(candidate.name, "verify")
        verdict = self.verdicts.get(stage, Verdict.NOT_WORSE)
        return (Criterion(PLACE, "accuracy", verdict, 0.005, None, 0.9, 0.9, 0.0, -0.001, 0.001, 1000),)


def open_release(
    folder: Path, store: ModelStore, verdicts: Mapping[str, Verdict], say: Callable[[str], None] = print, **broken: bool
) -> Release:
    """The release of a folder that has a plan."""
    plan = read_plan(folder)
    environment = QuickEnvironment(folder / "serving", **broken)
    return Release(folder, plan, store, environment, QuickMeter(plan, verdicts), say)


def start_release(folder: Path, store: ModelStore, plan: Plan, verdicts: Mapping[str, Verdict], **options) -> Release:
    """A new one."""
    folder.mkdir(parents=True)
    write_plan(folder, plan)
    return open_release(folder, store, verdicts, **options)


def run_in_process(folder: str, store: str, verify: str, started: Connection) -> None:
    """The target of a process that is killed: says when it starts, and ends with the release's exit code."""
    with only_release_of("tiny", Path(folder).parent):
        started.send("started")
        verdicts = {"verify": Verdict(verify)}
        sys.exit(open_release(Path(folder), ModelStore.open(store), verdicts, say=lambda _: None).run())
