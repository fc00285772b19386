"""What is said when no label reaches the precision: what is missing, and how much of it."""

from __future__ import annotations

import numpy as np
import pytest

from training.labelling.threshold import Goal, choose
from training.labelling.wording import remedy


def choice(held_out: int, unlabelled: int, goal: Goal, right: float = 1.0):
    """Of a model whose surest images are right, down to this confidence."""
    held, new = np.linspace(1, 0, held_out), np.linspace(1, 0, unlabelled)
    return choose(held, held >= 1 - right, new, goal)


@pytest.mark.parametrize(
    ("held_out", "unlabelled", "goal", "right", "expected"),
    [
        pytest.param(200, 50_000, Goal(0.99), 0.6, "held-out images could show it", id="too few held out"),
        pytest.param(5000, 50, Goal(0.99), 0.6, "ask for the precision with --on-average", id="too few to label"),
        pytest.param(
            200, 50, Goal(0.99), 0.6, "--on-average, for which about 1,", id="too few of both",
        ),
        pytest.param(5000, 5000, Goal(0.9), 0.0, "ask for a lower --precision", id="a model that is wrong"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_help(held_out, unlabelled, goal, right, expected):
    found = choice(held_out, unlabelled, goal, right)
    assert found.chosen is None
    assert expected in remedy(found, held_out)
