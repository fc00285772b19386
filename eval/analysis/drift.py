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

from eval.formatting import plural
from eval.samples.model import Sample
from eval.stats.intervals import holm

LEVEL = 0.05  # of p-values after Holm
LEAST_BLOCKS = 8  # with 5 the smallest p of Kendall's test is 0.017, too large for four targets
LEAST_ANSWERS = 5  # of a block that is compared with others as a whole
WARN_CHANGE = 0.05  # of the median, first third of the blocks to last; a trend below it is told, not warned of
WARN_WIDER = 1.5  # times as wide as they are should intervals be
CHANGING = {"ramp", "max_rate", "idle"}  # whose load or whose instance changes by plan


@dataclass(frozen=True)
class Block:
    """The answers of one block."""

    began_s: float
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
        """First third to last, as a share of the first."""
        return self.last_ms / self.first_ms - 1


@dataclass(frozen=True)
class Between:
    """How much of the spread is between blocks rather than in them."""

    statistic: float  # Kruskal and Wallis's H
    p: float
    share: float  # of the ranks' variance (epsilon squared)
    wider: float  # times as wide should intervals be: root of the design effect


def drift(samples: Iterable[Sample]) -> dict[str, dict[str, dict[str, Any]]]:
    """Target -> scenario -> the `drift` of report.json: both tests and a verdict in words, or the reason for none."""
    grouped: dict[tuple[str, str], dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for s in samples:
        if s.phase == "measure" and s.error is None:
            grouped[s.target, s.scenario][s.block].append(s)
    blocks = {key: _in_time(of) for key, of in grouped.items()}
    tested = {key: of for key, of in blocks.items() if key[1] not in CHANGING and len(of) >= LEAST_BLOCKS}
    trends = {key: trend(of) for key, of in tested.items()}
    spreads = {key: found for key, of in tested.items() if (found := between(of))}
    trend_p = dict(zip(trends, holm([t.p for t in trends.values()]), strict=True))
    between_p = dict(zip(spreads, holm([b.p for b in spreads.values()]), strict=True))
    out: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for key, of in blocks.items():
        if key not in tested:
            out[key[0]][key[1]] = {"value": None, "reason": _untested(key[1], len(of))}
            continue
        spread = (spreads[key], between_p[key]) if key in spreads else None
        out[key[0]][key[1]] = _json(len(of), trends[key], trend_p[key], spread)
    return dict(out)


def drift_warnings(found: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> list[str]:
    """A line for every target that became faster or slower. Blocks that differ need none: intervals allow for them."""
    lines = []
    for target, scenarios in found.items():
        tests = {name: facts for name, facts in scenarios.items() if "verdict" in facts}
        title = titles.get(target, target)
        drifting = [f"{name}: {facts['verdict']}" for name, facts in tests.items() if facts["drifts"]]
        if drifting:
            lines.append(f"{title} drifted while the run went on ({'; '.join(drifting)})")
    return lines


def trend(blocks: Sequence[Block]) -> Trend:
    """Kendall's test of the medians against their order in time."""
    medians = [median(block.latency_ms) for block in blocks]
    found: Any = scipy.stats.kendalltau(range(len(medians)), medians)
    third = max(1, len(medians) // 3)
    flat = math.isnan(found.statistic)  # all medians are equal
    return Trend(
        tau=0.0 if flat else float(found.statistic),
        p=1.0 if flat else float(found.pvalue),
        first_ms=median(medians[:third]),
        last_ms=median(medians[-third:]),
    )


def between(blocks: Sequence[Block]) -> Between | None:
    """Kruskal and Wallis's test; None where too few blocks are large enough."""
    large = [block.latency_ms for block in blocks if len(block.latency_ms) >= LEAST_ANSWERS]
    if len(large) < LEAST_BLOCKS:
        return None
    if len({value for of in large for value in of}) == 1:
        return Between(0.0, 1.0, 0.0, 1.0)
    found: Any = scipy.stats.kruskal(*large)
    n, k = sum(map(len, large)), len(large)
    share = max(0.0, float(found.statistic - k + 1) / (n - k))
    size = fmean(np.square([len(of) for of in large])) / (n / k)  # of a block, as an answer sees it
    return Between(float(found.statistic), float(found.pvalue), share, math.sqrt(1 + (size - 1) * share))


def _in_time(blocks: Mapping[int, Sequence[Sample]]) -> list[Block]:
    made = [Block(min(s.started_s for s in of), tuple(s.latency_ms for s in of)) for of in blocks.values()]
    return sorted(made, key=lambda block: block.began_s)


def _untested(scenario: str, blocks: int) -> str:
    if scenario in CHANGING:
        return "its load changes by plan, so its times do too"
    return f"needs {LEAST_BLOCKS} blocks, has {blocks}"


def _json(blocks: int, trend: Trend, trend_p: float, spread: tuple[Between, float] | None) -> dict[str, Any]:
    moves = trend_p < LEVEL
    differ = spread is not None and spread[1] < LEVEL
    return {
        "blocks": blocks,
        "change": round(trend.change, 6),
        "first_ms": trend.first_ms,
        "last_ms": trend.last_ms,
        "trend": {"tau": round(trend.tau, 6), "p": trend.p, "p_holm": trend_p},
        "between": {"h": spread[0].statistic, "p": spread[0].p, "p_holm": spread[1], "share": round(spread[0].share, 6),
                    "wider": round(spread[0].wider, 4)}
        if spread
        else {"value": None, "reason": f"needs {LEAST_BLOCKS} blocks of {plural(LEAST_ANSWERS, 'answer')}"},
        "drifts": moves and abs(trend.change) >= WARN_CHANGE,
        "uneven": differ and spread is not None and spread[0].wider >= WARN_WIDER,
        "verdict": _verdict(blocks, trend, moves, differ),
    }  # fmt: skip


def _verdict(blocks: int, trend: Trend, moves: bool, differ: bool) -> str:
    change = f"{trend.change:+.1%} from the first third of {blocks} blocks to the last"
    if moves and abs(trend.change) >= WARN_CHANGE:
        return f"{'slower' if trend.change > 0 else 'faster'}, {change}"
    if moves:
        return f"a small trend, {change}"
    return f"blocks differ, but not in one direction ({change})" if differ else f"no drift to be seen ({change})"
