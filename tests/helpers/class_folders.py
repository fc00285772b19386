"""Class folders of images that a network can tell apart: each class has a colour of its own, with noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"ant": (200, 40, 40), "bee": (40, 200, 40), "cow": (40, 40, 200)}
NOISE = 30


def write_class_folders(root: Path, counts: Mapping[str, int], *, seed: int = 0, side_px: int = 32) -> Path:
    """root/CLASS/NN.png, so many of each class."""
    rng = np.random.default_rng(seed)
    for label, count in counts.items():
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.array(COLOURS[label]) + rng.normal(0, NOISE, (side_px, side_px, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return root
