"""Two runs to a list of differences, each with its interval or p-value and a judgement. Pure.

A change is a regression when it is beyond its threshold and not chance. Not chance: its p-value is below 5% after
adjusting for all that is judged (Holm), which for a single one means that its 95% interval leaves out zero.

    p95          failures as infinite; what the machine did, as all targets share it, apart (machine_change.py). p50 and
                 p99 are shown beside it
    failed       of the requests sent; the larger p-value of Fisher's exact test, for failures that are independent, and
                 of the blocks', as one outage is no rate of failures
    accuracy     on the images that both runs predicted; McNemar's exact test
    cost         by list price, each run by its own price list, with the interval of its work (cost_comparison.py)

A run is resampled nowhere; what varies is seen in its blocks (eval/stats/comparison.py). With fewer than
MIN_JUDGED_BLOCKS in either run nothing but accuracy is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import scipy

from eval.analysis.comparability import common_scenarios, common_targets, models_by_target
from eval.analysis.findings import Finding, FindingCode, notice
from eval.analysis.latency import billed_samples, network_ms, normal_load
from eval.analysis.machine_change import MEAN, BothRuns, Change, Figure, find_changes, percentile_figure
from eval.analysis.predictions.accuracy import Prediction
from eval.analysis.predictions.mcnemar import NON_INFERIORITY_MARGIN, discordant_pairs
from eval.analysis.summary import first_predictions, max_rate_per_instance
from eval.codes import Reason, ReasonCode, Statement, reason
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.cost.cost_comparison import cost_change, price_run
from eval.cost.price_list import PriceList
from eval.dataset.golden import is_golden
from eval.plan.config import BASELINE_RTT, MAX_RATE, SINGLE, config_from_json
from eval.samples.columns import Samples
from eval.samples.model import MEASURE, Run, Sample, TargetRun
from eval.samples.processors import client_processor, processors_differ
from eval.samples.rounds import failures_by_block, instances_by_round, latencies_by_round, service_times_by_round
from eval.stats.comparison import (
    EQUIVALENCE_MARGIN,
    Decision,
    ValuesByBlock,
    decide,
    fraction_difference_p,
    mean_margin,
    relative_change,
)
from eval.stats.intervals import PERCENTILES, holm_adjust, min_sample_size

ALPHA = 0.05
MIN_JUDGED_BLOCKS = 6  # in either run; with fewer it is not known how much blocks differ
GATE_CONFIDENCE = 0.95  # one-sided, of what a gate judges
LATENCY_PERCENTILES = ("p50", "p95", "p99")
PROCESSOR_DEPENDENT = ("p95", "cost")  # metrics that another processor changes, though nothing else did


@dataclass(frozen=True)
class Thresholds:
    """How much worse is too much. Fractions: 0.1 is 10%, and of accuracy and failures 0.01 is one point."""

    max_p95_increase: float = 0.10
    max_failure_increase: float = 0.01
    max_accuracy_drop: float = 0.005
    max_cost_increase: float = 0.10
    requests_per_month: int = REQUESTS_PER_MONTH  # at which costs are compared


@dataclass(frozen=True)
class RunData:
    """One of the two runs."""

    folder: str
    run: Run
    samples: Sequence[Sample]  # without the warm-up
    prices: PriceList
    max_rates: Mapping[str, float | None] = field(default_factory=dict)  # target -> rps, where measured

    @property
    def peak(self) -> float:
        return config_from_json(self.run.config).peak

    def samples_of(self, target: str, scenario: str | None = None) -> list[Sample]:
        return [s for s in self.samples if s.target == target and scenario in (None, s.scenario)]

    @property
    def targets_measured(self) -> set[str]:
        return {s.target for s in self.samples}

    def answered(self, name: str) -> bool:
        """Whether any image was classified."""
        return any(s.error is None and s.phase == MEASURE and s.scenario != BASELINE_RTT for s in self.samples_of(name))

    def target_run(self, name: str) -> TargetRun:
        return next(t for t in self.run.targets if t.name == name)

    def network_ms(self, name: str) -> float:
        """Of a target, as its bill takes it from the client's time."""
        return network_ms(self.target_run(name), self.samples_of(name, BASELINE_RTT))

    def billed_samples(self, name: str, scenario: str) -> Samples:
        """Those by which a target is priced."""
        return billed_samples(Samples.of(self.samples_of(name)), scenario)

    def service_times(self, name: str, scenario: str) -> ValuesByBlock:
        """What is billed of a target, by round."""
        # Of all samples, so that rounds keep their numbers where one failed as a whole
        samples = self.billed_samples(name, scenario) if scenario == MAX_RATE else self.samples_of(name, scenario)
        return service_times_by_round(samples, scenario, self.network_ms(name))

    def instance_rate_rps(self, name: str) -> float | None:
        """The highest rate of one instance, where it was measured."""
        return max_rate_per_instance(Samples.of(self.samples_of(name)), self.max_rates.get(name))

    def latencies(self, name: str, scenario: str) -> ValuesByBlock:
        """Of a target, by round."""
        return latencies_by_round(self.samples_of(name, scenario), scenario)


