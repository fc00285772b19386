"""What is asked of a fine-tuning run, and what one that is continued has to have in common with its beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.defaults import BASE, BATCH_SIZE, EPOCHS, SEED
from training.errors import RunError
from training.finetune.dataset import Dataset
from training.finetune.run_folder import CHECKPOINT, read_run
from training.networks.bases import Base

DEFAULTS: Mapping[str, Any] = {"base": BASE, "epochs": EPOCHS, "batch_size": BATCH_SIZE, "seed": SEED}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    data: Path
    base: str
    out: Path
    weights: str | None
    size_px: int | None
    unfreeze: bool
    epochs: int
    batch_size: int
    lr: float | None
    seed: int
    resume: bool


def resolve_options(given: Mapping[str, Any]) -> Options:
    """The options: what is not given, None, is as the run was begun, so that --resume alone ends it, or the default.

    Raises RunError.
    """
    begun: dict[str, Any] = dict(DEFAULTS)
    if (given["out"] / CHECKPOINT).exists():
        run = read_run(given["out"])
        begun = {"base": run["base"], "seed": run["seed"], "size_px": run["input"]["size_px"], **run["options"]}
    values: dict[str, Any] = {name: begun.get(name) if value is None else value for name, value in given.items()}
    if given["resume"]:
        values["unfreeze"] = given["unfreeze"] or begun.get("unfreeze", False)
    return Options(**values)


def check_same(run: dict[str, Any], options: Options, base: Base, dataset: Dataset) -> None:
    """Raises RunError where the run was begun otherwise."""
    for key, then, now in (
        ("base", run["base"], base.name),
        ("size_px", run["input"]["size_px"], base.size_px),
        ("seed", run["seed"], options.seed),
        ("the weights", run["weights"], run["weights"] if options.weights is None else base.origin),
    ):
        if then != now:
            raise RunError(f"{options.out} was started with {key} {then}, not {now}; choose another --out")
    if not same_files(run, dataset):
        raise RunError(
            f"{options.data} has other classes or files than {options.out} was started with, so its test images would "
            "be others; give the same, or choose another --out"
        )


def same_files(run: dict[str, Any], dataset: Dataset) -> bool:
    """Whether classes and files are the run's; one of an earlier release does not say which files it had."""
    names = run["data"].get("names_sha256", dataset.names_sha256)
    return (run["classes"], names) == (list(dataset.classes), dataset.names_sha256)
