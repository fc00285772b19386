"""Unlabelled images of another kind than the held-out ones are warned of."""

from __future__ import annotations

import numpy as np
import pytest

from training.labelling.shift import shifts


def shift(held_out: np.ndarray, unlabelled: np.ndarray):
    (found,) = shifts({"confidence": held_out}, {"confidence": unlabelled})
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_images_of_one_kind_give_no_warning(rng):
    pairs = [rng.beta(8, 1, (2, 1000)) for _ in range(100)]
    assert not any(shift(*pair).counts for pair in pairs)


def test_less_sure_answers_are_told_by_how_much(rng):
    held_out = rng.beta(8, 1, 2000)
    some, much = shift(held_out, rng.beta(6, 1, 2000)), shift(held_out, rng.beta(3, 1, 2000))
    assert some.counts and "the precision is not guaranteed" in some.sentence()
    assert much.counts and "do not use the labels before a person has checked" in much.sentence()


def test_a_handful_of_images_proves_no_shift(rng):
    assert not shift(rng.beta(8, 1, 2000), rng.beta(4, 1, 6)).counts
