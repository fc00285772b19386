"""Write a bundle's reference.json: how its inputs and answers are distributed on images or rows that were held out.

    .venv/bin/python -m training.reference --model models/mine --images photos/test   # CLASS/*, or images without
    .venv/bin/python -m training.reference --model models/iris --rows rows.csv        # columns of numbers, then `class`

Runs each engine of the bundle, as the service does. ./cloudtrial promote, export and tabular write the file themselves.
The model's version stays: it is that of the engine's file. service/monitoring/reference.py describes the format.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from service.engines import engine_class
from service.errors import BundleError, Problem, SettingsError
from service.images.preprocess import decode_image
from service.manifest.records import TabularInput
from service.model import Bundle, load_bundle
from service.monitoring.reference import REFERENCE
from training.bundles.reference import add_reference, measured, reference_of
from training.errors import DataError, TrainingError
from training.folders import class_folders, image_files

BATCH_SIZE = 50
MAX_UNREADABLE = 0.5  # of the files; beyond, something else is wrong

Labelled = tuple[np.ndarray, int | None]  # an input as the network takes it, and its class where that is known


def _images(bundle: Bundle, root: Path) -> Iterator[Labelled]:
    """Each image that can be read, with its class where the folders name classes."""
    has_classes = root.is_dir() and any(each.is_dir() and each.name in bundle.classes for each in root.iterdir())
    folders: dict[str | None, list[Path]] = {**class_folders(root)} if has_classes else {None: image_files(root)}
    if unknown := [name for name in folders if name is not None and name not in bundle.classes]:
        raise DataError(f"{root} has folders of no class of {bundle.name}: {', '.join(unknown)}; name them as it does")
    paths = [(path, name) for name, own in folders.items() for path in own]
    if not paths:
        raise DataError(f"{root} holds no images; name a folder with CLASS/*, or with images")
    bad: list[str] = []
    for path, name in tqdm(paths, desc="images", leave=False):
        try:
            yield decode_image(path.read_bytes(), bundle), None if name is None else bundle.classes.index(name)
        except Problem as problem:
            bad.append(f"{path.name} ({problem.detail})")
    if bad:
        message = f"{len(bad)} of {len(paths)} files cannot be read, the first: {bad[0]}"
        if len(bad) > MAX_UNREADABLE * len(paths):
            raise DataError(message)
        print(f"left out: {message}", flush=True)


def _rows(bundle: Bundle, source: str) -> Iterator[Labelled]:
    from training.bundles.tabular import read_rows  # imports scikit-learn

    rows = read_rows(source)
    names = tuple(feature.name for feature in bundle.input.features) if isinstance(bundle.input, TabularInput) else ()
    if rows.features != names:
        raise DataError(f"{source} has the columns {list(rows.features)}, {bundle.name} takes {list(names)}")
    if unknown := sorted(set(rows.classes) - set(bundle.classes)):
        raise DataError(f"{source} has the classes {unknown}, {bundle.name} only {list(bundle.classes)}")
    for values, label in zip(rows.values, rows.labels, strict=True):
        yield values, bundle.classes.index(rows.classes[label])


def measure_bundle(bundle: Bundle, pairs: Iterator[Labelled], engines: Sequence[str], data: str) -> dict[str, Any]:
    """Run the engines on inputs with their class ids. Raises BundleError, SettingsError when one cannot be run."""
    made = {engine: engine_class(engine)(bundle) for engine in engines}
    numbers, labels, answers = [], [], {engine: [] for engine in engines}
    while batch := list(islice(pairs, BATCH_SIZE)):
        inputs = np.stack([each for each, _ in batch])
        labels += [label for _, label in batch]
        numbers.append(measured(inputs, bundle.input))
        for name, engine in made.items():
            answers[name].append(engine.probabilities(inputs))
    known = None if None in labels else np.array(labels)
    found = {name: np.concatenate(rows) for name, rows in answers.items()}
    return reference_of(bundle.input, np.concatenate(numbers), found, known, data)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog=".venv/bin/python -m training.reference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--model", type=Path, required=True, help="folder of the bundle, which gets the file")
    source = result.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder with CLASS/*, or with images whose classes are not known")
    source.add_argument("--rows", help="CSV file whose last column is `class`, or sklearn:iris")
    result.add_argument("--data", help="what they are, for the file (default: the folder's or the file's name)")
    result.add_argument("--engine", action="append", help="run this engine alone; may be repeated (default: all)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Exits with one line when it fails."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        bundle = load_bundle(arguments.model)
        is_tabular = isinstance(bundle.input, TabularInput)
        if is_tabular != (arguments.rows is not None):
            raise DataError(f"{bundle.name} takes {'rows: give --rows' if is_tabular else 'images: give --images'}")
        pairs = _rows(bundle, arguments.rows) if is_tabular else _images(bundle, arguments.images)
        data = arguments.data or str(arguments.rows or arguments.images.name)
        content = measure_bundle(bundle, pairs, arguments.engine or list(bundle.engines), data)
        add_reference(arguments.model, content)
    except (TrainingError, BundleError, SettingsError, OSError) as error:
        sys.exit(f"reference: {error}")
    except KeyboardInterrupt:
        sys.exit("reference: stopped; nothing was written")
    for engine, found in content["answers"].items():
        right = "of unknown classes" if found["accuracy"] is None else f"{found['accuracy']:.2%} right"
        print(
            f"{arguments.model / REFERENCE}: {engine}, {content['count']} {'rows' if is_tabular else 'images'} "
            f"{right}, mean confidence {found['confidence_mean']:.3f}"
        )


if __name__ == "__main__":
    main()
