"""CIFAR-10 as two arrays, from torchvision's download or from class folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.errors import DataError
from training.folders import class_folders

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE_PX = 32


@dataclass(frozen=True)
class Split:
    """The training or the test images."""

    images: np.ndarray  # uint8 [N, 32, 32, 3], RGB
    labels: np.ndarray  # int64 [N], 0 to 9
    source: str  # name of the data set, for model.json


def load_split(
    folder: Path | None, *, train: bool, classes: Sequence[str] = CLASSES, warn: Callable[[str], None] = print
) -> Split:
    """Read a split from class folders, or download CIFAR-10 when no folder is named.

    `folder` holds `train/CLASS/*` and `test/CLASS/*`. Labels are the places of the folders' names in `classes`: a class
    that the test images lack is named, and shifts no other. Raises DataError when the folder holds anything else.
    """
    if folder is None:
        from torchvision.datasets import CIFAR10  # only here: not every place that trains has it

        try:
            dataset = CIFAR10(Path.home() / ".cache" / "cloudtrial", train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"CIFAR-10 cannot be downloaded ({getattr(error, 'reason', error)}); without a network name a folder "
                "with train/CLASS/* and test/CLASS/* by --data"
            ) from None
        return Split(dataset.data, np.asarray(dataset.targets), "CIFAR-10, torchvision download")
    root = folder / ("train" if train else "test")
    if not root.is_dir():
        raise DataError(f"no folder {root}: expected {folder}/train/CLASS/* and {folder}/test/CLASS/*")
    files = class_folders(root)
    unknown, missing = sorted(set(files) - set(classes)), [name for name in classes if name not in files]
    if unknown or (train and missing):
        raise DataError(f"{root} has the classes {list(files)}, expected {list(classes)}")
    if missing:
        warn(f"{root} lacks {', '.join(missing)}: accuracy says nothing of these classes")
    pairs = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    images = np.stack([_read(path) for path, _ in pairs])
    return Split(images, np.array([label for _, label in pairs]), _source(folder, pairs[0][0]))


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read: {error}; mend or delete it") from None
    if pixels.shape != (SIZE_PX, SIZE_PX, 3):
        raise DataError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, expected {SIZE_PX}x{SIZE_PX}")
    return pixels


def _source(folder: Path, example: Path) -> str:
    kind = example.suffix.lstrip(".").upper().replace("JPG", "JPEG")
    return f"class folders of {kind} files ({folder.name}/)"
