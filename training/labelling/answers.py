"""The model's answers to image files, one JSON line each, kept as they come: a run that is stopped continues there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from service.classifier import Classifier
from service.errors import Problem
from service.images.preprocess import decode_image

BATCH = 16  # images in the queue at once: of a slow network they have to be through in half a minute


@dataclass(frozen=True)
class Answer:
    """What the model says of a file, or why it cannot."""

    file_sha256: str
    problem: str = ""
    input_sha256: str = ""  # of the pixels that the network sees: files with the same are copies
    brightness: float = 0.0  # mean of these pixels, 0 to 1
    first: int = 0  # the most probable class
    probability: float = 0.0
    second: int = 0
    second_probability: float = 0.0

    @property
    def margin(self) -> float:
        """How much more probable the first class is than the second."""
        return self.probability - self.second_probability


class AnswerFile:
    """The answers of one model, by the checksum of the image's file."""

    def __init__(self, path: Path, model: dict[str, str]):
        """Read what is there. Answers of another model, and a line that was being written, are dropped."""
        self.path = path
        self.known: dict[str, Answer] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        records = list(filter(None, map(_object, lines)))
        if records and records[0] == model:
            names = {field.name for field in fields(Answer)}
            self.known = {each["file_sha256"]: Answer(**each) for each in records[1:] if each.keys() == names}
        part = path.with_suffix(".part")
        kept = [model, *(asdict(answer) for answer in self.known.values())]
        part.write_text("".join(json.dumps(each) + "\n" for each in kept), encoding="utf-8")
        os.replace(part, path)

    def add(self, answers: Sequence[Answer]) -> None:
        """Append them; they survive whatever ends the process."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(answer)) + "\n" for answer in answers))
        self.known |= {answer.file_sha256: answer for answer in answers}


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def answer_all(paths: Sequence[Path], classifier: Classifier, file: AnswerFile, title: str) -> list[Answer]:
    """The answers in the order of the paths, computed where the file has none. `title` labels the progress bar."""
    found: list[Answer] = []
    rest = iter(paths)
    with ThreadPoolExecutor() as pool, tqdm(total=len(paths), desc=title, leave=False, mininterval=1) as bar:
        while batch := list(islice(rest, BATCH)):
            read = list(pool.map(lambda path: _read(path, classifier, file), batch))
            found += _answer_batch(read, classifier, file)
            bar.update(len(batch))
    return found


Read = tuple[Answer, np.ndarray | None]  # with the network's input, where it has to be computed


def _read(path: Path, classifier: Classifier, file: AnswerFile) -> Read:
    try:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if known := file.known.get(digest):
            return known, None
    except OSError as error:
        return Answer("", f"cannot be read: {error.strerror}"), None
    try:
        pixels = decode_image(data, classifier.bundle)
    except Problem as problem:
        return Answer(digest, problem.detail), None
    taken = classifier.bundle.image
    mean, std = (np.asarray(values, np.float32).reshape(3, 1, 1) for values in (taken.mean, taken.std))
    brightness = float(np.clip((pixels * std + mean).mean(), 0, 1))
    return Answer(digest, "", hashlib.sha256(pixels.tobytes()).hexdigest(), round(brightness, 6)), pixels


def _answer_batch(read: Sequence[Read], classifier: Classifier, file: AnswerFile) -> list[Answer]:
    """Run the network on what is new, and keep it."""
    inputs = [pixels for _, pixels in read if pixels is not None]
    predictions = iter(classifier.classify(inputs)[0] if inputs else [])
    answers = [
        answer if pixels is None else _with_classes(answer, next(predictions).probabilities) for answer, pixels in read
    ]
    file.add([answer for answer in answers if answer.file_sha256 and answer.file_sha256 not in file.known])
    return answers


def _with_classes(answer: Answer, probabilities: Sequence[float]) -> Answer:
    second, first = (int(index) for index in np.argsort(probabilities, kind="stable")[-2:])
    seen = asdict(answer) | {
        "first": first, "probability": round(probabilities[first], 6),
        "second": second, "second_probability": round(probabilities[second], 6),
    }  # fmt: skip
    return Answer(**seen)
