"""CIFAR-10 as two arrays, from torchvision's download or from class folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10, ImageFolder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE_PX = 32


class DataError(Exception):
    """The data folder is missing, empty, or not what the network is trained on."""


@dataclass(frozen=True)
class Split:
    """The training or the test images."""

    images: np.ndarray  # uint8 [N, 32, 32, 3], RGB
    labels: np.ndarray  # int64 [N], 0 to 9
    source: str  # name of the data set, for model.json


def load_split(folder: Path | None, *, train: bool) -> Split:
    """Read a split from class folders, or download CIFAR-10 when no folder is named.

    `folder` holds `train/CLASS/*` and `test/CLASS/*`. Raises DataError when it does not.
    """
    if folder is None:
        dataset = CIFAR10(Path.home() / ".cache" / "cloudtrial", train=train, download=True)
        return Split(dataset.data, np.asarray(dataset.targets), "CIFAR-10, torchvision download")
    root = folder / ("train" if train else "test")
    if not root.is_dir():
        raise DataError(f"no folder {root}: expected {folder}/train/CLASS/* and {folder}/test/CLASS/*")
    try:
        dataset = ImageFolder(str(root))
    except FileNotFoundError as error:  # no class folders, or one without images
        raise DataError(f"{root}: {error}") from None
    if tuple(dataset.classes) != CLASSES:
        raise DataError(f"{root} has the classes {dataset.classes}, expected {list(CLASSES)}")
    images = np.stack([_read(Path(path)) for path, _ in dataset.samples])
    return Split(images, np.asarray(dataset.targets), _source(folder, Path(dataset.samples[0][0])))


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape != (SIZE_PX, SIZE_PX, 3):
        raise DataError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, expected {SIZE_PX}x{SIZE_PX}")
    return pixels


def _source(folder: Path, example: Path) -> str:
    kind = example.suffix.lstrip(".").upper().replace("JPG", "JPEG")
    return f"class folders of {kind} files ({folder.name}/)"
