"""What the shipped model answers to images, kind by kind, and the reference that follows: measured once, then kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from scripts.simulations.drift.kinds import EQUAL, Kind
from service.engines import engine_class
from service.images.preprocess import decode_image
from service.model import Bundle
from service.monitoring.histogram import BRIGHTNESS, CONTRAST, PROBABILITIES
from service.monitoring.inputs import InputMeasure

ENGINE = "onnx"
BATCH_SIZE = 50
SEED = 23
BOUNDS = {"confidence": PROBABILITIES, "margin": PROBABILITIES, "brightness": BRIGHTNESS, "contrast": CONTRAST}


@dataclass(frozen=True)
class Answers:
    """Of images: what they are, what the model answered, and the numbers that are counted of each."""

    classes: tuple[str, ...]
    truth: np.ndarray  # int
    label: np.ndarray  # int; the answer
    numbers: dict[str, np.ndarray]  # by the names of BOUNDS

    @property
    def right(self) -> np.ndarray:
        return self.label == self.truth


@dataclass(frozen=True)
class Source:
    """An image file and its class."""

    path: Path
    truth: int


def sources(folder: Path, classes: Sequence[str]) -> list[Source]:
    """The images of CLASS/* in an order that is the same each time, mixed. Raises FileNotFoundError without any."""
    found = [Source(path, at) for at, name in enumerate(classes) for path in sorted((folder / name).glob("*.png"))]
    if not found:
        raise FileNotFoundError(f"{folder} holds no CLASS/*.png of {', '.join(classes[:3])}, ...: name CIFAR-10's test")
    order = np.random.default_rng(SEED).permutation(len(found))
    return [found[at] for at in order]


def measure(bundle: Bundle, images: Sequence[Source], kind: Kind) -> Answers:
    """Run the model on each image of one kind."""
    engine, of_input, rng = engine_class(ENGINE)(bundle), InputMeasure(bundle.input), np.random.default_rng(SEED)
    top, light = [], []
    for batch in _batches(iter(tqdm(images, desc=kind.title, leave=False))):
        inputs = np.stack([decode_image(kind.png(Image.open(each.path), rng), bundle) for each in batch])
        light.append(of_input.numbers(of_input.sample(inputs)))
        top.append(engine.probabilities(inputs))
    probabilities = np.concatenate(top)
    ordered = np.sort(probabilities, axis=1)
    return Answers(
        bundle.classes,
        np.array([each.truth for each in images]),
        probabilities.argmax(axis=1),
        {"confidence": ordered[:, -1], "margin": ordered[:, -1] - ordered[:, -2]}
        | dict(zip(of_input.names, np.concatenate(light, axis=1), strict=True)),
    )


def _batches(images: Iterator[Source]) -> Iterator[list[Source]]:
    while batch := list(itertools.islice(images, BATCH_SIZE)):
        yield batch


def kept(cache: Path, bundle: Bundle, folder: Path, kinds: Sequence[Kind], limit: int) -> dict[str, Answers]:
    """The answers by the kind's name: all images of EQUAL, `limit` of each other kind. Measures what is not in `cache`.

    Kinds that only choose among images have EQUAL's answers.
    """
    images, found = sources(folder, bundle.classes), dict[str, Answers]()
    for kind in (EQUAL, *kinds):
        if kind.shifts_labels:
            found[kind.name] = found[EQUAL.name]
            continue
        file = cache / f"{kind.name}-{bundle.version(bundle.engine(ENGINE).file)}.npy"
        if not file.exists():
            cache.mkdir(parents=True, exist_ok=True)
            measured = measure(bundle, images if kind is EQUAL else images[:limit], kind)
            part = file.with_suffix(".part")
            with part.open("wb") as output:
                np.save(
                    output, np.array([measured.truth, measured.label, *(measured.numbers[name] for name in BOUNDS)])
                )
            part.rename(file)
        truth, label, *numbers = np.load(file)
        own = dict(zip(BOUNDS, numbers, strict=True))
        found[kind.name] = Answers(bundle.classes, truth.astype(int), label.astype(int), own)
    return found
