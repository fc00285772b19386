"""Two runs to a list of differences, each with its interval or p-value and a judgement. Pure.

A change counts as worse when it is both: beyond its limit, and not chance. Not chance: its p-value is below 5% after
adjusting for all targets and scenarios (Holm), which for a single one means that its 95% interval leaves out zero.

    p95          failures as endless; by bootstrap over blocks (eval.stats.bootstrap). p50 and p99 are shown beside it
    failed       share of the requests sent; Fisher's exact test, which takes each failure as one, so an outage as many
    accuracy     on the images that both runs answered; McNemar's exact test
    cost         by list price, each run by its own price list; by bootstrap of its work (cost_comparison.py)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import scipy

from eval.analysis.accuracy import Answer
from eval.analysis.comparability import common_scenarios, common_targets
from eval.analysis.cost_comparison import cost_change, priced
from eval.analysis.latency import at_work
from eval.analysis.mcnemar import discordance
from eval.analysis.summary import answers
from eval.cost.billing import REQUESTS_PER_MONTH
from eval.cost.price_list import Prices
from eval.formatting import count
from eval.plan.config import MAX_RATE, SINGLE
from eval.samples.model import Run, Sample, TargetRun
from eval.samples.processors import client_of, differ
from eval.stats.bootstrap import REPLICATES, relative, shifts
from eval.stats.intervals import PERCENTILES, holm, least_n, nearest_rank

LEVEL = 0.05
SHOWN = ("p50", "p95", "p99")
BY_SPEED = ("p95", "cost")  # figures that another processor changes, though nothing else did


@dataclass(frozen=True)
class Limits:
    """How much worse is too much. Shares: 0.1 is 10%, and of accuracy and failures 0.01 is one point."""

    p95_increase: float = 0.10
    failure_increase: float = 0.01
    accuracy_drop: float = 0.005
    cost_increase: float = 0.10
    requests_per_month: int = REQUESTS_PER_MONTH  # at which costs are compared
    seed: int = 0  # of the bootstrap
    replicates: int = REPLICATES


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    folder: str
    run: Run
    samples: Sequence[Sample]  # without the warm-up
    prices: Prices
    max_rates: Mapping[str, float | None] = field(default_factory=dict)  # target -> of one instance, where measured

    def of(self, target: str, scenario: str | None = None) -> list[Sample]:
        return [s for s in self.samples if s.target == target and scenario in (None, s.scenario)]

    def target(self, name: str) -> TargetRun:
        return next(t for t in self.run.targets if t.name == name)


@dataclass(frozen=True)
class Difference:
    """One figure of one target in both runs."""

    target: str
    scenario: str | None
    figure: str  # "p50", "p95", "p99" (ms), "max_rate" (rps), "failed", "accuracy" (shares), "cost" (dollars a month)
    a: float | None = None
    b: float | None = None
    change: float | None = None  # of ms and dollars as a share of a; of shares b - a
    low: float | None = None  # 95% interval of the change
    high: float | None = None
    n_a: int = 0  # requests, or images
    n_b: int = 0
    p: float | None = None  # of no change, two-sided
    p_holm: float | None = None  # adjusted for all differences of that figure
    limit: float | None = None  # None: shown, not judged
    worse: bool = False
    reason: str | None = None  # why it cannot be told
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The change in the bad direction."""
        change = self.change or 0.0
        return -change if self.figure == "accuracy" else change

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL


def differences(a: Side, b: Side, limits: Limits) -> list[Difference]:
    """Of everything that both runs have, target by target, judged; of twins on unlike processors not by their speed."""
    found = []
    unlike = differ(client_of(a.run), client_of(b.run))
    for name in common_targets(a.run, b.run):
        if gone := _gone(a, b, name):
            found.append(gone)
            continue
        for scenario in common_scenarios(a.run, b.run):
            found += _scenario(a, b, name, scenario, limits)
        found += [_accuracy(a, b, name, limits), _cost(a, b, name, limits)]
    if unlike:
        found = [replace(d, limit=None) if d.figure in BY_SPEED and b.target(d.target).twin else d for d in found]
    return judged(found)


def judged(found: Sequence[Difference]) -> list[Difference]:
    """With p-values adjusted figure by figure, and what is worse marked as such."""
    adjusted: dict[int, float] = {}
    for figure in {d.figure for d in found}:
        tested = [(i, d.p) for i, d in enumerate(found) if d.figure == figure and d.p is not None]
        adjusted |= dict(zip([i for i, _ in tested], holm([p for _, p in tested]), strict=True))
    out = [replace(d, p_holm=adjusted.get(i)) for i, d in enumerate(found)]
    return [replace(d, worse=d.worse or _is_worse(d)) for d in out]


def _is_worse(d: Difference) -> bool:
    return d.limit is not None and d.significant and d.loss > d.limit


def _gone(a: Side, b: Side, name: str) -> Difference | None:
    """A target that was measured in one run only."""
    n_a, n_b = len(a.of(name)), len(b.of(name))
    if n_a and n_b:
        return None
    side, words = (b, "B") if n_a else (a, "A" if n_b else "A, nor in B")
    why = (side.target(name).failure or "no request of it is left").splitlines()[0]
    return Difference(name, None, "measured", n_a=n_a, n_b=n_b, worse=bool(n_a),
                      reason=f"not measured in {words}: {why}")  # fmt: skip


def _scenario(a: Side, b: Side, name: str, scenario: str, limits: Limits) -> list[Difference]:
    of_a, of_b = a.of(name, scenario), b.of(name, scenario)
    if not of_a or not of_b:
        where = " and ".join(side for side, of in (("A", of_a), ("B", of_b)) if not of)
        return [Difference(name, scenario, "p95", limit=limits.p95_increase, reason=f"no request in {where}")]
    if scenario == MAX_RATE:  # the load differs from step to step, so the latencies are no sample of one thing
        return [_rate(a, b, name, len(of_a), len(of_b))]
    return [*_latency(of_a, of_b, name, scenario, limits), _failures(of_a, of_b, name, scenario, limits)]


