"""What a verdict is made of: which target is recommended, which agree, and whether one is shown to be fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.analysis.findings import Finding
from eval.analysis.predictions.accuracy import Agreement
from eval.analysis.predictions.same_model import SameModel
from eval.analysis.recommendation import DEFAULT_BUSY_RPS, DEFAULT_SLO_MS, Recommendation, main_scenario
from eval.analysis.report_model import Candidate, EngineComparison, TargetReport, Traffic, Verdict
from eval.cost.billing import DEFAULT_PEAK
from eval.plan.config import MAX_RATE
from eval.samples.model import REFERENCE, Sample
from eval.samples.rounds import instances_by_round, latencies_by_round
from eval.stats.comparison import Decision, quantile_ratio
from eval.stats.intervals import PERCENTILES, Estimate
from eval.targets.engines import REFERENCE_ENGINE


@dataclass(frozen=True)
class VerdictFacts:
    """What the verdict is made of."""

    targets: Mapping[str, TargetReport]
    agreement: Mapping[str, Agreement]  # by "one|other"
    complete: bool
    note: str | None  # why the run is not complete, where it says so
    invalid: Sequence[Finding]  # why its targets cannot be compared
    twins: bool
    recommendation: Recommendation
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    engine_recommended: str | None = None
    traffic: Traffic = field(default_factory=lambda: Traffic(DEFAULT_BUSY_RPS, 24 / DEFAULT_PEAK))
    slo_ms: float = DEFAULT_SLO_MS  # latency objective for p95, in ms
    reference_engine: str = REFERENCE_ENGINE
    engine_comparisons: Sequence[EngineComparison] = ()
    vs_fastest: Mapping[str, Decision] = field(default_factory=dict)  # of each target but the fastest
    same_models: Mapping[str, SameModel] = field(default_factory=dict)  # of pairs of two engines, by "one|other"

    def title(self, name: str) -> str:
        return self.targets[name].title if name in self.targets else f"the {name}"

    @property
    def measured_targets(self) -> list[str]:
        """Targets of which any request succeeded."""
        return [name for name, target_report in self.targets.items() if target_report.succeeded]

    @property
    def scenario(self) -> str | None:
        """Of every latency in the answer."""
        return main_scenario(self.targets)

    @property
    def answered(self) -> bool:
        """Whether there is an answer: a run that is not complete or not valid has none."""
        return bool(self.measured_targets) and self.complete and not self.invalid

    @property
    def has_reference(self) -> bool:
        return any(pair.endswith(f"|{REFERENCE}") for pair in self.agreement)

    def engine(self, name: str) -> str:
        """The engine of a target or of the reference; one that is not known counts as the reference's."""
        return (name in self.targets and self.targets[name].engine) or self.reference_engine

    def engines_differ(self, a: str, b: str) -> bool:
        return self.engine(a) != self.engine(b)

    def disagreements(self) -> list[tuple[str, str, Agreement]]:
        """Pairs with different predictions of an image. Who differs from the reference is not counted with others too.

        Another engine may predict some images otherwise, but not so many that it cannot be the same model.
        """
        pairs = [
            (a, b, agreement)
            for pair, agreement in self.agreement.items()
            if agreement.disagreements
            for a, b in [pair.rsplit("|", 1)]
            if not self.engines_differ(a, b) or (pair in self.same_models and self.same_models[pair].excluded)
        ]
        unlike_reference = {a for a, b, _ in pairs if b == REFERENCE}
        return [(a, b, agreement) for a, b, agreement in pairs if b == REFERENCE or not {a, b} & unlike_reference]

    def vs_reference(self, names: Sequence[str]) -> Agreement | None:
        """How targets of another engine compare with the reference, or else with the reference's engine; the worst."""
        baselines = (
            [REFERENCE]
            if self.has_reference
            else [n for n in self.measured_targets if self.engine(n) == self.reference_engine]
        )
        pairs = [
            agreement
            for a in names
            for b in baselines
            for agreement in (self.agreement_of(a, b),)
            if agreement and agreement.n
        ]
        return max(pairs, key=lambda agreement: agreement.disagreements, default=None)

    def same_model_undecided(self, names: Sequence[str]) -> bool:
        """Whether one of these differs from another engine, or from the reference, too often to be told by so few."""
        return any(
            same_model.undecided and not {*pair.rsplit("|", 1)}.isdisjoint(names)
            for pair, same_model in self.same_models.items()
        )

    def agreement_of(self, a: str, b: str) -> Agreement | None:
        return self.agreement.get(f"{a}|{b}") or self.agreement.get(f"{b}|{a}")

    def fastest(self) -> str | None:
        """The target that is shown to be faster than each other one. A twin's speed is this machine's: no rank."""
        _, ranked = rank_by_latency(self.targets, self.scenario)
        is_shown = all(decision == Decision.DIFFERENT for decision in self.vs_fastest.values())
        return ranked[0] if len(ranked) > 1 and is_shown and self.answered and not self.twins else None

    def all_targets_agree(self) -> bool:
        """Whether every target was measured, and every prediction is that of the one model."""
        compared = [agreement for agreement in self.agreement.values() if agreement.n]
        return (
            bool(compared)
            and len(self.measured_targets) == len(self.targets)
            and not self.disagreements()
            and not self.invalid
        )


