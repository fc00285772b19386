"""Whether a target's latency changed while the run went on, block by block.

Two questions, each with a rank test that keeps its level whatever the distribution of latency:

    trend     do the medians of the blocks rise or fall with time? Kendall's rank correlation
    between   do the blocks differ more than samples of one distribution would? Kruskal-Wallis

A trend means that the run's figures depend on when they were taken. Blocks that differ mean that neighbours are alike:
the sample is worth fewer independent ones, and intervals that took them as independent would be too narrow by the
factor given; those of eval/stats/intervals.py allow for it.
Each p-value is adjusted for all targets and scenarios of the run (Holm).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
import scipy

from eval.analysis.findings import Finding, FindingCode, warning
from eval.samples.model import Sample
from eval.statements import DriftCode, DriftResult, ReasonCode, Unavailable, unavailable
from eval.stats.intervals import holm_adjust

ALPHA = 0.05  # of p-values after Holm
MIN_BLOCKS = 8  # with 5 the smallest p of Kendall's test is 0.017, too large for four targets
MIN_RESPONSES_PER_BLOCK = 5  # of a block that is compared with others as a whole
WARN_RELATIVE_CHANGE = 0.05  # of the median, first third of the blocks to last; a smaller trend is no warning
WARN_DESIGN_EFFECT_FACTOR = 1.5  # intervals of independent samples would be this many times too narrow
NONSTATIONARY_SCENARIOS = {"ramp", "max_rate", "idle"}  # whose load or whose instance changes by plan


@dataclass(frozen=True)
class LatencyBlock:
    """The latencies of one block."""

    start_s: float
    latency_ms: tuple[float, ...]


@dataclass(frozen=True)
class Trend:
    """The medians of the blocks against time."""

    tau: float  # -1: each is lower than all before, 1: higher
    p: float
    first_ms: float  # median of the medians in the first third of the blocks
    last_ms: float

    @property
    def change(self) -> float:
        """First third to last, as a fraction of the first."""
        return self.last_ms / self.first_ms - 1


@dataclass(frozen=True)
class BlockEffect:
    """How much of the spread is between blocks rather than within them."""

    h_statistic: float  # Kruskal and Wallis's H
    p: float
    epsilon_squared: float  # of the ranks' variance (epsilon squared)
    design_effect_factor: float  # by which intervals of independent samples are too narrow: root of the design effect


@dataclass(frozen=True)
class TrendReport:
    tau: float
    p: float
    p_holm: float  # adjusted for all targets and scenarios


@dataclass(frozen=True)
class BlockEffectReport:
    h: float
    p: float
    p_holm: float
    epsilon_squared: float
    design_effect_factor: float


@dataclass(frozen=True)
class DriftReport:
    """Both tests of one scenario of one target."""

    blocks: int
    change: float  # first third of the blocks to the last, as a fraction
    first_ms: float
    last_ms: float
    trend: TrendReport
    block_effect: BlockEffectReport | Unavailable
    has_drift: bool  # a trend that matters
    heterogeneous: bool  # blocks differ by more than chance, and so much that it matters
    result: DriftResult


DriftByScenario = Mapping[str, DriftReport | Unavailable]


def detect_drift(samples: Iterable[Sample]) -> dict[str, DriftByScenario]:
    """Target -> scenario -> both tests and what they say, or the reason why there is none."""
    samples_by_block: dict[tuple[str, str], dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for s in samples:
        if s.phase == "measure" and s.error is None:
            samples_by_block[s.target, s.scenario][s.block].append(s)
    blocks_by_key = {key: _chronological_blocks(block_samples) for key, block_samples in samples_by_block.items()}
    tested = {
        key: blocks
        for key, blocks in blocks_by_key.items()
        if key[1] not in NONSTATIONARY_SCENARIOS and len(blocks) >= MIN_BLOCKS
    }
    trends = {key: kendall_trend(blocks) for key, blocks in tested.items()}
    block_effects = {key: effect for key, blocks in tested.items() if (effect := block_effect(blocks))}
    trend_p = dict(zip(trends, holm_adjust([t.p for t in trends.values()]), strict=True))
    block_effect_p = dict(zip(block_effects, holm_adjust([b.p for b in block_effects.values()]), strict=True))
    drift_by_target: dict[str, dict[str, DriftReport | Unavailable]] = defaultdict(dict)
    for (target, scenario), blocks in blocks_by_key.items():
        key = target, scenario
        effect_and_p = (block_effects[key], block_effect_p[key]) if key in block_effects else None
        drift_by_target[target][scenario] = (
            _drift_report(len(blocks), trends[key], trend_p[key], effect_and_p)
            if key in tested
            else _untested(scenario, len(blocks))
        )
    return dict(drift_by_target)


def drift_warnings(drift_by_target: Mapping[str, DriftByScenario], titles: Mapping[str, str]) -> list[Finding]:
    """One for every target that became faster or slower. Blocks that differ need none: intervals allow for them."""
    findings = []
    for target, scenarios in drift_by_target.items():
        drifting = {
            name: drift.result
            for name, drift in scenarios.items()
            if isinstance(drift, DriftReport) and drift.has_drift
        }
        if drifting:
            title = titles.get(target, target)
            findings.append(warning(FindingCode.LATENCY_DRIFT, target, title=title, results_by_scenario=drifting))
    return findings


def kendall_trend(blocks: Sequence[LatencyBlock]) -> Trend:
    """Kendall's test of the medians against their order in time."""
    medians = [median(block.latency_ms) for block in blocks]
    result: Any = scipy.stats.kendalltau(range(len(medians)), medians)
    n_third = max(1, len(medians) // 3)
    all_equal = math.isnan(result.statistic)  # all medians are equal
    return Trend(
        tau=0.0 if all_equal else float(result.statistic),
        p=1.0 if all_equal else float(result.pvalue),
        first_ms=median(medians[:n_third]),
        last_ms=median(medians[-n_third:]),
    )


def block_effect(blocks: Sequence[LatencyBlock]) -> BlockEffect | None:
    """Kruskal and Wallis's test; None where too few blocks are large enough."""
    large_blocks = [block.latency_ms for block in blocks if len(block.latency_ms) >= MIN_RESPONSES_PER_BLOCK]
    if len(large_blocks) < MIN_BLOCKS:
        return None
    if len({value for latencies_ms in large_blocks for value in latencies_ms}) == 1:
        return BlockEffect(0.0, 1.0, 0.0, 1.0)
    result: Any = scipy.stats.kruskal(*large_blocks)
    n, k = sum(map(len, large_blocks)), len(large_blocks)
    epsilon_squared = max(0.0, float(result.statistic - k + 1) / (n - k))
    effective_block_size = fmean(np.square([len(latencies_ms) for latencies_ms in large_blocks])) / (
        n / k
    )  # the size of a block, weighted by its responses
    return BlockEffect(
        float(result.statistic),
        float(result.pvalue),
        epsilon_squared,
        math.sqrt(1 + (effective_block_size - 1) * epsilon_squared),
    )


def _chronological_blocks(blocks: Mapping[int, Sequence[Sample]]) -> list[LatencyBlock]:
    latency_blocks = [
        LatencyBlock(min(s.scheduled_s for s in samples), tuple(s.latency_ms for s in samples))
        for samples in blocks.values()
    ]
    return sorted(latency_blocks, key=lambda block: block.start_s)


def _untested(scenario: str, n_blocks: int) -> Unavailable:
    if scenario in NONSTATIONARY_SCENARIOS:
        return unavailable(ReasonCode.LOAD_CHANGES_BY_PLAN)
    return unavailable(ReasonCode.TOO_FEW_BLOCKS, needed=MIN_BLOCKS, n=n_blocks)


def _drift_report(
    n_blocks: int, trend: Trend, trend_p: float, effect_and_p: tuple[BlockEffect, float] | None
) -> DriftReport:
    has_trend = trend_p < ALPHA
    effect, effect_p = effect_and_p or (None, 1.0)
    has_block_effect = effect_p < ALPHA
    large_trend = has_trend and abs(trend.change) >= WARN_RELATIVE_CHANGE
    if large_trend:
        code = DriftCode.BECAME_SLOWER if trend.change > 0 else DriftCode.BECAME_FASTER
    elif has_trend:
        code = DriftCode.SMALL_TREND
    else:
        code = DriftCode.BLOCKS_DIFFER if has_block_effect else DriftCode.NO_DRIFT
    change = round(trend.change, 6)
    return DriftReport(
        blocks=n_blocks,
        change=change,
        first_ms=trend.first_ms,
        last_ms=trend.last_ms,
        trend=TrendReport(round(trend.tau, 6), trend.p, trend_p),
        block_effect=BlockEffectReport(
            effect.h_statistic,
            effect.p,
            effect_p,
            round(effect.epsilon_squared, 6),
            round(effect.design_effect_factor, 4),
        )
        if effect
        else unavailable(ReasonCode.TOO_FEW_LARGE_BLOCKS, needed=MIN_BLOCKS, responses=MIN_RESPONSES_PER_BLOCK),
        has_drift=large_trend,
        heterogeneous=has_block_effect
        and effect is not None
        and effect.design_effect_factor >= WARN_DESIGN_EFFECT_FACTOR,
        result=DriftResult(code, {"change": change, "blocks": n_blocks}),
    )