@dataclass(frozen=True)
class Difference:
    """One metric of one target in both runs."""

    target: str
    scenario: str | None
    metric: str  # "p50", "p95", "p99" (ms), "max_rate" (rps), "failed", "accuracy" (fractions), "cost" (USD a month)
    a: float | None = None
    b: float | None = None
    change: float | None = None  # of ms and dollars as a fraction of a; of fractions b - a
    machine: float | None = None  # what the machine did of it, as a fraction; None where that is not known
    own: float | None = None  # what is left, of which all that follows is said; the whole where `machine` is None
    reference: str | None = None  # the target whose change is taken for the machine's
    low: float | None = None  # 95% interval
    high: float | None = None
    n_a: int = 0  # requests, or images
    n_b: int = 0
    p: float | None = None  # of no change, two-sided
    p_holm: float | None = None  # adjusted for all that is judged; of what is not, for all of that metric
    decision: Decision | None = None  # by its interval alone
    threshold: float | None = None  # None: shown, not judged
    regressed: bool = False
    reason: Statement | None = None  # why it is not known
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def regression(self) -> float:
        """The change in the bad direction, without what the machine did."""
        own = self.own or 0.0
        return -own if self.metric == "accuracy" else own

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def improved(self) -> bool:
        """As a regression, in the other direction."""
        return self.threshold is not None and self.significant and -self.regression > self.threshold


def with_names_of_a(b: RunData, name_a_by_b: Mapping[str, str]) -> RunData:
    """Run b with the targets of some names called as in run a, in the place of any that is called so in b."""
    replaced = set(name_a_by_b.values()) - name_a_by_b.keys()
    targets = [replace(t, name=name_a_by_b.get(t.name, t.name)) for t in b.run.targets if t.name not in replaced]
    samples = [
        replace(s, target=name_a_by_b[s.target]) if s.target in name_a_by_b else s
        for s in b.samples
        if s.target not in replaced
    ]
    max_rates = {name_a_by_b.get(name, name): rate for name, rate in b.max_rates.items() if name not in replaced}
    return replace(b, run=replace(b.run, targets=targets), samples=samples, max_rates=max_rates)


def compare_runs(
    a: RunData,
    b: RunData,
    thresholds: Thresholds,
    *,
    changed_by_plan: Collection[str] = (),
    steady_machine: bool = False,
) -> list[Difference]:
    """Of everything that both runs have, target by target, judged; of twins on unlike processors not by their speed.

    changed_by_plan: targets that tell nothing of the machine, as they have another engine in b. steady_machine: it is
    known to be as fast in both runs, so a change that all targets share is theirs.
    """
    names = common_targets(a.run, b.run)
    not_measured = {name: difference for name in names if (difference := _not_measured(a, b, name))}
    measured = [name for name in names if name in a.targets_measured and name in b.targets_measured]
    find = _ChangeFinder(a, b, measured, frozenset(changed_by_plan), steady_machine)
    by_scenario = {
        scenario: _scenario_differences(find, scenario, thresholds) for scenario in common_scenarios(a.run, b.run)
    }
    costs = _cost_differences(find, thresholds)
    differences = []
    for name in names:
        differences += [not_measured[name]] if name in not_measured else []
        if name in measured:
            differences += [d for of in by_scenario.values() for d in of if d.target == name]
            differences += [_accuracy_difference(a, b, name, thresholds), costs[name]]
    if processors_differ(client_processor(a.run), client_processor(b.run)):
        differences = [
            replace(d, threshold=None) if d.metric in PROCESSOR_DEPENDENT and b.target_run(d.target).twin else d
            for d in differences
        ]
    return judge_differences(differences)


