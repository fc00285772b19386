"""Coverage of the intervals of F1, precision, AUC and others over samples of two simulated classifiers.

    make interval-coverage        (some minutes, with the intervals of latencies)

Both are right on about 93% of the images, as the model is. One is too sure of itself, the other is calibrated, so that
nearly all calibration error of a sample is noise. The true scores are those of many more images. A 95% interval has to
hold them in at least 90% of the runs, less what so few runs leave open; exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from eval.analysis.predictions.accuracy import (
    CALIBRATION_BINS,
    average_precision,
    expected_calibration_error,
    label_scores,
    roc_auc,
)
from eval.analysis.predictions.score_intervals import score_intervals

RUNS = 200
IMAGES = (300, 2000)
TRUTH_IMAGES = 200_000
N_CLASSES = 10
EVIDENCE = 3.2  # of the true class, in standard deviations of the noise: correct on 93%
SHARPNESS = {"too sure": 4.0, "calibrated": EVIDENCE}  # by classifier: what it multiplies the evidence by
LOW = 0.90  # what the intervals of AUC hold at 300 images, of which 20 are answered wrongly

Answers = tuple[np.ndarray, np.ndarray, np.ndarray]  # true labels, predicted labels, probabilities


@dataclass(frozen=True)
class ScoreRow:
    """One score of one classifier in runs of so many images."""

    classifier: str
    images: int
    score: str
    truth: float
    runs: int  # that have an interval
    held: float  # fraction of those
    width: float  # mean

    @property
    def allowed(self) -> float:
        """The fraction of so few runs below which one in twenty comes if it is LOW in truth."""
        return LOW - 1.645 * math.sqrt(LOW * (1 - LOW) / self.runs)


def draw(rng: np.random.Generator, n: int, sharpness: float = SHARPNESS["too sure"]) -> Answers:
    """n images of ten classes, and the answers of a classifier."""
    true = rng.integers(0, N_CLASSES, n)
    evidence = rng.normal(0, 1, (n, N_CLASSES))
    evidence[np.arange(n), true] += EVIDENCE
    probabilities = scipy.special.softmax(sharpness * evidence, axis=1)
    return true, probabilities.argmax(axis=1), probabilities


def scores(true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    found = {
        **label_scores(true, predicted, N_CLASSES),
        "roc_auc": roc_auc(true, probabilities, N_CLASSES),
        "average_precision": average_precision(true, probabilities),
        "ece": expected_calibration_error(true, predicted, probabilities),
    }
    return {name: value for name, value in found.items() if isinstance(value, float)}


def measure(classifier: str, truth: dict[str, float], n: int, runs: int) -> list[ScoreRow]:
    """A row for each score."""
    rng = np.random.default_rng(1)
    intervals = [
        score_intervals(*draw(rng, n, SHARPNESS[classifier]), N_CLASSES, CALIBRATION_BINS) for _ in range(runs)
    ]
    rows = []
    for name, value in truth.items():
        ends = np.array([interval for one in intervals if (interval := getattr(one, name))])
        held = float(((ends[:, 0] <= value) & (value <= ends[:, 1])).mean())
        rows.append(ScoreRow(classifier, n, name, value, len(ends), held, float(np.ptp(ends, axis=1).mean())))
    return rows


def table(rows: Sequence[ScoreRow]) -> list[str]:
    lines = [f"{'classifier':10}  {'images':>6}  {'score':18}  {'true':>6}  {'runs':>5}  {'holds':>6}  {'width':>6}"]
    for row in rows:
        lines.append(
            f"{row.classifier:10}  {row.images:6}  {row.score:18}  {row.truth:.4f}  {row.runs:5}  {row.held:6.1%}  "
            f"{row.width:.4f}{'' if row.held >= row.allowed else f'  under {row.allowed:.1%}'}"
        )
    return lines


def main(show: Callable[[str], None] = print, images: Sequence[int] = IMAGES, runs: int = RUNS) -> int:
    """Print the coverage and mean width of each. Returns the exit code."""
    show(f"Scores of a classifier in {runs:,} simulated runs: intervals that hold the true value, and their mean width")
    rows = []
    for classifier, sharpness in SHARPNESS.items():
        truth = scores(*draw(np.random.default_rng(98), TRUTH_IMAGES, sharpness))
        for n in images:
            rows += measure(classifier, truth, n, runs)
    for line in table(rows):
        show(line)
    return int(any(row.held < row.allowed for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.score_coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated runs of each ({RUNS:,})")
    sys.exit(main(runs=parser.parse_args().runs))
