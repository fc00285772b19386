"""A bundle's own answers, computed without HTTP, and how a deployment's compare with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.dataset.image_set import ImageSet
from eval.samples.model import Sample
from infra.artifact import REPOSITORY
from release.decision import Parity
from release.errors import ReleaseError

TOLERANCE = 0.05  # of a probability, between processors: as a bundle's self-test has it
Answers = Sequence[Sequence[float]]  # a probability for each class, for each image


def bundle_answers(folder: Path, engine: str, image_set: ImageSet) -> Answers:
    """What the bundle answers, in a process of its own. Raises ReleaseError with what it said last."""
    with tempfile.TemporaryDirectory(prefix="parity-") as scratch:
        paths = []
        for index, image in enumerate(image_set.images):
            path = Path(scratch) / f"{index:05d}"
            path.write_bytes(image.data)
            paths.append(f"{path}\n")
        done = subprocess.run(
            (sys.executable, "-m", "service.offline_predict"),
            cwd=REPOSITORY,
            env=os.environ | {"ENGINE": engine, "MODEL_DIR": str(folder.resolve())},
            input="".join(paths),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise ReleaseError(f"{folder.name} gave no answers of its own: {lines[-1][:300]}")
    return [json.loads(line)["probabilities"] for line in done.stdout.splitlines()]


def compare_with_bundle(place: str, samples: Iterable[Sample], answers: Answers) -> Parity:
    """A deployment's answers beside the bundle's own."""
    found = {s.image_index: s.probabilities for s in samples if s.probabilities and s.error is None}
    agreeing = sum(_best(row) == _best(answers[index]) for index, row in found.items())
    differences = [abs(a - b) for index, row in found.items() for a, b in zip(row, answers[index], strict=True)]
    return Parity(place, len(answers), len(found), agreeing, max(differences, default=0.0), TOLERANCE)


def share_alike(a: Answers, b: Answers) -> float:
    """The share of images that both give the same class."""
    return sum(_best(x) == _best(y) for x, y in zip(a, b, strict=True)) / len(a)


def _best(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)