def judge_differences(differences: Sequence[Difference]) -> list[Difference]:
    """With adjusted p-values, and regressions marked as such.

    What is equal for certain, such as no failure in either run, is no hypothesis.
    """
    families: dict[str, list[int]] = {}
    for i, d in enumerate(differences):
        if d.p is not None and not (d.p == 1 and not d.own):
            families.setdefault("judged" if d.threshold is not None else d.metric, []).append(i)
    adjusted_p: dict[int, float] = {}
    for indices in families.values():
        adjusted_p |= dict(zip(indices, holm_adjust([differences[i].p or 0.0 for i in indices]), strict=True))
    adjusted = [replace(d, p_holm=adjusted_p.get(i, d.p)) for i, d in enumerate(differences)]
    return [replace(d, regressed=d.regressed or _is_regression(d)) for d in adjusted]


def machine_findings(differences: Sequence[Difference], changed_by_plan: Collection[str] = ()) -> list[Finding]:
    """What the machine did to all targets from one run to the other, or that it cannot be told."""
    latencies = [d for d in differences if d.metric in ("p50", "p95") and d.own is not None]
    if untold := list(dict.fromkeys(d.target for d in latencies if d.machine is None)):
        return [notice(FindingCode.MACHINE_NOT_TOLD_APART, names=untold)]
    latencies = [d for d in latencies if d.target not in changed_by_plan]
    alike: dict[str, dict[str, float]] = {}
    beside: dict[str, dict[str, float]] = {}
    for scenario, metric in dict.fromkeys((d.scenario or "", d.metric) for d in latencies):
        same = [d for d in latencies if (d.scenario, d.metric) == (scenario, metric) and d.reference]
        machine = next((d.machine for d in same if d.target == d.reference), None)
        if machine is None or abs(machine) < EQUIVALENCE_MARGIN:
            continue
        own = max(abs(math.log1p(d.own or 0.0)) for d in same)
        moved_alike = not any(d.significant for d in same) and own <= abs(math.log1p(machine)) / 2
        (alike if moved_alike else beside).setdefault(scenario, {})[metric] = machine
    n_targets = len({d.target for d in latencies})
    findings = []
    if alike:
        findings.append(notice(FindingCode.MACHINE_CHANGED, n_targets=n_targets, changes_by_scenario=alike))
    if beside:
        findings.append(notice(FindingCode.MACHINE_CHANGED_TOO, n_targets=n_targets, changes_by_scenario=beside))
    return findings


def _is_regression(d: Difference) -> bool:
    return d.threshold is not None and d.significant and d.regression > d.threshold


def _not_measured(a: RunData, b: RunData, name: str) -> Difference | None:
    """A target that was measured in one run only, or to the end in one only."""
    n_a, n_b = len(a.samples_of(name)), len(b.samples_of(name))
    failures = {letter: side.target_run(name).failure or "" for letter, side in (("A", a), ("B", b))}
    difference = Difference(name, None, "measured", n_a=n_a, n_b=n_b)
    if n_a and n_b:
        ended_early = [letter for letter, failure in failures.items() if failure]
        if a.answered(name) and not b.answered(name):
            unanswered = reason(ReasonCode.NOT_MEASURED, runs=["B"], failure="no request was answered")
            return replace(difference, regressed=True, reason=unanswered)
        if len(ended_early) != 1:
            return None
        run = ended_early[0]
        ended = reason(ReasonCode.ENDED_EARLY, run=run, failure=failures[run].splitlines()[0])
        return replace(difference, regressed=run == "B", reason=ended)
    runs = [letter for letter, n in (("A", n_a), ("B", n_b)) if not n]
    failure = failures["B" if n_a else "A"]
    not_measured = reason(ReasonCode.NOT_MEASURED, runs=runs, failure=failure.splitlines()[0] if failure else None)
    return replace(difference, regressed=bool(n_a), reason=not_measured)


