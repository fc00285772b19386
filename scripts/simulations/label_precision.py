"""How often the labels of `./cloudtrial label propose` reach the precision that was asked for: docs/label.md.

    python -m scripts.simulations.label_precision [--splits 500]

Splits of CIFAR-10's test images, with the answers of the reference in reports/example: one part is held out, another is
labelled. Then simulated images, of which the true precision above each confidence is known. A split in which nothing is
labelled counts as one that held. Exit code 1 where fewer splits held than 95%, less what so few leave open.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.stats.intervals import proportion
from scripts.paths import REPORTS_DIR
from training.labelling.threshold import ERROR_RATE, Goal, choose

EXAMPLE = REPORTS_DIR / "example"
SEED = 21


@dataclass(frozen=True)
class Images:
    """A model's answers."""

    confidence: np.ndarray
    right: np.ndarray  # bool

    def take(self, indices: np.ndarray) -> Images:
        return Images(self.confidence[indices], self.right[indices])

    def precision_above(self, confidence: float) -> float:
        return float(self.right[self.confidence >= confidence].mean())


Drawn = tuple[Images, Images, Callable[[float], float]]  # held out, unlabelled, the true precision above a confidence
Draw = Callable[[np.random.Generator, int, int], Drawn]


@dataclass(frozen=True)
class Row:
    """What became of many splits."""

    source: str
    goal: Goal
    held_out: int
    unlabelled: int
    held: list[bool]  # whether what the goal is about reached the precision
    labels_held: list[bool]  # whether the labels of the split did
    coverage: list[float]  # fraction of the unlabelled images that got a label

    @property
    def missed(self) -> bool:
        """Whether it is shown that fewer than 95% of splits hold."""
        high = proportion(sum(self.held), len(self.held)).high
        return high is not None and high < 1 - ERROR_RATE

    def cells(self) -> tuple[str, ...]:
        return (
            self.source, f"{100 * self.goal.precision:g}%{', on average' if self.goal.on_average else ''}",
            f"{self.held_out:,}", f"{self.unlabelled:,}", f"{np.mean([each > 0 for each in self.coverage]):.1%}",
            f"{np.mean(self.coverage):.1%}", f"{np.mean(self.labels_held):.1%}", f"{np.mean(self.held):.1%}",
        )  # fmt: skip


def example_images(folder: Path = EXAMPLE) -> Images:
    """The reference's answers to the 10,000 test images; read past the run's validation, which takes longer."""
    true = [each["label"] for each in json.loads((folder / "run.json").read_text(encoding="utf-8"))["image_manifest"]]
    confidence, right = np.zeros(len(true)), np.zeros(len(true), bool)
    with gzip.open(folder / "samples.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            if '"target":"reference"' in line:
                sample = json.loads(line)
                index, probabilities = sample["image_index"], sample["probabilities"]
                confidence[index] = max(probabilities)
                right[index] = probabilities.index(max(probabilities)) == true[index]
    return Images(confidence, right)


def splits_of(images: Images) -> Draw:
    """Disjoint parts; the truth is that of all images."""

    def draw(rng: np.random.Generator, held_out: int, unlabelled: int) -> Drawn:
        order = rng.permutation(len(images.right))
        new = images.take(order[held_out : held_out + unlabelled])
        return images.take(order[:held_out]), new, images.precision_above

    return draw


def simulated(rng: np.random.Generator, held_out: int, unlabelled: int) -> Drawn:
    """A model that is surer than it should be: right with the root of c at confidence c, uniform from 0 to 1."""

    def draw(n: int) -> Images:
        confidence = rng.uniform(size=n)
        return Images(confidence, rng.uniform(size=n) < np.sqrt(confidence))

    return draw(held_out), draw(unlabelled), lambda c: (2 / 3) * (1 - c**1.5) / (1 - c)


def measure(source: str, draw: Draw, goal: Goal, held_out: int, unlabelled: int, splits: int) -> Row:
    """Label so many splits."""
    rng = np.random.default_rng(SEED)
    held, labels_held, coverage = [], [], []
    for _ in range(splits):
        known, new, truth = draw(rng, held_out, unlabelled)
        chosen = choose(known.confidence, known.right, new.confidence, goal).chosen
        coverage.append(chosen.labels / unlabelled if chosen else 0.0)
        labels_held.append(chosen is None or new.precision_above(chosen.confidence) >= goal.precision)
        on_average = chosen is None or truth(chosen.confidence) >= goal.precision
        held.append(on_average and (goal.on_average or labels_held[-1]))
    return Row(source, goal, held_out, unlabelled, held, labels_held, coverage)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.label_precision", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--splits", type=int, default=500, help="a row (default: 500)")
    options = parser.parse_args(argv)
    cifar = splits_of(example_images())
    cases: list[tuple[str, Draw, Goal, int, int]] = [
        ("CIFAR-10", cifar, Goal(precision), held_out, unlabelled)
        for precision, held_out, unlabelled in (
            (0.98, 5000, 5000), (0.99, 5000, 5000), (0.99, 5000, 1000), (0.99, 1000, 5000), (0.995, 5000, 5000),
            (0.999, 5000, 5000),
        )
    ]  # fmt: skip
    cases += [
        ("CIFAR-10", cifar, Goal(0.99, on_average=True), 5000, 200),
        ("simulated", simulated, Goal(0.8), 2000, 5000),
        ("simulated", simulated, Goal(0.8, on_average=True), 2000, 5000),
    ]
    heads = "Images | Goal | Held out | Unlabelled | Something labelled | Labelled, mean | Labels reached it | Held"
    print(f"| {heads} |\n|---|---|{'--:|' * 6}")
    missed = False
    for case in cases:
        row = measure(*case, options.splits)
        print(f"| {' | '.join(row.cells())} |", flush=True)
        missed |= row.missed
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
