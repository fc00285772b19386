"""Which images get the model's label, which a person has to see, and what is known of that. No file is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import DataError
from training.labelling.answers import Answer
from training.labelling.shift import Shift, shifts
from training.labelling.threshold import Choice, Goal, Trial, choose, label_bound, lower_bound


@dataclass(frozen=True)
class Image:
    """A file and the model's answer."""

    name: str  # its path from the folder that was named, with /
    path: Path
    answer: Answer
    label: int = -1  # of a held-out image: its true class


@dataclass(frozen=True)
class ClassFigures:
    """The images above the threshold of which the model says one class."""

    name: str
    held_out: int
    wrong: int  # of these
    labels: int

    @property
    def bound(self) -> float:
        return lower_bound(self.held_out - self.wrong, self.held_out)


@dataclass(frozen=True)
class Proposal:
    """What becomes of each unlabelled image."""

    classes: tuple[str, ...]
    held_out: int  # different images that can be read
    choice: Choice
    labelled: tuple[Image, ...]
    review: tuple[Image, ...]  # the least margin first
    left_out: tuple[tuple[str, str], ...]  # name, and why
    per_class: tuple[ClassFigures, ...]
    shifts: tuple[Shift, ...]

    @property
    def unproven(self) -> list[ClassFigures]:
        """Classes that get labels, and whose own held-out images do not show the precision."""
        goal = self.choice.goal.precision
        return [each for each in self.per_class if each.labels and each.bound < goal]


def propose(held_out: Sequence[Image], unlabelled: Sequence[Image], classes: tuple[str, ...], goal: Goal) -> Proposal:
    """Choose the threshold and divide the images. Raises DataError when there is nothing to choose it by."""
    held, known = _distinct(held_out, {})
    new, _ = _distinct(unlabelled, {pixels: _same(image, classes) for pixels, image in known.items()})
    kept = {image.name for image in new}
    if not held:
        raise DataError("no held-out image can be read: without them nothing is known of the model's precision")
    confidence, right = _confidence(held), np.array([image.answer.first == image.label for image in held])
    choice = choose(confidence, right, _confidence(new), goal)
    threshold = choice.chosen.confidence if choice.chosen else np.inf
    labelled = tuple(image for image in new if image.answer.probability >= threshold)
    review = sorted((image for image in new if image.answer.probability < threshold), key=lambda i: i.answer.margin)
    return Proposal(
        classes,
        len(held),
        choice,
        labelled,
        tuple(review),
        _reasons(unlabelled, kept, known, classes),
        _per_class(held, labelled, threshold, classes),
        tuple(shifts(_features(held), _features(new))) if new else (),
    )


def _distinct(images: Sequence[Image], known: dict[str, str]) -> tuple[list[Image], dict[str, Image]]:
    """Those that can be read, the first of each that look the same, without what is known already."""
    first: dict[str, Image] = {}
    for image in images:
        if not image.answer.problem and image.answer.input_sha256 not in known:
            first.setdefault(image.answer.input_sha256, image)
    return list(first.values()), first


def _same(image: Image, classes: Sequence[str]) -> str:
    return f"the same as the held-out image {image.name}, which is labelled {classes[image.label]}"


def _reasons(
    unlabelled: Sequence[Image], kept: set[str], held_out: dict[str, Image], classes: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Why each image that is neither labelled nor for a person is left out."""
    first: dict[str, Image] = {}
    found = []
    for image in unlabelled:
        pixels = image.answer.input_sha256
        if image.name in kept:
            first[pixels] = image
        elif image.answer.problem:
            found.append((image.name, image.answer.problem))
        elif pixels in held_out:
            found.append((image.name, _same(held_out[pixels], classes)))
        else:
            found.append((image.name, f"the same as {first[pixels].name}"))
    return tuple(found)


def _confidence(images: Sequence[Image]) -> np.ndarray:
    return np.array([image.answer.probability for image in images])


def _features(images: Sequence[Image]) -> dict[str, np.ndarray]:
    return {
        "confidence": _confidence(images),
        "brightness": np.array([image.answer.brightness for image in images]),
    }


def _per_class(
    held: Sequence[Image], labelled: Sequence[Image], threshold: float, classes: Sequence[str]
) -> tuple[ClassFigures, ...]:
    sure = [image for image in held if image.answer.probability >= threshold]
    figures = []
    for index, name in enumerate(classes):
        own = [image for image in sure if image.answer.first == index]
        wrong = sum(image.label != index for image in own)
        figures.append(ClassFigures(name, len(own), wrong, sum(i.answer.first == index for i in labelled)))
    return tuple(figures)


def summary(proposal: Proposal) -> dict[str, Any]:
    """The figures, for proposal.json."""
    chosen, goal = proposal.choice.chosen, proposal.choice.goal
    return {
        "precision": goal.precision,
        "on_average": goal.on_average,
        "classes": list(proposal.classes),
        "held_out": proposal.held_out,
        "labelled": len(proposal.labelled),
        "review": len(proposal.review),
        "left_out": len(proposal.left_out),
        "threshold": chosen and _trial(chosen),
        "tried": [[trial.confidence, trial.held_out, trial.wrong, trial.labels] for trial in proposal.choice.trials],
        "per_class": {
            each.name: {
                "held_out": each.held_out, "wrong": each.wrong, "bound": round(each.bound, 5), "labels": each.labels,
            }
            for each in proposal.per_class
        },
        "shift": {each.what: {"ks": round(each.distance, 4), "p": each.p} for each in proposal.shifts},
    }  # fmt: skip


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "confidence": trial.confidence, "held_out": trial.held_out, "wrong": trial.wrong, "labels": trial.labels,
        "bound": round(lower_bound(trial.held_out - trial.wrong, trial.held_out), 5),
        "bound_of_labels": round(label_bound(trial), 5),
    }  # fmt: skip