@dataclass(frozen=True)
class _ChangeFinder:
    """Both runs, and how the machine is told apart in them."""

    a: RunData
    b: RunData
    names: Sequence[str]  # measured in both
    changed_by_plan: frozenset[str]
    steady_machine: bool

    def runs_by_target(
        self, scenario: str, values_by_round: Callable[[RunData, str, str], ValuesByBlock]
    ) -> dict[str, BothRuns]:
        """Of targets that have values in both runs."""
        found = {}
        for name in self.names:
            samples_a, samples_b = (side.samples_of(name, scenario) for side in (self.a, self.b))
            values_a, values_b = (values_by_round(side, name, scenario) for side in (self.a, self.b))
            if values_a and values_b:
                instances_a, instances_b = (instances_by_round(of, scenario) for of in (samples_a, samples_b))
                may_be_reference = name not in self.changed_by_plan
                found[name] = BothRuns(values_a, values_b, instances_a, instances_b, may_be_reference)
        return found

    def changes(self, runs: Mapping[str, BothRuns], figure: Figure) -> dict[str, Change]:
        judged = {name: both for name, both in runs.items() if _too_few_blocks(both.a, both.b) is None}
        return find_changes(judged, figure, steady_machine=self.steady_machine)


def _too_few_blocks(a: Collection[Any], b: Collection[Any]) -> Reason | None:
    n_a, n_b = len(a), len(b)
    if min(n_a, n_b) >= MIN_JUDGED_BLOCKS:
        return None
    return reason(ReasonCode.TOO_FEW_BLOCKS_IN_BOTH, needed=MIN_JUDGED_BLOCKS, n_a=n_a, n_b=n_b)


def _scenario_differences(find: _ChangeFinder, scenario: str, thresholds: Thresholds) -> list[Difference]:
    differences = []
    if scenario != MAX_RATE:  # its load differs from step to step, so the latencies are no sample of one thing
        runs = find.runs_by_target(scenario, RunData.latencies)
        for metric in LATENCY_PERCENTILES:
            changes = find.changes(runs, percentile_figure(PERCENTILES[metric]))
            threshold = thresholds.max_p95_increase if metric == "p95" else None
            differences += [
                _latency_difference(Difference(name, scenario, metric, threshold=threshold), both, changes.get(name))
                for name, both in runs.items()
            ]
    for name in find.names:
        samples_a, samples_b = (side.samples_of(name, scenario) for side in (find.a, find.b))
        difference = Difference(name, scenario, "failed", n_a=len(samples_a), n_b=len(samples_b))
        if not samples_a or not samples_b:
            runs_without = [letter for letter, samples in (("A", samples_a), ("B", samples_b)) if not samples]
            no_request = reason(ReasonCode.NO_REQUEST, runs=runs_without)
            differences.append(replace(difference, threshold=thresholds.max_failure_increase, reason=no_request))
        elif scenario == MAX_RATE:
            differences.append(_max_rate_difference(replace(difference, metric=MAX_RATE), find.a, find.b))
        else:
            differences.append(_failure_difference(difference, samples_a, samples_b, thresholds))
    return differences


def _max_rate_difference(difference: Difference, a: RunData, b: RunData) -> Difference:
    """The highest rate that passed: shown, not judged, as it has no test."""
    rate_a, rate_b = a.max_rates.get(difference.target), b.max_rates.get(difference.target)
    if rate_a is None or rate_b is None:
        return replace(difference, reason=reason(ReasonCode.NO_RATE_PASSED_IN_BOTH))
    change = relative_change(rate_a, rate_b)
    return replace(difference, a=rate_a, b=rate_b, change=change, own=change)


