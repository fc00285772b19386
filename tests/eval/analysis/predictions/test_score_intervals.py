"""Intervals of F1, AUC and calibration error, against samples of a known population."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from eval.analysis.predictions import score_intervals
from eval.analysis.predictions.score_intervals import MIN_IMAGES, MIN_OF_EITHER
from eval.analysis.predictions.score_intervals import score_intervals as intervals_of
from scripts.simulations import score_coverage
from scripts.simulations.score_coverage import SHARPNESS, draw, scores


def test_intervals_hold_the_scores_and_are_alike_each_time():
    answers = draw(np.random.default_rng(3), 1000)
    found = intervals_of(*answers, 10, 15)
    for name, value in scores(*answers).items():
        low, high = getattr(found, name)
        assert 0 <= low <= value <= high < 1 and low < high
    assert intervals_of(*answers, 10, 15) == found


def test_four_times_the_images_halve_the_intervals():
    rng = np.random.default_rng(4)
    small, large = (intervals_of(*draw(rng, n), 10, 15).f1_macro for n in (1000, 4000))
    assert np.ptp(small) / np.ptp(large) == pytest.approx(2, rel=0.3)


def test_many_images_are_drawn_in_pieces_with_the_same_result(monkeypatch):
    answers = draw(np.random.default_rng(3), 200)
    at_once = intervals_of(*answers, 10, 15)
    monkeypatch.setattr(score_intervals, "DRAWN_AT_ONCE", 7 * 200)
    score_intervals.cached_intervals.cache_clear()
    in_pieces = intervals_of(*answers, 10, 15)
    assert np.ravel(list(vars(in_pieces).values())) == pytest.approx(np.ravel(list(vars(at_once).values())))


def test_average_precision_changes_as_its_influence_says():
    """Of one image that counts a little more, in samples with ties."""
    true, _, probabilities = draw(np.random.default_rng(8), 60)
    probabilities = np.round(probabilities, 1)
    value, influence = score_intervals._average_precision(true, probabilities)
    labels = np.unique(true)

    def weighted(weights):
        of = [average_precision_score(true == c, probabilities[:, c], sample_weight=weights) for c in labels]
        return np.mean(of)

    assert value == pytest.approx(weighted(np.ones(60)))
    assert influence.sum() == pytest.approx(0)
    for image in range(0, 60, 7):
        weights = np.ones(60)
        weights[image] += 1e-5
        assert (weighted(weights) - value) / 1e-5 == pytest.approx(influence[image], abs=1e-3)


def test_there_is_no_interval_of_few_images_or_few_errors():
    few = intervals_of(*draw(np.random.default_rng(5), MIN_IMAGES - 1), 10, 15)
    labels = np.arange(1000) % 10
    wrong = np.where(np.arange(1000) < MIN_OF_EITHER - 1, (labels + 1) % 10, labels)
    for found in (few, intervals_of(labels, labels, None, 10, 15), intervals_of(labels, wrong, None, 10, 15)):
        assert found.f1_macro is found.roc_auc is found.ece is None


def test_the_error_of_a_calibrated_classifier_may_be_none():
    true, predicted, probabilities = draw(np.random.default_rng(6), 1000, SHARPNESS["calibrated"])
    low, high = intervals_of(true, predicted, probabilities, 10, 15).ece
    assert low < 0.001 < scores(true, predicted, probabilities)["ece"] <= high


def test_intervals_hold_the_scores_of_the_population():
    truth = scores(*draw(np.random.default_rng(98), 50_000, SHARPNESS["calibrated"]))
    for row in score_coverage.measure("calibrated", truth, 300, 40):
        assert row.held >= 0.8  # 95% of 40 runs: fewer in one case of 5,000


def test_coverage_that_is_too_small_is_an_exit_code_of_1(monkeypatch):
    lines = []
    bad = score_coverage.ScoreRow("calibrated", 300, "ece", 0.001, 200, 0.5, 0.02)
    monkeypatch.setattr(score_coverage, "measure", lambda *_: [bad])
    monkeypatch.setattr(score_coverage, "TRUTH_IMAGES", 1000)
    assert score_coverage.main(lines.append) == 1
    assert "under 86.5%" in lines[-1]
