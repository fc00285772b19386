"""Two runs to a list of differences, each with its interval or p-value and a judgement. Pure.

A change is a regression when it is beyond its threshold and not chance. Not chance: its p-value is below 5% after
adjusting for all targets and scenarios (Holm), which for a single one means that its 95% interval leaves out zero.

    p95          failures as infinite; of both runs' blocks (eval.stats.comparison). p50 and p99 are shown beside it
    failed       of the requests sent; Fisher's exact test, which takes each failure as one, so an outage as many
    accuracy     on the images that both runs predicted; McNemar's exact test
    cost         by list price, each run by its own price list; by bootstrap of its work (cost_comparison.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import scipy

from eval.analysis.comparability import common_scenarios, common_targets
from eval.analysis.latency import normal_load
from eval.analysis.predictions.accuracy import Prediction
from eval.analysis.predictions.mcnemar import discordant_pairs
from eval.analysis.summary import first_predictions
from eval.codes import ReasonCode, Statement, reason
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.cost.cost_comparison import cost_change, price_run
from eval.cost.price_list import PriceList
from eval.plan.config import MAX_RATE, SINGLE, config_from_json
from eval.samples.model import Run, Sample, TargetRun
from eval.samples.processors import client_processor, processors_differ
from eval.samples.rounds import instances_by_round, latencies_by_round
from eval.stats.bootstrap import REPLICATES, relative_change
from eval.stats.comparison import MIN_BLOCKS, Decision, quantile_ratio
from eval.stats.intervals import PERCENTILES, holm_adjust, min_sample_size, nearest_rank

ALPHA = 0.05
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
    seed: int = 0  # of the bootstrap
    replicates: int = REPLICATES


@dataclass(frozen=True)
class RunData:
    """One of the two runs."""

    folder: str
    run: Run
    samples: Sequence[Sample]  # without the warm-up
    prices: PriceList
    max_rates: Mapping[str, float | None] = field(default_factory=dict)  # target -> of one instance, where measured

    @property
    def peak(self) -> float:
        return config_from_json(self.run.config).peak

    def samples_of(self, target: str, scenario: str | None = None) -> list[Sample]:
        return [s for s in self.samples if s.target == target and scenario in (None, s.scenario)]

    def target_run(self, name: str) -> TargetRun:
        return next(t for t in self.run.targets if t.name == name)


@dataclass(frozen=True)
class Difference:
    """One metric of one target in both runs."""

    target: str
    scenario: str | None
    metric: str  # "p50", "p95", "p99" (ms), "max_rate" (rps), "failed", "accuracy" (fractions), "cost" (USD a month)
    a: float | None = None
    b: float | None = None
    change: float | None = None  # of ms and dollars as a fraction of a; of fractions b - a
    low: float | None = None  # 95% interval of the change
    high: float | None = None
    n_a: int = 0  # requests, or images
    n_b: int = 0
    p: float | None = None  # of no change, two-sided
    p_holm: float | None = None  # adjusted for all differences of that metric
    decision: Decision | None = None  # of a latency, by its interval alone
    threshold: float | None = None  # None: shown, not judged
    regressed: bool = False
    reason: Statement | None = None  # why it is not known
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def regression(self) -> float:
        """The change in the bad direction."""
        change = self.change or 0.0
        return -change if self.metric == "accuracy" else change

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < ALPHA


def compare_runs(a: RunData, b: RunData, thresholds: Thresholds) -> list[Difference]:
    """Of everything that both runs have, target by target, judged; of twins on unlike processors not by their speed."""
    differences = []
    processors_unlike = processors_differ(client_processor(a.run), client_processor(b.run))
    for name in common_targets(a.run, b.run):
        if not_measured := _not_measured(a, b, name):
            differences.append(not_measured)
            continue
        for scenario in common_scenarios(a.run, b.run):
            differences += _scenario_differences(a, b, name, scenario, thresholds)
        differences += [_accuracy_difference(a, b, name, thresholds), _cost_difference(a, b, name, thresholds)]
    if processors_unlike:
        differences = [
            replace(d, threshold=None) if d.metric in PROCESSOR_DEPENDENT and b.target_run(d.target).twin else d
            for d in differences
        ]
    return judge_differences(differences)


def judge_differences(differences: Sequence[Difference]) -> list[Difference]:
    """With p-values adjusted metric by metric, and regressions marked as such."""
    adjusted_p: dict[int, float] = {}
    for metric in {d.metric for d in differences}:
        tested = [(i, d.p) for i, d in enumerate(differences) if d.metric == metric and d.p is not None]
        adjusted_p |= dict(zip([i for i, _ in tested], holm_adjust([p for _, p in tested]), strict=True))
    adjusted = [replace(d, p_holm=adjusted_p.get(i)) for i, d in enumerate(differences)]
    return [replace(d, regressed=d.regressed or _is_regression(d)) for d in adjusted]


def _is_regression(d: Difference) -> bool:
    return d.threshold is not None and d.significant and d.regression > d.threshold


def _not_measured(a: RunData, b: RunData, name: str) -> Difference | None:
    """A target that was measured in one run only."""
    n_a, n_b = len(a.samples_of(name)), len(b.samples_of(name))
    if n_a and n_b:
        return None
    runs = [letter for letter, n in (("A", n_a), ("B", n_b)) if not n]
    failure = (b if n_a else a).target_run(name).failure
    not_measured = reason(ReasonCode.NOT_MEASURED, runs=runs, failure=failure and failure.splitlines()[0])
    return Difference(name, None, "measured", n_a=n_a, n_b=n_b, regressed=bool(n_a), reason=not_measured)


def _scenario_differences(a: RunData, b: RunData, name: str, scenario: str, thresholds: Thresholds) -> list[Difference]:
    samples_a, samples_b = a.samples_of(name, scenario), b.samples_of(name, scenario)
    if not samples_a or not samples_b:
        runs = [letter for letter, samples in (("A", samples_a), ("B", samples_b)) if not samples]
        no_request = reason(ReasonCode.NO_REQUEST, runs=runs)
        return [Difference(name, scenario, "p95", threshold=thresholds.max_p95_increase, reason=no_request)]
    if scenario == MAX_RATE:  # the load differs from step to step, so the latencies are no sample of one thing
        return [_max_rate_difference(a, b, name, len(samples_a), len(samples_b))]
    return [
        *_latency_differences(samples_a, samples_b, name, scenario, thresholds),
        _failure_difference(samples_a, samples_b, name, scenario, thresholds),
    ]


def _max_rate_difference(a: RunData, b: RunData, name: str, n_a: int, n_b: int) -> Difference:
    """The highest rate that passed: shown, not judged, as it has no test."""
    difference = Difference(name, MAX_RATE, "max_rate", n_a=n_a, n_b=n_b)
    rate_a, rate_b = a.max_rates.get(name), b.max_rates.get(name)
    if rate_a is None or rate_b is None:
        return replace(difference, reason=reason(ReasonCode.NO_RATE_PASSED_IN_BOTH))
    return replace(difference, a=rate_a, b=rate_b, change=relative_change(rate_a, rate_b))


def _latency_differences(
    samples_a: Sequence[Sample], samples_b: Sequence[Sample], name: str, scenario: str, thresholds: Thresholds
) -> list[Difference]:
    rounds_a, rounds_b = (latencies_by_round(samples, scenario) for samples in (samples_a, samples_b))
    instances = instances_by_round(samples_a, scenario), instances_by_round(samples_b, scenario)
    n_a, n_b = (sum(map(len, rounds.values())) for rounds in (rounds_a, rounds_b))
    differences = []
    for figure in LATENCY_PERCENTILES:
        p = PERCENTILES[figure]
        threshold = thresholds.max_p95_increase if figure == "p95" else None
        difference = Difference(name, scenario, figure, n_a=n_a, n_b=n_b, threshold=threshold)
        if min(n_a, n_b) < min_sample_size(p):
            too_few = reason(ReasonCode.TOO_FEW_SAMPLES_IN_BOTH, needed=min_sample_size(p), n_a=n_a, n_b=n_b)
            differences.append(replace(difference, reason=too_few))
        elif ratio := quantile_ratio(rounds_a, rounds_b, p, paired=False, instances=instances):
            a, b = (nearest_rank(sorted(chain(*rounds.values())), p) for rounds in (rounds_a, rounds_b))
            change, low, high = ratio.ratio - 1, ratio.low - 1, ratio.high - 1
            details = {"blocks_a": len(rounds_a), "blocks_b": len(rounds_b)}
            difference = replace(
                difference, a=a, b=b, change=change, low=low, high=high, p=ratio.p, decision=ratio.decision,
                details=details,
            )  # fmt: skip
            differences.append(difference)
        else:
            too_few = reason(ReasonCode.TOO_FEW_BLOCKS, needed=MIN_BLOCKS, n=min(len(rounds_a), len(rounds_b)))
            differences.append(replace(difference, reason=too_few))
    return differences


def _failure_difference(
    samples_a: Sequence[Sample], samples_b: Sequence[Sample], name: str, scenario: str, thresholds: Thresholds
) -> Difference:
    n_a, n_b = len(samples_a), len(samples_b)
    failed_a, failed_b = (sum(s.error is not None for s in samples) for samples in (samples_a, samples_b))
    p = float(scipy.stats.fisher_exact([[failed_a, n_a - failed_a], [failed_b, n_b - failed_b]]).pvalue)  # type: ignore[attr-defined]  # untyped
    return Difference(
        name,
        scenario,
        "failed",
        a=failed_a / n_a,
        b=failed_b / n_b,
        change=failed_b / n_b - failed_a / n_a,
        n_a=n_a,
        n_b=n_b,
        p=p,
        threshold=thresholds.max_failure_increase,
        details={"failed_a": failed_a, "failed_b": failed_b},
    )


def _accuracy_difference(a: RunData, b: RunData, name: str, thresholds: Thresholds) -> Difference:
    """On the images that both predicted: same name, same bytes."""
    predictions_a, predictions_b = _predictions_by_image(a, name), _predictions_by_image(b, name)
    true_labels = {(entry.name, entry.sha256): entry.label for entry in b.run.image_manifest}
    common_images = [key for key in predictions_a if key in predictions_b]
    difference = Difference(
        name, None, "accuracy", n_a=len(common_images), n_b=len(common_images), threshold=thresholds.max_accuracy_drop
    )
    if not common_images:
        return replace(difference, reason=reason(ReasonCode.NO_IMAGE_COMMON_TO_RUNS))
    discordant = discordant_pairs(true_labels, predictions_a, predictions_b)
    correct_a, correct_b = (
        sum(predictions[key].label == true_labels[key] for key in common_images)
        for predictions in (predictions_a, predictions_b)
    )
    return replace(
        difference,
        a=correct_a / len(common_images),
        b=correct_b / len(common_images),
        change=(correct_b - correct_a) / len(common_images),
        p=discordant.p,
        details={"only_a_correct": discordant.only_a_correct, "only_b_correct": discordant.only_b_correct},
    )


def _predictions_by_image(side: RunData, name: str) -> dict[tuple[str, str], Prediction]:
    images = side.run.image_manifest
    predictions = first_predictions(normal_load(side.samples_of(name)))
    return {(images[i].name, images[i].sha256): prediction for i, prediction in predictions.items()}


def _cost_difference(a: RunData, b: RunData, name: str, thresholds: Thresholds) -> Difference:
    difference = Difference(name, None, "cost", threshold=thresholds.max_cost_increase)
    common = common_scenarios(a.run, b.run)
    if not common:
        return replace(difference, reason=reason(ReasonCode.NO_SCENARIO_COMMON_TO_RUNS))
    cost_scenario = SINGLE if SINGLE in common else common[0]
    samples_a, samples_b = ([s for s in side.samples_of(name, cost_scenario) if s.error is None] for side in (a, b))
    difference = replace(difference, n_a=len(samples_a), n_b=len(samples_b))
    first, second = (
        price_run(side.target_run(name), samples, side.prices, side.max_rates.get(name), side.peak)
        for side, samples in ((a, samples_a), (b, samples_b))
    )
    if isinstance(first, Statement):
        return replace(difference, reason=first)
    if isinstance(second, Statement):
        return replace(difference, reason=second)
    cost_difference = cost_change(first, second, thresholds.requests_per_month, thresholds.seed, thresholds.replicates)
    return replace(
        difference,
        a=cost_difference.a,
        b=cost_difference.b,
        change=cost_difference.change,
        low=cost_difference.low,
        high=cost_difference.high,
        p=cost_difference.p,
        details={
            "price_effect_usd": cost_difference.price_effect,
            "speed_effect_usd": cost_difference.speed_effect,
            "net_a_usd": cost_difference.net_a,
            "net_b_usd": cost_difference.net_b,
        },
    )
