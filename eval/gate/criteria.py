"""Whether a candidate may take the place of what is deployed: each criterion of a gate, judged. Pure.

`compare` asks whether a run is worse for certain, and so passes a candidate that was measured too little. A gate asks
the opposite: it has to be shown that the candidate is not worse by more than a margin (non-inferiority, ICH E9). Every
criterion is the lower end of a one-sided 95% interval of candidate minus production, and all have to hold, so that the
chance to pass a candidate that is worse by the margin is at most 5% whatever their number.

    accuracy                    Tango's score interval of paired proportions, on the images that both predicted
    precision, F1, ROC AUC      macro means, paired by image (eval/analysis/predictions/paired_scores.py), wider by what
                                images that were not sent might show
    p95, cost                   the 95% intervals of `compare`, without what the machine did; undecided where that
                                cannot be told from the candidate's own change
    failures                    Newcombe's interval of the difference of two proportions (Statistics in Medicine 17,
                                1998, method 10), of proportions that are known no better than their blocks show: an
                                outage alone, in either run, proves no rate
    measured                    a target that was measured in production, and not or not to its end in the candidate

docs/gate.md: how often candidates pass, by `python -m scripts.simulations.gate_passes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import scipy

from eval.analysis.predictions.accuracy import Prediction
from eval.analysis.predictions.mcnemar import DiscordantPairs, discordant_pairs
from eval.analysis.predictions.paired_scores import PairedScore, paired_scores
from eval.analysis.run_comparison import (
    GATE_CONFIDENCE,
    Difference,
    RunData,
    predictions_by_image,
    tells_no_accuracy,
)
from eval.codes import ReasonCode, Statement, reason

CONFIDENCE = GATE_CONFIDENCE
POWER = 0.8  # with which as many images as are named decide, if the difference stays what it is
Z = float(scipy.stats.norm.ppf(CONFIDENCE))
SPEED_METRICS = ("p95", "cost")
MEASURED = "measured"
RUN_NAMES = {"A": "production", "B": "the candidate"}


class Verdict(StrEnum):
    """What a criterion says, or all of them."""

    BETTER = "better"  # than production, for certain
    NOT_WORSE = "not worse"  # by the margin or more, for certain
    UNDECIDED = "undecided"
    WORSE = "worse"  # than production, for certain, and perhaps by more than the margin
    NOT_JUDGED = "not judged"  # there is no test


@dataclass(frozen=True)
class Margins:
    """How much worse a candidate may be. Fractions: 0.005 is half a point."""

    score: float = 0.005  # of accuracy, precision, F1 and ROC AUC
    p95: float = 0.10
    failures: float = 0.01
    cost: float = 0.10


@dataclass(frozen=True)
class Criterion:
    """One figure of one target in production and in the candidate."""

    target: str
    metric: str  # "accuracy", "precision_macro", "f1_macro", "roc_auc", "p95", "failures", "cost", "measured"
    verdict: Verdict
    margin: float
    scenario: str | None = None
    production: float | None = None
    candidate: float | None = None
    gain: float | None = None  # of the candidate, so that more is better; of p95 and cost as a fraction
    low: float | None = None  # one-sided 95% limits of it
    high: float | None = None
    n: int = 0  # images, or requests of the candidate
    needed: int | None = None  # images that would decide
    reason: Statement | None = None  # why it is not judged or undecided, or was not measured


def judge(low: float, high: float, margin: float) -> Verdict:
    """What the limits of a gain say."""
    if low > 0:
        return Verdict.BETTER
    if low > -margin:
        return Verdict.NOT_WORSE
    return Verdict.WORSE if high < 0 else Verdict.UNDECIDED


def overall(criteria: Sequence[Criterion]) -> Verdict:
    """The verdict of a gate: better is a candidate with a better score, and nothing undecided or worse."""
    verdicts = {criterion.verdict for criterion in criteria}
    for verdict in (Verdict.WORSE, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    if verdicts <= {Verdict.NOT_JUDGED}:
        return Verdict.UNDECIDED
    better = any(c.verdict == Verdict.BETTER for c in criteria if c.metric not in (*SPEED_METRICS, "failures"))
    return Verdict.BETTER if better else Verdict.NOT_WORSE


def score_criteria(production: RunData, candidate: RunData, target: str, margin: float) -> list[Criterion]:
    """Accuracy and the other scores of a target, on the images that both runs predicted; none without any."""
    labels = {(entry.name, entry.sha256): entry.label for entry in candidate.run.image_manifest}
    a, b = (predictions_by_image(side, target) for side in (production, candidate))
    common = [image for image in a if image in b and image in labels]
    if not common:
        return []
    if tells_no_accuracy(production, candidate, target):
        golden = reason(ReasonCode.GOLDEN_SET)
        return [Criterion(target, "accuracy", Verdict.UNDECIDED, margin, n=len(common), reason=golden)]
    true, predicted_a, predicted_b = (
        np.array(column)
        for column in ([labels[i] for i in common], [a[i].label for i in common], [b[i].label for i in common])
    )
    accuracy = accuracy_criterion(target, discordant_pairs(labels, a, b), margin)
    n_classes = len(candidate.run.classes)
    scores = paired_scores(true, (predicted_a, predicted_b), _probabilities(common, a, b, n_classes), n_classes)
    return [
        replace(
            accuracy, production=float((predicted_a == true).mean()), candidate=float((predicted_b == true).mean())
        ),
        *(score_criterion(target, metric, score, margin) for metric, score in scores.items()),
    ]


def accuracy_criterion(target: str, pairs: DiscordantPairs, margin: float) -> Criterion:
    """Of the images that both predicted."""
    interval = pairs.difference(2 * CONFIDENCE - 1)
    gain, low, high = (value or 0.0 for value in (interval.value, interval.low, interval.high))
    criterion = _judged(Criterion(target, "accuracy", Verdict.UNDECIDED, margin, n=pairs.n), gain, low, high)
    if criterion.needed is None or not margin:  # no number of images shows that nothing at all is lost
        return replace(criterion, needed=None)
    # Without a single difference the interval's end is still Z² / n away
    variance = (pairs.only_a_correct + pairs.only_b_correct) / pairs.n - gain**2
    of_spread = images_needed(gain, math.sqrt(variance / pairs.n), pairs.n, margin) or 0
    return replace(criterion, needed=max(of_spread, math.ceil(Z**2 / margin)))


def score_criterion(target: str, metric: str, score: PairedScore, margin: float) -> Criterion:
    """Of the same images: the limits of the score test of a count, which are some way off where nothing was counted.

    Where few images differ, or none, the resamples know nothing of those that would in other samples. An image weighs
    as much as one of the smallest class.
    """
    criterion = Criterion(target, metric, Verdict.UNDECIDED, margin, production=score.a, candidate=score.b, n=score.n)
    gain, unseen = score.b - score.a, Z * score.image_weight / 2
    half_width = Z * (unseen + math.hypot(score.standard_error, unseen))
    judged = _judged(criterion, gain, gain - half_width, gain + half_width)
    if judged.needed is None:
        return judged
    needed = images_needed(gain, score.standard_error, score.n, margin, score.image_weight)
    return replace(judged, needed=needed)


def _judged(criterion: Criterion, gain: float, low: float, high: float) -> Criterion:
    """With its verdict, and where that is open, the number of images that would decide."""
    verdict = judge(low, high, criterion.margin)
    is_open = verdict == Verdict.UNDECIDED
    needed = images_needed(gain, (high - low) / 2 / Z, criterion.n, criterion.margin) if is_open else None
    return replace(criterion, verdict=verdict, gain=gain, low=low, high=high, needed=needed)


def images_needed(gain: float, standard_error: float, n: int, margin: float, image_weight: float = 0.0) -> int | None:
    """So many images decide, with probability POWER, if gain and spread stay what they are, one way or the other."""
    z = Z + float(scipy.stats.norm.ppf(POWER))
    distance = max(gain + margin, -gain)  # to what is to be excluded: worse by the margin, or no loss
    if distance <= 0:
        return None
    return math.ceil(n * ((z * standard_error / distance) ** 2 + Z**2 * image_weight / distance))


def run_criteria(differences: Sequence[Difference], margins: Margins) -> list[Criterion]:
    """Speed, failures, cost, and what was not measured, from what `compare` found."""
    judges: dict[str, Callable[[Difference], Criterion]] = {
        "p95": lambda d: _speed(d, margins.p95),
        "cost": lambda d: _speed(d, margins.cost),
        "failed": lambda d: _failures(d, margins.failures),
        "measured": _measured,
    }
    return [judges[d.metric](d) for d in differences if d.metric in judges]


def _measured(d: Difference) -> Criterion:
    verdict = Verdict.WORSE if d.regressed else Verdict.NOT_JUDGED
    return Criterion(d.target, MEASURED, verdict, 0.0, n=d.n_b, reason=d.reason and _with_names(d.reason))


def _with_names(statement: Statement) -> Statement:
    """Of the runs, which `compare` calls A and B."""
    values = dict(statement.values)
    if "run" in values:
        values["run"] = RUN_NAMES[values["run"]]
    else:
        values["runs"] = [RUN_NAMES[letter] for letter in values["runs"]]
    return replace(statement, values=values)


def _speed(d: Difference, margin: float) -> Criterion:
    criterion = Criterion(
        d.target, d.metric, Verdict.NOT_JUDGED, margin, d.scenario, d.a, d.b, n=d.n_b, reason=d.reason
    )
    if d.threshold is None or d.own is None or d.reason:
        return criterion
    if d.p is None:
        return _undecided(criterion, ReasonCode.MACHINE_MAY_EXPLAIN)
    if d.target == d.reference and d.change is not None and d.change > margin:
        return _undecided(criterion, ReasonCode.SHARED_CHANGE, change=d.change)
    if d.low is None or d.high is None:
        return replace(criterion, reason=reason(ReasonCode.YARDSTICK))
    gain, low, high = 0.0 - d.own, 0.0 - d.high, 0.0 - d.low  # of no change, 0 and not -0
    return replace(criterion, verdict=judge(low, high, margin), gain=gain, low=low, high=high)


def _undecided(criterion: Criterion, code: ReasonCode, **values: Any) -> Criterion:
    return replace(criterion, verdict=Verdict.UNDECIDED, reason=reason(code, **values))


def _failures(d: Difference, margin: float) -> Criterion:
    criterion = Criterion(
        d.target, "failures", Verdict.NOT_JUDGED, margin, d.scenario, d.a, d.b, n=d.n_b, reason=d.reason
    )
    if d.p is None or d.a is None or d.b is None:
        return criterion
    failed = d.details
    low, high = newcombe_difference(
        failed["failed_b"], d.n_b, failed["failed_a"], d.n_a, margins=(failed["margin_b"], failed["margin_a"])
    )
    return replace(criterion, verdict=judge(-high, -low, margin), gain=d.a - d.b, low=-high, high=-low)


def newcombe_difference(
    successes_a: int,
    n_a: int,
    successes_b: int,
    n_b: int,
    confidence: float = CONFIDENCE,
    margins: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, float]:
    """Limits, of that one-sided confidence each, of proportion a minus proportion b, of samples that do not depend on
    each other. margins: how far each proportion may be off at least, where its own values depend on each other."""
    a, b = successes_a / n_a, successes_b / n_b
    low_a, high_a = _proportion_limits(successes_a, n_a, confidence, margins[0])
    low_b, high_b = _proportion_limits(successes_b, n_b, confidence, margins[1])
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def _proportion_limits(successes: int, n: int, confidence: float, margin: float) -> tuple[float, float]:
    """Wilson's, or so far from the proportion, within 0 and 1."""
    wilson = scipy.stats.binomtest(successes, n).proportion_ci(2 * confidence - 1, method="wilson")
    value = successes / n
    return min(float(wilson.low), max(0.0, value - margin)), max(float(wilson.high), min(1.0, value + margin))


def _probabilities(
    common: Sequence[Any], a: Mapping[Any, Prediction], b: Mapping[Any, Prediction], n_classes: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of both, in the order of the images; None unless all are complete."""
    rows = [[of[image].probabilities for image in common] for of in (a, b)]
    if any(row is None or len(row) != n_classes for side in rows for row in side):
        return None
    return np.array(rows[0], float), np.array(rows[1], float)
