"""The precision of the labels on CIFAR-10's test images, by the model's answers in the example report."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.simulations import label_precision
from scripts.simulations.label_precision import Row, example_images, measure, splits_of
from training.labelling.threshold import Goal, choose

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cifar():
    return example_images()


def test_98_of_100_labels_are_right_on_cifar10(cifar):
    held_out, new = cifar.take(np.arange(0, 10_000, 2)), cifar.take(np.arange(1, 10_000, 2))
    chosen = choose(held_out.confidence, held_out.right, new.confidence, Goal(0.98)).chosen
    assert chosen and new.precision_above(chosen.confidence) >= 0.98
    assert chosen.labels > 0.7 * 5000  # and few are left for a person


def test_999_of_1000_is_not_promised_by_5000_images(cifar):
    held_out, new = cifar.take(np.arange(0, 10_000, 2)), cifar.take(np.arange(1, 10_000, 2))
    assert choose(held_out.confidence, held_out.right, new.confidence, Goal(0.999)).chosen is None


@pytest.mark.parametrize(
    ("goal", "unlabelled", "low", "high"),
    [
        (Goal(0.95), 5000, 0.9, 1.0),
        (Goal(0.98), 5000, 0.7, 1.0),
        (Goal(0.98, on_average=True), 200, 0.7, 1.0),
        (Goal(0.99), 5000, 0.0, 0.05),  # its surest answers are no better than 99.1%
    ],
    ids=str,
)
def test_the_precision_holds_in_95_of_100_splits(cifar, goal, unlabelled, low, high):
    row = measure("CIFAR-10", splits_of(cifar), goal, 5000, unlabelled, 200)
    assert not row.missed
    assert low < np.mean(row.coverage) < high


def test_precision_that_is_missed_too_often_is_exit_code_1(monkeypatch, capsys):
    bad = Row("CIFAR-10", Goal(0.99), 10, 10, [True] * 90 + [False] * 10, [True] * 100, [0.5] * 100)
    monkeypatch.setattr(label_precision, "measure", lambda *_: bad)
    assert label_precision.main(["--splits", "100"]) == 1
    assert "| 90.0% |" in capsys.readouterr().out
