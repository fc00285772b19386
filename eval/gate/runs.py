"""The criteria of a gate, from the samples of two runs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eval.analysis.comparability import common_targets
from eval.analysis.run_comparison import RunData, Thresholds, compare_runs, with_names_of_a
from eval.errors import EvalError
from eval.gate.criteria import Criterion, Margins, run_criteria, score_criteria


def judge_runs(
    production: RunData,
    candidate: RunData,
    margins: Margins,
    *,
    pairs: Mapping[str, str] | None = None,
    only: Collection[str] = (),
    steady_machine: bool = False,
) -> list[Criterion]:
    """Every criterion of `only`, or all there are. `pairs`: target of production -> that of the candidate.

    Raises EvalError for runs that cannot be compared. steady_machine: both were measured in turns, in one run.
    """
    pairs = pairs or {}
    candidate = with_names_of_a(candidate, {name_b: name_a for name_a, name_b in pairs.items()})
    targets = list(pairs) or common_targets(production.run, candidate.run)
    if not targets:
        raise EvalError(
            f"{production.folder} and {candidate.folder} have no target in common; name two with --pair A=B"
        )
    if production.run.classes != candidate.run.classes:
        raise EvalError(
            f"{candidate.folder} has other classes than {production.folder}: their scores cannot be compared"
        )
    scores = [c for target in targets for c in score_criteria(production, candidate, target, margins.score)]
    if not scores:
        raise EvalError(f"{production.folder} and {candidate.folder} have no image in common: measure both on one set")
    differences = compare_runs(
        production, candidate, Thresholds(), changed_by_plan=list(pairs), steady_machine=steady_machine
    )
    speed = run_criteria([d for d in differences if d.target in targets], margins)
    return [c for c in (*scores, *speed) if c.metric in (only or (c.metric,))]