def _latency_difference(difference: Difference, runs: BothRuns, change: Change | None) -> Difference:
    n_a, n_b = (sum(map(len, of.values())) for of in (runs.a, runs.b))
    details = {"blocks_a": len(runs.a), "blocks_b": len(runs.b)}
    difference = replace(difference, n_a=n_a, n_b=n_b, details=details)
    needed = min_sample_size(PERCENTILES[difference.metric])
    if min(n_a, n_b) < needed:
        return replace(difference, reason=reason(ReasonCode.TOO_FEW_SAMPLES_IN_BOTH, needed=needed, n_a=n_a, n_b=n_b))
    if change is None:
        figure = percentile_figure(PERCENTILES[difference.metric])
        a, b = figure.both(runs)
        return replace(difference, a=a, b=b, change=relative_change(a, b), reason=_too_few_blocks(runs.a, runs.b))
    return replace(difference, a=change.a, b=change.b, **_judged(change))


def _judged(change: Change) -> dict[str, Any]:
    """The fields of a difference that a change has beside its figures."""
    observed = relative_change(change.a, change.b)
    if change.own is None:  # the reference itself
        return {"change": observed, "machine": observed, "own": 0.0, "reference": change.reference, "p": 1.0}
    return {
        "change": observed,
        "machine": None if change.machine is None else change.machine - 1,
        "own": change.own.ratio - 1,
        "reference": change.reference,
        "low": change.own.low - 1,
        "high": change.own.high - 1,
        "p": None if change.machine is None else change.own.p,
        "decision": change.own.decision,
    }


def _failure_difference(
    difference: Difference, samples_a: Sequence[Sample], samples_b: Sequence[Sample], thresholds: Thresholds
) -> Difference:
    blocks_a, blocks_b = failures_by_block(samples_a), failures_by_block(samples_b)
    n_a, n_b = len(samples_a), len(samples_b)
    failed_a, failed_b = (sum(s.error is not None for s in samples) for samples in (samples_a, samples_b))
    change = failed_b / n_b - failed_a / n_a
    difference = replace(
        difference,
        threshold=thresholds.max_failure_increase,
        a=failed_a / n_a,
        b=failed_b / n_b,
        change=change,
        own=change,
        decision=Decision.EQUIVALENT if failed_a == failed_b == 0 else Decision.UNDECIDED,
        details={
            "failed_a": failed_a,
            "failed_b": failed_b,
            "failing_blocks_a": sum(map(any, blocks_a.values())),
            "failing_blocks_b": sum(map(any, blocks_b.values())),
        },
    )
    if too_few := _too_few_blocks(blocks_a, blocks_b):
        return replace(difference, decision=None, reason=too_few)
    by_block = fraction_difference_p(blocks_a, blocks_b) or 0.0
    independent = float(scipy.stats.fisher_exact([[failed_a, n_a - failed_a], [failed_b, n_b - failed_b]]).pvalue)  # type: ignore[attr-defined]  # untyped
    margins = {f"margin_{run}": mean_margin(of, GATE_CONFIDENCE) for run, of in (("a", blocks_a), ("b", blocks_b))}
    return replace(difference, p=max(by_block, independent), details=difference.details | margins)


def tells_no_accuracy(a: RunData, b: RunData, name: str) -> bool:
    """Whether two models answered a golden set, whose classes are what one of them answers."""
    models = [models_by_target(side.samples).get(name) for side in (a, b)]
    return is_golden(b.run.images_source) and models[0] != models[1]


