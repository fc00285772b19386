"""What a stage's figures say: goes on, halts, or asks a person. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.gate.criteria import MEASURED, SPEED_METRICS, Criterion, Verdict, overall
from eval.gate.text import to_json

LABEL_FREE_METRICS = (*SPEED_METRICS, "failures", MEASURED)  # metrics that need no true classes
MIN_AGREEMENT = 0.5  # with production on the golden set; less is another order of classes, or a network that knows none


@dataclass(frozen=True)
class Parity:
    """How a deployment's answers compare with the bundle's own, computed without HTTP."""

    place: str
    n: int
    answered: int
    agreeing: int  # same class
    max_difference: float  # of a probability
    tolerance: float  # that the bundle's self-test allows

    @property
    def holds(self) -> bool:
        return self.agreeing == self.answered == self.n and self.max_difference <= self.tolerance

    def text(self) -> str:
        missing = f"; {self.n - self.answered} not answered" if self.answered < self.n else ""
        return (
            f"{self.place}: {self.agreeing} of {self.n} answers are the bundle's own, probabilities at most"
            f" {self.max_difference:.3f} away ({self.tolerance:g} is allowed){missing}"
        )


@dataclass(frozen=True)
class Decision:
    """Of one stage."""

    stage: str
    verdict: Verdict
    reasons: tuple[str, ...]  # a sentence each
    criteria: tuple[Criterion, ...] = ()
    run: str | None = None  # folder of what was measured

    @property
    def goes_on(self) -> bool:
        return self.verdict not in (Verdict.WORSE, Verdict.UNDECIDED)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
            "criteria": json.loads(to_json(self.criteria))["criteria"] if self.criteria else [],
            "run": self.run,
        }


@dataclass(frozen=True)
class Measured:
    """What a stage found, beside criteria."""

    run: str
    failures: tuple[str, ...] = ()  # why the candidate could not be measured to the end
    parities: tuple[Parity, ...] = ()
    agreement: dict[str, float] = field(default_factory=dict)  # place -> share of answers that are production's
    labelled: bool = True  # whether true classes are known: of a golden set of images they are not


def broken(stage: str, reason: str, run: str | None = None) -> Decision:
    """Of a candidate that does not work."""
    return Decision(stage, Verdict.WORSE, (reason,), run=run)


def judge_parity(stage: str, measured: Measured) -> Decision:
    """Beta: the deployment computes what the bundle computes, and what production answers for the most part."""
    lines = tuple(parity.text() for parity in measured.parities)
    if measured.failures or not all(parity.holds for parity in measured.parities):
        return Decision(stage, Verdict.WORSE, (*measured.failures, *lines), run=measured.run)
    said = tuple(f"{place}: {share:.0%} of the answers are production's" for place, share in measured.agreement.items())
    if any(share < MIN_AGREEMENT for share in measured.agreement.values()):
        doubt = f"fewer than {MIN_AGREEMENT:.0%} are: are the classes in another order, or is production broken?"
        return Decision(stage, Verdict.UNDECIDED, (*lines, *said, doubt), run=measured.run)
    return Decision(stage, Verdict.NOT_WORSE, (*lines, *said), run=measured.run)


def judgeable(measured: Measured, criteria: Sequence[Criterion]) -> list[Criterion]:
    """The criteria that the images can tell: without true classes, only failures and times are measured.

    A golden set's labels are what one network answers, mostly the one in production.
    """
    return [each for each in criteria if measured.labelled or each.metric in LABEL_FREE_METRICS]


def judge_gate(stage: str, measured: Measured, criteria: Sequence[Criterion]) -> Decision:
    """Gamma: it is shown that the candidate is not worse."""
    if measured.failures:
        return Decision(stage, Verdict.WORSE, measured.failures, tuple(criteria), measured.run)
    if not criteria:
        reason = "there is no production to compare with: a person has to decide that this model may be the first"
        return Decision(stage, Verdict.UNDECIDED, (reason,), run=measured.run)
    criteria = judgeable(measured, criteria)
    verdict = overall(criteria)
    if not measured.labelled and verdict != Verdict.WORSE:
        reason = "the golden set has no true classes, and shows no accuracy: give a test set with --images, or decide"
        return Decision(stage, Verdict.UNDECIDED, (reason,), tuple(criteria), measured.run)
    return Decision(stage, verdict, (), tuple(criteria), measured.run)


def judge_harm(stage: str, measured: Measured, criteria: Sequence[Criterion]) -> Decision:
    """Canary and verification, of few images: only what is worse for certain stops them."""
    criteria = judgeable(measured, criteria)
    harmed = [criterion for criterion in criteria if criterion.verdict == Verdict.WORSE]
    verdict = Verdict.WORSE if harmed or measured.failures else Verdict.NOT_WORSE
    return Decision(stage, verdict, measured.failures, tuple(criteria), measured.run)