def rank_by_latency(targets: Mapping[str, TargetReport], scenario: str | None) -> tuple[str, list[str]]:
    """The percentile that can be compared, and the targets that have it, the fastest first.

    Failures count as infinite, so a target that was fast until it failed is not the fastest. p95, or p50 where the run
    is too short for it.
    """
    for name in ("p95", "p50"):
        values = {
            target: percentiles[name].value
            for target, target_report in targets.items()
            if (percentiles := latency_percentiles(target_report, scenario))
        }
        known = {target: value for target, value in values.items() if value is not None}
        if known:
            return name, sorted(known, key=lambda target: known[target])
    return "p50", []


def compare_with_fastest(
    targets: Mapping[str, TargetReport], samples_by_target: Mapping[str, Sequence[Sample]]
) -> dict[str, Decision]:
    """Whether each other target's latency is that of the fastest, round by round, in the main scenario."""
    scenario = main_scenario(targets)
    percentile, ranked = rank_by_latency(targets, scenario)
    if scenario is None or scenario == MAX_RATE:  # whose rounds are of other rates for each target
        return dict.fromkeys(ranked[1:], Decision.UNDECIDED)
    of = {name: (samples_by_target[name], scenario) for name in ranked}
    rounds = {name: latencies_by_round(*of[name]) for name in ranked}
    instances = {name: instances_by_round(*of[name]) for name in ranked}
    ratios = {
        name: quantile_ratio(
            rounds[ranked[0]],
            rounds[name],
            PERCENTILES[percentile],
            paired=True,
            instances=(instances[ranked[0]], instances[name]),
        )
        for name in ranked[1:]
    }
    return {name: ratio.decision if ratio else Decision.UNDECIDED for name, ratio in ratios.items()}


def latency_percentiles(target_report: TargetReport, scenario: str | None) -> Mapping[str, Estimate]:
    """With failures."""
    report = target_report.scenarios.get(scenario or "")
    return report.latency_with_failures_ms if report else {}


def verdict_report(facts: VerdictFacts) -> Verdict:
    """All of the verdict but its words. It recommends nothing where there is no answer."""
    recommendation = facts.recommendation
    return Verdict(
        traffic=facts.traffic,
        slo_ms=facts.slo_ms,
        scenario=facts.scenario,
        engine=facts.engine_recommended,
        recommended=recommendation.target if facts.answered else None,
        runner_up=recommendation.runner_up if facts.answered else None,
        tied=recommendation.tied and facts.answered,
        slowdown_limit=recommendation.slowdown_limit,
        options=recommendation.options,
        fastest=facts.fastest(),
        vs_fastest=dict(facts.vs_fastest),
        all_targets_agree=facts.all_targets_agree(),
        valid=not facts.invalid,
    )
