"""The confidence from which on a model may be trusted with labels, at a precision that held-out images show.

Thresholds are tried from the highest one down, and the last before the first failure counts: fixed-sequence testing,
so that any number of them may be tried at one level (Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then test",
2021). They are the confidences of every 40th part of the unlabelled images, and so fixed before a held-out image is
looked at. A threshold holds when

- Clopper and Pearson's one-sided 95% bound of the precision of images above it reaches the goal: of such images, on
  average; and
- unless only that is asked for, so does the bound for the very images that get a label, of which a small folder may
  have more wrong ones than the average by chance. If held-out and unlabelled images are one draw, the wrong ones among
  those above a threshold fall to either side as in a draw without replacement (hypergeometric).

The first is exact. The second is for one threshold; how often it holds for the one that is chosen is measured by
scripts/simulations/label_precision.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts on first use

ERROR_RATE = 0.05  # in which a bound may be wrong
STEP = 1 / 40  # of the unlabelled images, from one threshold to the next
# The first threshold has to leave what can show the goal at all, or a single wrong image would end the search
START_HELD_OUT = 8  # times as many held-out images as show it when all are right, but no more than half of them
MIN_START_HELD_OUT, MAX_START = 2, 0.5  # unless twice as many are more than half
START_WRONG = 3  # wrong labels among the unlabelled images that the goal allows
MAX_FACTOR, FACTOR_STEP = 1000, 1.05  # of the held-out images, when asked how many would be enough
ROUNDING = 1e-9  # 0.01 * 300 is a little below 3


@dataclass(frozen=True)
class Goal:
    """What is asked for."""

    precision: float  # above 0, below 1
    on_average: bool = False  # over many such folders, rather than in this one

    def wrong_allowed(self, labels: int) -> int:
        """Wrong labels among so many."""
        return math.floor((1 - self.precision) * labels + ROUNDING)

    def min_held_out(self) -> int:
        """Images that show the precision when every one is right."""
        return math.ceil(math.log(ERROR_RATE) / math.log(self.precision))


@dataclass(frozen=True)
class Trial:
    """A threshold, and what is above it."""

    confidence: float
    held_out: int
    wrong: int  # of these
    labels: int  # unlabelled images, each of which would get a label

    @property
    def precision(self) -> float:
        return 1 - self.wrong / self.held_out if self.held_out else 0.0


@dataclass(frozen=True)
class Choice:
    """Every threshold that is tried, from the highest down, and how many hold."""

    goal: Goal
    trials: tuple[Trial, ...]
    passed: int  # before the first failure
    survey: tuple[Trial, ...]  # thresholds for every part of the images, which are not tried but tell what is missing

    @property
    def chosen(self) -> Trial | None:
        return self.trials[self.passed - 1] if self.passed else None


def lower_bound(right: int, n: int) -> float:
    """Clopper and Pearson's one-sided 95% bound of a fraction."""
    return float(scipy.stats.beta.ppf(ERROR_RATE, right, n - right + 1)) if right else 0.0


def label_bound(trial: Trial) -> float:
    """The one-sided 95% bound of the precision of the labels themselves."""
    low, high = 0, trial.labels  # wrong labels that the held-out images do not rule out, and that they may
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _chance_of_fewer(trial, middle) > ERROR_RATE else (low, middle - 1)
    return 1 - low / trial.labels if trial.labels else 0.0


def _chance_of_fewer(trial: Trial, wrong_labels: int) -> float:
    """Of no more wrong held-out images than there are, if so many labels are wrong."""
    total = trial.held_out + trial.labels
    return float(scipy.stats.hypergeom.cdf(trial.wrong, total, trial.wrong + wrong_labels, trial.held_out))


