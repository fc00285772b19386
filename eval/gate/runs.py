"""The criteria of a gate, from the samples of two runs, and why runs must not be judged. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from eval.analysis.comparability import common_targets, incompatibilities
from eval.analysis.findings import Finding, FindingCode, invalid
from eval.analysis.run_comparison import RunData, Thresholds, compare_runs, with_names_of_a
from eval.analysis.validity import model_versions
from eval.errors import EvalError
from eval.gate.criteria import MEASURED, RUN_NAMES, Criterion, Margins, run_criteria, score_criteria
from eval.targets.engines import engine_of


def judge_runs(
    production: RunData,
    candidate: RunData,
    margins: Margins,
    *,
    pairs: Mapping[str, str] | None = None,
    only: Collection[str] = (),
    steady_machine: bool = False,
) -> list[Criterion]:
    """Every criterion of `only`, or all there are, and each target that was not measured.

    pairs: target of production -> that of the candidate. steady_machine: the machine was as fast for both, as where
    they were measured in turns, in one run. Raises EvalError for runs without a target or an image in common.
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
    differences = compare_runs(
        production, candidate, Thresholds(), changed_by_plan=list(pairs), steady_machine=steady_machine
    )
    others = run_criteria([d for d in differences if d.target in targets], margins)
    if not scores and not any(c.metric == MEASURED for c in others):
        raise EvalError(f"{production.folder} and {candidate.folder} have no image in common: measure both on one set")
    return [c for c in (*scores, *others) if c.metric in (*(only or (c.metric,)), MEASURED)]


def refusals(
    production: RunData, candidate: RunData, invalid_runs: Sequence[Finding], pairs: Mapping[str, str]
) -> list[Finding]:
    """Why two runs must not be judged. That the candidate is another model is none.

    invalid_runs: what makes each no comparison of its targets, which may be production and the candidate.
    """
    candidate = with_names_of_a(candidate, {name_b: name_a for name_a, name_b in pairs.items()})
    sides = list(zip(RUN_NAMES.values(), (production, candidate), strict=True))
    targets = list(pairs) or common_targets(production.run, candidate.run)
    return [
        *(f for f in invalid_runs if f.values["finding"].code != FindingCode.MODEL_VERSIONS_DIFFER),
        *(
            invalid(FindingCode.COMPARED_RUN_INCOMPLETE, run=name, note=side.run.incomplete_reason)
            for name, side in sides
            if not side.run.complete
        ),
        *(finding for name, side in sides for finding in _mixed_versions(name, side, targets)),
        *incompatibilities(production.run, candidate.run, {}, {}, pairs),
    ]


def _mixed_versions(name: str, side: RunData, targets: Sequence[str]) -> list[Finding]:
    """Several models in what is to be one. Each engine has weights of its own."""
    targets_by_version: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for target in targets:
        answers = [s for s in side.samples_of(target) if s.predicted_class is not None]
        engine = engine_of(side.target_run(target)) or side.run.reference_engine
        for version in model_versions(answers):
            targets_by_version[engine][version].append(target)
    mixed = [dict(by_version) for by_version in targets_by_version.values() if len(by_version) > 1]
    return [
        invalid(
            FindingCode.COMPARED_RUN_INVALID,
            run=name,
            finding=invalid(FindingCode.MODEL_VERSIONS_DIFFER, titles_by_version=by_version),
        )
        for by_version in mixed
    ]
