"""Coverage of the intervals of macro F1, AUC and calibration error over samples of one simulated classifier.

    make interval-coverage        (some minutes, with the intervals of latencies)

The classifier is right on about 93% of the images and too sure of itself. The true scores are those of many more
images. A 95% interval has to hold them in at least 93% of the runs, less what so few runs leave open; exit code 1
otherwise.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

import numpy as np
import scipy

from eval.analysis.predictions.accuracy import CALIBRATION_BINS, expected_calibration_error, f1_macro, roc_auc
from eval.analysis.predictions.score_intervals import score_intervals

RUNS = 200
N_IMAGES = 2000
TRUTH_IMAGES = 200_000
N_CLASSES = 10
LOW = 0.93

Answers = tuple[np.ndarray, np.ndarray, np.ndarray]  # true labels, predicted labels, probabilities


def draw(rng: np.random.Generator, n: int) -> Answers:
    """n images of ten classes, and the answers of the classifier."""
    true = rng.integers(0, N_CLASSES, n)
    evidence = rng.normal(0, 1, (n, N_CLASSES))
    evidence[np.arange(n), true] += 3.2
    probabilities = scipy.special.softmax(4 * evidence, axis=1)
    return true, probabilities.argmax(axis=1), probabilities


def scores(true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    found = {
        "f1_macro": f1_macro(true, predicted, N_CLASSES),
        "roc_auc": roc_auc(true, probabilities, N_CLASSES),
        "ece": expected_calibration_error(true, predicted, probabilities),
    }
    return {name: value for name, value in found.items() if isinstance(value, float)}


def main(show: Callable[[str], None] = print, n: int = N_IMAGES, runs: int = RUNS, low: float = LOW) -> int:
    """Print the coverage and mean width of each. Returns the exit code."""
    truth = scores(*draw(np.random.default_rng(98), TRUTH_IMAGES))
    rng, held, width = np.random.default_rng(1), dict.fromkeys(truth, 0), dict.fromkeys(truth, 0.0)
    for _ in range(runs):
        intervals = score_intervals(*draw(rng, n), N_CLASSES, CALIBRATION_BINS)
        for name, value in truth.items():
            lower, upper = getattr(intervals, name) or (math.nan, math.nan)
            held[name] += lower <= value <= upper
            width[name] += upper - lower
    allowed = low - 1.645 * math.sqrt(LOW * (1 - LOW) / runs)
    show(f"Scores of {n:,} images in {runs:,} runs: intervals that hold the true value, and their mean width")
    for name, value in truth.items():
        remark = "" if held[name] / runs >= allowed else f"  under {allowed:.1%}"
        show(f"{name:9} {value:.4f}  {held[name] / runs:6.1%}  {width[name] / runs:.4f}{remark}")
    return int(any(count / runs < allowed for count in held.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmarks.score_coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated runs ({RUNS:,})")
    sys.exit(main(runs=parser.parse_args().runs))