def p_value(trial: Trial, goal: Goal) -> float:
    """Of the hypothesis that the precision is below the goal."""
    p = float(scipy.stats.binom.cdf(trial.wrong, trial.held_out, 1 - goal.precision))
    too_many = goal.wrong_allowed(trial.labels) + 1
    if goal.on_average or too_many > trial.labels:
        return p
    return max(p, _chance_of_fewer(trial, too_many))


def choose(held_confidence: np.ndarray, held_right: np.ndarray, new_confidence: np.ndarray, goal: Goal) -> Choice:
    """Try the thresholds. The arrays hold a value for each image; `held_right` is boolean."""
    unlabelled = len(new_confidence)
    parts = [math.ceil(unlabelled * number * STEP) for number in range(1, round(1 / STEP) + 1)]
    trials, survey = (
        _trials(held_confidence, held_right, new_confidence, counts)
        for counts in (grid(unlabelled, len(held_confidence), goal), parts if unlabelled else [])
    )
    passed = next((i for i, trial in enumerate(trials) if p_value(trial, goal) > ERROR_RATE), len(trials))
    return Choice(goal, trials, passed, survey)


def _trials(
    held_confidence: np.ndarray, held_right: np.ndarray, new_confidence: np.ndarray, counts: Sequence[int]
) -> tuple[Trial, ...]:
    """The thresholds that let so many unlabelled images through."""
    order = np.argsort(held_confidence)
    sure = held_confidence[order]
    wrong_from = np.append(np.cumsum(~held_right[order][::-1])[::-1], 0)  # wrong ones at this place or above
    ordered = np.sort(new_confidence)[::-1]
    trials = []
    for confidence in dict.fromkeys(ordered[min(count, len(ordered)) - 1] for count in counts):
        place = int(np.searchsorted(sure, confidence))
        labels = int(np.count_nonzero(ordered >= confidence))
        trials.append(Trial(float(confidence), len(sure) - place, int(wrong_from[place]), labels))
    return tuple(trials)


def grid(unlabelled: int, held_out: int, goal: Goal) -> list[int]:
    """How many of the most confident images each threshold lets through; from counts alone."""
    shown_by = goal.min_held_out() / max(held_out, 1)
    start = max(MIN_START_HELD_OUT * shown_by, min(START_HELD_OUT * shown_by, MAX_START))
    if not goal.on_average:
        start = max(start, START_WRONG / ((1 - goal.precision) * max(unlabelled, 1)))
    fractions = [*np.arange(min(start, 1), 1, STEP), 1.0]
    counts = (min(math.ceil(fraction * unlabelled), unlabelled) for fraction in fractions)
    return list(dict.fromkeys(counts)) if unlabelled else []


def held_out_needed(choice: Choice, held_out: int) -> int | None:
    """About how many held-out images would let a threshold hold, if they were right as often as these; None: none."""
    steps = math.ceil(math.log(MAX_FACTOR) / math.log(FACTOR_STEP))
    for factor in (FACTOR_STEP**power for power in range(1, steps + 1)):
        first = _first(choice, round(held_out * factor))
        if first and p_value(_more(first, factor), choice.goal) <= ERROR_RATE:
            return math.ceil(held_out * factor)
    return None


def _first(choice: Choice, held_out: int) -> Trial | None:
    """The threshold with which so many held-out images would begin."""
    counts = grid(choice.survey[-1].labels if choice.survey else 0, held_out, choice.goal)
    return next((trial for trial in choice.survey if counts and trial.labels >= counts[0]), None)


def _more(trial: Trial, factor: float) -> Trial:
    return Trial(trial.confidence, round(trial.held_out * factor), round(trial.wrong * factor), trial.labels)


def best_bound(choice: Choice) -> tuple[Trial, float] | None:
    """The threshold whose held-out images show the highest precision; None where there is nothing above any."""
    above = [trial for trial in choice.survey if trial.held_out]
    bounds = [(trial, lower_bound(trial.held_out - trial.wrong, trial.held_out)) for trial in above]
    return max(bounds, key=lambda pair: pair[1], default=None)