def _accuracy_difference(a: RunData, b: RunData, name: str, thresholds: Thresholds) -> Difference:
    """On the images that both predicted: same name, same bytes."""
    predictions_a, predictions_b = predictions_by_image(a, name), predictions_by_image(b, name)
    true_labels = {(entry.name, entry.sha256): entry.label for entry in b.run.image_manifest}
    common_images = [key for key in predictions_a if key in predictions_b]
    difference = Difference(
        name, None, "accuracy", n_a=len(common_images), n_b=len(common_images), threshold=thresholds.max_accuracy_drop
    )
    if not common_images:
        return replace(difference, reason=reason(ReasonCode.NO_IMAGE_COMMON_TO_RUNS))
    if tells_no_accuracy(a, b, name):
        return replace(difference, threshold=None, reason=reason(ReasonCode.GOLDEN_SET))
    discordant = discordant_pairs(true_labels, predictions_a, predictions_b)
    correct_a, correct_b = (
        sum(predictions[key].label == true_labels[key] for key in common_images)
        for predictions in (predictions_a, predictions_b)
    )
    interval = discordant.difference()
    low, high = interval.low or 0.0, interval.high or 0.0
    return replace(
        difference,
        a=correct_a / len(common_images),
        b=correct_b / len(common_images),
        change=interval.value,
        own=interval.value,
        low=low,
        high=high,
        decision=decide(low, high, -NON_INFERIORITY_MARGIN, NON_INFERIORITY_MARGIN),
        p=discordant.p,
        details={"only_a_correct": discordant.only_a_correct, "only_b_correct": discordant.only_b_correct},
    )


def predictions_by_image(side: RunData, name: str) -> dict[tuple[str, str], Prediction]:
    images = side.run.image_manifest
    predictions = first_predictions(normal_load(side.samples_of(name)))
    return {(images[i].name, images[i].sha256): prediction for i, prediction in predictions.items()}


def _cost_differences(find: _ChangeFinder, thresholds: Thresholds) -> dict[str, Difference]:
    common = common_scenarios(find.a.run, find.b.run)
    scenario = SINGLE if SINGLE in common else next(iter(common), None)
    differences = {name: Difference(name, None, "cost", threshold=thresholds.max_cost_increase) for name in find.names}
    if scenario is None:
        no_scenario = reason(ReasonCode.NO_SCENARIO_COMMON_TO_RUNS)
        return {name: replace(difference, reason=no_scenario) for name, difference in differences.items()}
    runs = find.runs_by_target(scenario, RunData.service_times)
    changes = find.changes(runs, MEAN)
    return {
        name: _cost_difference(find, difference, scenario, changes.get(name), thresholds)
        for name, difference in differences.items()
    }


def _cost_difference(
    find: _ChangeFinder, difference: Difference, scenario: str, work: Change | None, thresholds: Thresholds
) -> Difference:
    name = difference.target
    succeeded = [side.billed_samples(name, scenario) for side in (find.a, find.b)]
    difference = replace(difference, n_a=len(succeeded[0]), n_b=len(succeeded[1]))
    rates = [side.instance_rate_rps(name) for side in (find.a, find.b)]
    a, b = (
        price_run(
            side.target_run(name), samples, side.prices, rate if all(rates) else None, side.peak, side.network_ms(name)
        )
        for side, samples, rate in zip((find.a, find.b), succeeded, rates, strict=True)
    )
    if isinstance(a, Statement) or isinstance(b, Statement):
        return replace(difference, reason=a if isinstance(a, Statement) else b)
    machine, own = (work.machine, work.own) if work else (None, None)
    found = cost_change(a, b, thresholds.requests_per_month, machine, own)
    difference = replace(
        difference,
        a=found.a,
        b=found.b,
        change=found.change,
        machine=None if machine is None else relative_change(found.b - found.machine_effect, found.b),
        reference=work.reference if work else None,
        own=found.own_change,
        details={
            "price_effect_usd": found.price_effect,
            "machine_effect_usd": found.machine_effect,
            "speed_effect_usd": found.speed_effect,
            "net_a_usd": found.net_a,
            "net_b_usd": found.net_b,
            "instances_a": found.instances_a,
            "instances_b": found.instances_b,
        },
    )
    if machine is None and found.low != found.high:  # it depends on the work
        blocks_a, blocks_b = ({s.block for s in samples} for samples in succeeded)
        return replace(difference, reason=None if work else _too_few_blocks(blocks_a, blocks_b))
    decision = decide(found.low, found.high, -EQUIVALENCE_MARGIN, EQUIVALENCE_MARGIN)
    return replace(difference, low=found.low, high=found.high, p=found.p, decision=decision)
