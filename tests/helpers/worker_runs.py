"""Runs whose open loops workers send, in this process, and what they leave."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.load.load_generator import RunOptions
from eval.load.nodes.destinations import Node
from eval.plan.config import Config
from eval.progress import Reporter
from eval.run.resume import load_resumable, resume_run
from eval.run.runner import execute_run, new_run
from eval.samples.model import Run, Sample
from eval.samples.store import read_samples
from eval.targets.endpoints import Endpoint, TargetSet
from tests.helpers.fake_endpoint import Fake, image_set

IMAGES = image_set(20)
PLAN: dict[str, Any] = {
    "scenarios": ("poisson",), "rate_rps": 100.0, "duration_s": 1.0, "warmup": 0, "baseline_rtt": 0
}  # fmt: skip
Nodes = Mapping[Node, Sequence[str]]


def run(
    folder: Path, fake: Fake, nodes: Nodes | None = None, *, max_usd: float | None = None, target: str | None = None,
    **changes: Any,
) -> tuple[Run, list[Sample], str]:  # fmt: skip
    """A run from two workers, or from these machines: its record, its samples, and what it has printed.

    changes: of the configuration.
    """
    folder.mkdir(exist_ok=True)
    options, printed = RunOptions(max_usd=max_usd, nodes=nodes), io.StringIO()
    config = Config(**PLAN | ({} if nodes else {"workers": 2}) | changes)
    fleet = TargetSet((Endpoint("a", target, fake.url),), {})
    begun = new_run("some-id", fleet, IMAGES, config, options)
    done = execute_run(folder, begun, fleet, IMAGES, config, options, Reporter(Console(file=printed, width=1000)))
    return done, of_target(folder), printed.getvalue()


def resumed(folder: Path, fake: Fake, nodes: Nodes | None = None) -> Run:
    """The record of the run, resumed."""
    record, config = load_resumable(folder)
    fleet = TargetSet((Endpoint("a", None, fake.url),), {})
    record, state = resume_run(folder, record, fleet, IMAGES)
    reporter = Reporter(Console(file=io.StringIO()))
    return execute_run(folder, record, fleet, IMAGES, config, RunOptions(nodes=nodes), reporter, state)


def of_target(folder: Path) -> list[Sample]:
    return [sample for sample in read_samples(folder) if sample.target == "a"]


def keys(samples: list[Sample]) -> list[tuple[int, int]]:
    """Which requests were measured."""
    return [(sample.block, sample.index_in_block) for sample in samples if sample.phase == "measure"]


def at(count: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Does it in the answer to that request."""
    return lambda number: act() if number == count else None
