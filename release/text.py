"""What a release says. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.gate.criteria import Verdict
from eval.gate.text import to_text
from release.decision import Decision
from release.plan import PROD, Plan, Step

VERDICTS = {
    Verdict.BETTER: "Better.",
    Verdict.NOT_WORSE: "Not worse.",
    Verdict.WORSE: "Worse.",
    Verdict.UNDECIDED: "Undecided.",
}


def decision_lines(decision: Decision) -> list[str]:
    """The figures, then the verdict of the stage."""
    table = to_text(decision.criteria).partition("\n\n")[0].splitlines() if decision.criteria else []
    return [*table, *decision.reasons, VERDICTS[decision.verdict]]


def halted_lines(folder: Path, plan: Plan, stage: str, verdict: str) -> list[str]:
    """Why the release ends here, and what a person can do."""
    stays = f"{plan.model}@{PROD} stays {plan.production or 'unset'}"
    if verdict == Verdict.UNDECIDED:
        return [
            f"Halted in {stage}: undecided; {stays}. Read {folder / 'decision.json'}, then go on with",
            f"  ./cloudtrial release approve {folder} --reason TEXT",
            "or measure more images in a new release.",
        ]
    return [f"Halted in {stage}: worse; {stays}. {folder / 'decision.json'} says why; it cannot be approved."]


def plan_lines(plan: Plan, steps: Sequence[Step]) -> list[str]:
    """For --dry-run."""
    width = max(len(step.name) for step in steps)
    lines = [f"{plan.reference} is {plan.version}; {plan.model}@{PROD} is {plan.production or 'not set'}"]
    stage = ""
    for step in steps:
        lines += [f"{step.stage}:"] if step.stage != stage else []
        lines.append(f"  {step.name:<{width}}  {step.what}")
        stage = step.stage
    return [*lines, "Worse ends a release, undecided waits for `./cloudtrial release approve`."]