def _rate(a: Side, b: Side, name: str, n_a: int, n_b: int) -> Difference:
    """The highest rate that held: shown, not judged, as it has no test."""
    row = Difference(name, MAX_RATE, "max_rate", n_a=n_a, n_b=n_b)
    rate_a, rate_b = a.max_rates.get(name), b.max_rates.get(name)
    if rate_a is None or rate_b is None:
        return replace(row, reason="no rate held in both runs")
    return replace(row, a=rate_a, b=rate_b, change=relative(rate_a, rate_b))


def _latency(
    of_a: Sequence[Sample], of_b: Sequence[Sample], name: str, scenario: str, limits: Limits
) -> list[Difference]:
    blocks_a, blocks_b = _blocks(of_a), _blocks(of_b)
    n_a, n_b = len(of_a), len(of_b)
    whole_a, whole_b = (sorted(map(_latency_of, of)) for of in (of_a, of_b))
    enough = [figure for figure in SHOWN if min(n_a, n_b) >= least_n(PERCENTILES[figure])]
    shares = [PERCENTILES[figure] for figure in enough]
    moved = dict(zip(enough, shifts(blocks_a, blocks_b, shares, limits.seed, limits.replicates), strict=True))
    found = []
    for figure in SHOWN:
        p = PERCENTILES[figure]
        limit = limits.p95_increase if figure == "p95" else None
        row = Difference(name, scenario, figure, n_a=n_a, n_b=n_b, limit=limit)
        if shift := moved.get(figure):
            detail = {"drawn": shift.unit, "blocks_a": len(blocks_a), "blocks_b": len(blocks_b)}
            row = replace(row, a=nearest_rank(whole_a, p), b=nearest_rank(whole_b, p), change=shift.change,
                          low=shift.low, high=shift.high, p=shift.p, detail=detail)  # fmt: skip
        else:
            row = replace(row, reason=f"needs n >= {least_n(p)} in both, have {count(n_a)} and {count(n_b)}")
        found.append(row)
    return found


def _blocks(samples: Sequence[Sample]) -> dict[int, list[float]]:
    grouped: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        grouped[sample.block].append(_latency_of(sample))
    return grouped


def _latency_of(sample: Sample) -> float:
    return math.inf if sample.error else sample.latency_ms


def _failures(of_a: Sequence[Sample], of_b: Sequence[Sample], name: str, scenario: str, limits: Limits) -> Difference:
    n_a, n_b = len(of_a), len(of_b)
    bad_a, bad_b = (sum(s.error is not None for s in of) for of in (of_a, of_b))
    p = float(scipy.stats.fisher_exact([[bad_a, n_a - bad_a], [bad_b, n_b - bad_b]]).pvalue)  # type: ignore[attr-defined]  # untyped
    return Difference(
        name, scenario, "failed", a=bad_a / n_a, b=bad_b / n_b, change=bad_b / n_b - bad_a / n_a, n_a=n_a, n_b=n_b, p=p,
        limit=limits.failure_increase, detail={"failed_a": bad_a, "failed_b": bad_b},
    )  # fmt: skip


def _accuracy(a: Side, b: Side, name: str, limits: Limits) -> Difference:
    """On the pictures that both answered: same name, same bytes."""
    said_a, said_b = _answers(a, name), _answers(b, name)
    truth = {(entry.name, entry.sha256): entry.label for entry in b.run.images}
    both = [key for key in said_a if key in said_b]
    row = Difference(name, None, "accuracy", n_a=len(both), n_b=len(both), limit=limits.accuracy_drop)
    if not both:
        return replace(row, reason="no image that both runs answered")
    split = discordance(truth, said_a, said_b)
    right_a, right_b = (sum(said[key].label == truth[key] for key in both) for said in (said_a, said_b))
    return replace(
        row, a=right_a / len(both), b=right_b / len(both), change=(right_b - right_a) / len(both), p=split.p,
        detail={"only_a_right": split.only_a_right, "only_b_right": split.only_b_right},
    )  # fmt: skip


def _answers(side: Side, name: str) -> dict[tuple[str, str], Answer]:
    entries = side.run.images
    said = answers(at_work(side.of(name)))
    return {(entries[i].name, entries[i].sha256): answer for i, answer in said.items()}


def _cost(a: Side, b: Side, name: str, limits: Limits) -> Difference:
    row = Difference(name, None, "cost", limit=limits.cost_increase)
    shared = common_scenarios(a.run, b.run)
    if not shared:
        return replace(row, reason="no scenario that both runs tried")
    basis = SINGLE if SINGLE in shared else shared[0]
    of_a, of_b = ([s for s in side.of(name, basis) if s.error is None] for side in (a, b))
    row = replace(row, n_a=len(of_a), n_b=len(of_b))
    first, second = (
        priced(side.target(name), of, side.prices, side.max_rates.get(name)) for side, of in ((a, of_a), (b, of_b))
    )
    if isinstance(first, str) or isinstance(second, str):
        return replace(row, reason=first if isinstance(first, str) else str(second))
    found = cost_change(first, second, limits.requests_per_month, limits.seed, limits.replicates)
    return replace(
        row, a=found.a, b=found.b, change=found.change, low=found.low, high=found.high, p=found.p,
        detail={"by_price": found.by_price, "by_speed": found.by_speed, "net_a": found.net_a, "net_b": found.net_b},
    )  # fmt: skip
