"""The folder of a fine-tuning run: run.json, checkpoint.safetensors, log.csv, curves.svg, and the test images.

A checkpoint replaces the earlier one at once, so that a run that is killed continues from its last finished epoch.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.defaults import RUN_JSON
from training.errors import FolderError, RunError

CHECKPOINT, LOG, CURVES, TEST_IMAGES = "checkpoint.safetensors", "log.csv", "curves.svg", "test"
SCRATCH = ".scratch-"
HEAD, WHOLE = "head", "whole"  # what a stage trains


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images."""

    stage: str  # HEAD or WHOLE
    epoch: int  # of its stage, from 1
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    minutes: float  # since the stage began, of computing


@dataclass
class Progress:
    """How far a run is."""

    stage: str = HEAD
    history: list[Epoch] = field(default_factory=list)

    def finished(self, stage: str) -> int:
        """Epochs of a stage that have ended."""
        return sum(each.stage == stage for each in self.history)

    def minutes(self, stage: str) -> float:
        return max((each.minutes for each in self.history if each.stage == stage), default=0.0)


def save_checkpoint(folder: Path, net: nn.Module, progress: Progress, momentum: dict[str, Tensor]) -> None:
    """Write network, momentum and progress as one file, and the log beside it."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"momentum.{name}": tensor for name, tensor in momentum.items()}
    part = folder / f"{CHECKPOINT}.part"
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(stored, part, {"progress": json.dumps(asdict(progress))})
    except SafetensorError as error:  # such as a full disk
        raise RunError(f"{part} cannot be written: {error}") from None
    os.replace(part, folder / CHECKPOINT)
    with (folder / LOG).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([each.name for each in fields(Epoch)])
        writer.writerows(asdict(each).values() for each in progress.history)


def load_checkpoint(folder: Path, net: nn.Module) -> tuple[Progress, dict[str, Tensor]]:
    """Fill the network; returns the progress and the momentum."""
    path = folder / CHECKPOINT
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path} cannot be read: {error}; start again with another --out") from None
    net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    momentum = {k.removeprefix("momentum."): v for k, v in tensors.items() if k.startswith("momentum.")}
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["progress"])
    return Progress(content["stage"], [Epoch(**each) for each in content["history"]]), momentum


@contextmanager
def scratch_folder(run: Path) -> Iterator[str]:
    """A folder in the run's for decoded images. What a killed command has left of one is deleted first."""
    for left in run.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=run, prefix=SCRATCH) as folder:
        yield folder


def check_replaceable(folder: Path, *, test_images: bool) -> None:
    """Raises FolderError or RunError unless a run may write there, which replaces files and perhaps test/."""
    if (folder / RUN_JSON).exists():
        read_run(folder)  # raises for another program's
        return
    for path in (folder / name for name in (LOG, CURVES, TEST_IMAGES) if test_images or name != TEST_IMAGES):
        if path.exists():
            raise FolderError(f"{path} is there, and is of no run: name another folder with --out, such as runs/mine")
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is no folder: name one with --out, such as runs/mine")


def read_run(folder: Path) -> dict[str, Any]:
    """run.json. Raises RunError when the folder is no run."""
    path = folder / RUN_JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"no {path}: name the --out folder of ./cloudtrial finetune") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict) or not {"base", "classes"} <= content.keys():  # reports of runs have classes
        raise RunError(f"{path} is of no run of ./cloudtrial finetune; name another folder")
    return content


def write_run(folder: Path, content: dict[str, Any]) -> None:
    """Write run.json at once."""
    part = folder / f"{RUN_JSON}.part"
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(part, folder / RUN_JSON)


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
