"""The confidence from which on a model's labels are taken: bounds, the order of the tests, what is needed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom

from scripts.simulations.label_precision import measure, simulated
from training.labelling.threshold import (
    ERROR_RATE,
    Choice,
    Goal,
    Trial,
    best_bound,
    choose,
    grid,
    held_out_needed,
    label_bound,
    lower_bound,
    p_value,
)  # fmt: skip


@pytest.mark.parametrize(("right", "n"), [(0, 5), (1, 1), (99, 100), (299, 299), (3950, 4000)])
def test_the_bound_of_images_is_clopper_and_pearsons(right, n):
    expected = binomtest(right, n, alternative="greater").proportion_ci(0.95, method="exact").low
    assert lower_bound(right, n) == pytest.approx(expected)


@pytest.mark.parametrize("trial", [Trial(0.9, 400, 2, 100), Trial(0.9, 50, 0, 7), Trial(0.9, 30, 30, 5)])
def test_the_bound_of_labels_rules_out_just_what_is_improbable(trial):
    total = trial.held_out + trial.labels
    likely = [
        wrong
        for wrong in range(trial.labels + 1)
        if hypergeom.cdf(trial.wrong, total, trial.wrong + wrong, trial.held_out) > ERROR_RATE
    ]
    assert label_bound(trial) == pytest.approx(1 - max(likely) / trial.labels)


@pytest.mark.parametrize("on_average", [False, True])
def test_a_threshold_holds_where_its_bounds_reach_the_goal(on_average):
    rng = np.random.default_rng(3)
    for _ in range(300):
        held_out, labels = int(rng.integers(1, 800)), int(rng.integers(1, 800))
        trial = Trial(0.5, held_out, int(rng.binomial(held_out, 0.01)), labels)
        goal = Goal(0.98, on_average)
        reached = lower_bound(held_out - trial.wrong, held_out) >= goal.precision
        reached &= on_average or label_bound(trial) >= goal.precision - 1e-9
        assert (p_value(trial, goal) <= ERROR_RATE) == reached, trial


def test_the_last_threshold_before_the_first_failure_counts():
    confidence = np.linspace(1, 0, 2000)
    right = np.ones(2000, bool)
    right[1000:1076] = False  # and all that follow are right, which lifts the precision again
    choice = choose(confidence, right, confidence, Goal(0.95))
    assert choice.chosen and 1000 < choice.chosen.labels < 1076
    holds = [p_value(trial, choice.goal) <= ERROR_RATE for trial in choice.trials]
    assert holds[-1] and holds.index(False) == choice.passed


def test_thresholds_follow_from_unlabelled_images_alone():
    assert grid(4000, 5000, Goal(0.99)) == grid(4000, 5000, Goal(0.99)) and grid(4000, 5000, Goal(0.99))[-1] == 4000
    assert grid(1000, 5000, Goal(0.99))[0] == 479  # above which about 8 x 299 held-out images lie
    assert grid(1000, 5000, Goal(0.98, on_average=True))[0] == 239  # 8 x 149 of 5,000
    assert grid(1000, 2000, Goal(0.99, on_average=True))[0] == 500  # of few held-out images half,
    assert grid(1000, 1000, Goal(0.99, on_average=True))[0] == 598  # but no fewer than twice 299
    assert grid(50, 100, Goal(0.99)) == [50] and grid(0, 100, Goal(0.9)) == []
    confidence = np.random.default_rng(0).uniform(size=600)
    right, wrong = np.ones(600, bool), np.zeros(600, bool)
    thresholds = [
        [t.confidence for t in choose(confidence, each, confidence, Goal(0.9)).trials] for each in (right, wrong)
    ]
    assert thresholds[0] == thresholds[1]


def test_images_of_equal_confidence_are_labelled_together_or_not():
    held, new = np.array([0.9] * 300 + [0.5] * 300), np.array([0.9] * 200 + [0.5] * 100)
    right = np.array([True] * 300 + [False] * 300)
    chosen = choose(held, right, new, Goal(0.9)).chosen
    assert chosen == Trial(0.9, 300, 0, 200)


@pytest.mark.parametrize(("held_out", "found"), [(298, False), (299, True)])
def test_299_right_images_are_what_99_percent_need(held_out, found):
    confidence, right = np.full(held_out, 0.9), np.ones(held_out, bool)
    choice = choose(confidence, right, np.full(100_000, 0.9), Goal(0.99, on_average=True))
    assert (choice.chosen is not None) is found
    if not found:
        assert held_out_needed(choice, held_out) == pytest.approx(299, abs=15)
        assert best_bound(choice)[1] == pytest.approx(0.05 ** (1 / 298))


def test_no_number_of_images_shows_what_is_not_so():
    trial = Trial(0.9, 1000, 50, 500)
    assert held_out_needed(Choice(Goal(0.99), (trial,), 0, (trial,)), 1000) is None


def test_so_many_images_as_are_asked_for_do_show_it():
    confidence = np.linspace(1, 0, 400)
    right = np.arange(400) < 100  # the surest quarter
    choice = choose(confidence, right, np.linspace(1, 0, 5000), Goal(0.99))
    needed = held_out_needed(choice, 400)
    assert choice.chosen is None and needed
    more = np.linspace(1, 0, needed)
    assert choose(more, more > 0.75, np.linspace(1, 0, 5000), Goal(0.99)).chosen


@pytest.mark.parametrize("on_average", [False, True])
def test_a_precision_that_is_promised_is_missed_in_few_draws(on_average):
    row = measure("simulated", simulated, Goal(0.8, on_average), 1000, 1500, 200)
    assert np.mean(row.coverage) > 0.3
    assert not row.missed
