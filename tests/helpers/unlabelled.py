"""Images to label: those of the golden set, of which the model is sure, and noise, at which it guesses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import ROOT

GOLDEN = sorted((ROOT / "eval" / "golden" / "resnet18-cifar10").glob("*.png"))
NOISE = 20  # images in either folder


def golden_class(path: Path) -> str:
    """airplane, of 000-airplane.png."""
    return path.stem.partition("-")[2]


def write_noise(target: Path, seed: int) -> None:
    """An image of nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(target)


def write_label_folders(root: Path) -> tuple[Path, Path]:
    """root/held-out/CLASS/* and root/new/*, each with half of the golden set; noise has classes in turn."""
    held_out, new = root / "held-out", root / "new"
    classes = sorted({golden_class(path) for path in GOLDEN})
    for number, path in enumerate(GOLDEN):
        target = new / path.name if number % 2 else held_out / golden_class(path) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for number in range(NOISE):
        write_noise(held_out / classes[number % len(classes)] / f"noise-{number:02d}.png", number)
        write_noise(new / "noise" / f"{number:02d}.png", NOISE + number)
    return held_out, new
