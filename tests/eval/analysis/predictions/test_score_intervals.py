"""Intervals of F1, AUC and calibration error, against samples of a known population."""

import numpy as np
import pytest

from eval.analysis.predictions.score_intervals import MIN_IMAGES, score_intervals
from scripts.benchmarks.score_coverage import draw, main, scores


def test_intervals_hold_the_scores_and_are_alike_each_time():
    answers = draw(np.random.default_rng(3), 1000)
    found = score_intervals(*answers, 10, 15)
    for name, value in scores(*answers).items():
        low, high = getattr(found, name)
        assert low <= value <= high and low < high
    assert score_intervals(*answers, 10, 15) == found


def test_four_times_the_images_halve_the_intervals():
    rng = np.random.default_rng(4)
    small, large = (score_intervals(*draw(rng, n), 10, 15).f1_macro for n in (1000, 4000))
    assert (small[1] - small[0]) / (large[1] - large[0]) == pytest.approx(2, rel=0.3)


def test_there_is_no_interval_of_few_images_or_of_no_error():
    few = score_intervals(*draw(np.random.default_rng(5), MIN_IMAGES - 1), 10, 15)
    labels = np.arange(1000) % 10
    perfect = score_intervals(labels, labels, None, 10, 15)
    assert few.f1_macro is few.roc_auc is few.ece is None
    assert perfect.f1_macro is perfect.roc_auc is perfect.ece is None


def test_coverage_that_is_too_small_is_an_exit_code_of_1():
    lines = []
    assert main(lines.append, n=1000, runs=4, low=2) == 1
    assert all("under" in line for line in lines[1:])
