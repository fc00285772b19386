"""Class folders of images, as labelled lists of files: DATA/CLASS/*, or DATA/train/CLASS/* and DATA/test/CLASS/*.

Labels are matched by the folders' names, so that a class which one split lacks shifts no other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from service.errors import Problem
from service.images.preprocess import decode_image
from service.manifest.reader import NAME, is_name
from service.model import Bundle
from training.errors import DataError
from training.folders import class_folders, has_splits, skipped_files_text
from training.labelling.folders import file_names

TEST_FRACTION = 0.2  # of a folder without splits
VALIDATION_FRACTION = 0.1  # of the training images: what the plots follow
MIN_TRAIN_IMAGES = 2  # of a class
FEW_IMAGES = 20
UNBALANCED = 10  # times as many images of one class as of another
MAX_MEMORY_BYTES = 2**30  # of decoded images; more are kept in a file
SHOWN = 3


@dataclass(frozen=True)
class Part:
    """Files with their labels."""

    paths: tuple[Path, ...]
    labels: np.ndarray  # int64, indices of the classes

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: np.ndarray) -> Part:
        return Part(tuple(self.paths[i] for i in indices), self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """The images to learn from, to follow the learning with, and to measure with at the end."""

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    split_here: bool  # whether the test images were drawn from the only folder
    notes: tuple[str, ...]  # what speaks against the data
    names_sha256: dict[str, str]  # of the file names of each part: with other files the split is another


def read_dataset(folder: Path, seed: int) -> Dataset:
    """The class folders' files, split. Raises DataError when nothing can be learnt from them."""
    no_files: dict[str, list[Path]] = {}
    if has_splits(folder):
        train_files, test_files = class_folders(folder / "train"), class_folders(folder / "test")
        unknown = sorted(set(test_files) - set(train_files))
        if unknown:
            raise DataError(
                f"{folder / 'test'} has classes that {folder / 'train'} lacks: {_list(unknown)}; name the folders alike"
            )
    else:
        train_files, test_files = class_folders(folder), no_files
    classes: tuple[str, ...] = tuple(train_files)
    if nameless := [name for name in classes if not is_name(name)]:  # model.json could not name it
        raise DataError(f"{folder} has a class folder {nameless[0]!r}: rename it; a name has to be {NAME}")
    if len(classes) < 2:
        raise DataError(
            f"{folder} has one class, {''.join(classes)!r}; a classifier needs at least two folders of images"
        )
    notes = [text] if (text := skipped_files_text(folder)) else []
    train, test = _part(train_files, classes), _part(test_files, classes)
    split_here = not len(test)
    if split_here:
        train, test = _split(train, TEST_FRACTION, seed)
        notes.append(f"no test folder: {len(test)} of {len(train) + len(test)} images were set aside to test with")
    elif missing := [name for name in classes if name not in test_files]:
        notes.append(f"test/ lacks {_list(missing)}: what is learnt of it is not measured")
    _check_counts(folder, train, classes)
    counts = np.bincount(train.labels, minlength=len(classes))
    if counts.min() < FEW_IMAGES:
        few = [classes[i] for i in np.flatnonzero(counts < FEW_IMAGES)]
        notes.append(f"fewer than {FEW_IMAGES} training images of {_list(few)}: expect little of it")
    if counts.max() >= UNBALANCED * counts.min():
        notes.append(
            f"unbalanced: {counts.max()} images of {classes[counts.argmax()]}, {counts.min()} of "
            f"{classes[counts.argmin()]}; look at the recall of each class, not at the accuracy"
        )
    train, validation = _split(train, VALIDATION_FRACTION, seed)
    parts = (("train", train), ("validation", validation), ("test", test))
    names = {name: _names_sha256(part, folder) for name, part in parts}
    return Dataset(folder.name, classes, train, validation, test, split_here, tuple(notes), names)


def _names_sha256(part: Part, folder: Path) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in part.paths)
    return hashlib.sha256(os.fsencode("\0".join(names))).hexdigest()


def _check_counts(folder: Path, train: Part, classes: Sequence[str]) -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    if counts.min() < MIN_TRAIN_IMAGES:
        name = classes[int(counts.argmin())]
        raise DataError(
            f"{folder} has {counts.min()} training images of {name!r} that can be read; give at least "
            f"{MIN_TRAIN_IMAGES}, better {FEW_IMAGES} or more"
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _part(files: dict[str, list[Path]], classes: Sequence[str]) -> Part:
    pairs = [(path, label) for label, name in enumerate(classes) for path in files.get(name, ())]
    return Part(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], np.int64))


def _split(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """The rest, and this fraction of each class; of a class with two images or more, at least one for each."""
    rng = np.random.default_rng(seed)
    taken = []
    for label in np.unique(part.labels):
        indices = rng.permutation(np.flatnonzero(part.labels == label))
        taken.append(indices[: min(max(round(fraction * len(indices)), 1), len(indices) - 1)])
    chosen = np.sort(np.concatenate(taken))
    return part.take(np.setdiff1d(np.arange(len(part)), chosen)), part.take(chosen)


def file_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A new array that is kept in a file. Its space is taken now, where a full disk is an OSError and no SIGBUS."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def decode(part: Part, bundle: Bundle, title: str, scratch: Path) -> tuple[np.ndarray, list[str]]:
    """uint8 [N, 3, S, S] as the service would see them, and for each file that cannot be read, why.

    An unreadable image stays black.
    """
    raw = replace(bundle, input=replace(bundle.image, mean=(0.0,) * 3, std=(1 / 255,) * 3))  # keeps the pixels
    shape = (len(part), 3, bundle.image.size_px, bundle.image.size_px)
    if np.prod(shape) > MAX_MEMORY_BYTES:
        images = file_array(scratch / f"{title}.npy", np.uint8, shape)
    else:
        images = np.zeros(shape, np.uint8)

    def read(index: int) -> str:
        try:
            images[index] = decode_image(part.paths[index].read_bytes(), raw).round()
        except (Problem, OSError) as error:
            return str(error) or type(error).__name__
        return ""

    with ThreadPoolExecutor() as pool:
        problems = list(tqdm(pool.map(read, range(len(part))), title, len(part), leave=False, mininterval=1))
    return images, problems


def copy_test_images(dataset: Dataset, data: Path, folder: Path) -> None:
    """Lay the test images out in class folders, for ./cloudtrial run --images; those of subfolders may share a name."""
    shutil.rmtree(folder, ignore_errors=True)
    for label, name in enumerate(dataset.classes):
        paths = [dataset.test.paths[index] for index in np.flatnonzero(dataset.test.labels == label)]
        relative = [path.relative_to(data / name).as_posix() for path in paths]
        file_of = file_names(relative)
        for path, source in zip(paths, relative, strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name / file_of[source])
