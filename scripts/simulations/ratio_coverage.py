"""Coverage of the intervals that compare two targets: many simulated runs of two equal targets on one machine.

    make interval-coverage        (some minutes, with the intervals of single percentiles)

In each round of 25 requests to either target, in random order, both suffer what the machine does; the models are those
of interval_coverage.py. Where services are started several times, each target has instances of its own. The ratio of a
percentile is 1. Its 95% interval has to hold that in at least 93% of the runs, however short the run; exit code 1
otherwise. Shown beside it: how often the two are called equivalent (within 5%) and different, and the median width of
the intervals that end.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eval.stats.comparison import Decision, quantile_ratio
from eval.stats.intervals import PERCENTILES
from scripts.simulations.interval_coverage import BLOCK, FIGURES, LOW, MODELS, Model

RUNS = 400
ROUNDS = (12, 40, 120, 400)  # 12 rounds are 300 images, 400 the whole test set


@dataclass(frozen=True)
class RatioRow:
    """One percentile of one model in runs of so many rounds. Fractions of the runs."""

    model: str
    figure: str
    rounds: int
    held: float
    equivalent: float
    different: float
    width: float | None  # median of high / low - 1; None where most intervals have no end


def measure(model: Model, n_rounds: int, runs: int) -> list[RatioRow]:
    """A row for each percentile."""
    rng = np.random.default_rng((model.profile.seed, n_rounds))
    found: dict[str, list[tuple[bool, Decision, float]]] = {figure: [] for figure in FIGURES}
    instances = dict(enumerate(np.arange(n_rounds) * model.instances // n_rounds)) if model.instances > 1 else {}
    machine = replace(model, instance_sigma=0.0)
    for _ in range(runs):
        pairs = _in_random_order(rng, machine.draw(rng, 2 * n_rounds * BLOCK).reshape(n_rounds, 2, BLOCK))
        if instances:
            factors = np.stack([model.draw_instance_factors(rng) for _ in "ab"], axis=1)
            pairs = pairs * factors[list(instances.values()), :, None]
        a, b = (dict(enumerate(pairs[:, side].tolist())) for side in (0, 1))
        for figure in FIGURES:
            ratio = quantile_ratio(a, b, PERCENTILES[figure], paired=True, instances=(instances, instances))
            assert ratio is not None
            width = ratio.high / ratio.low - 1 if ratio.low else math.inf
            found[figure].append((ratio.low <= 1 <= ratio.high, ratio.decision, width))
    rows = []
    for figure, results in found.items():
        held, decisions, widths = zip(*results, strict=True)
        width = float(np.median(widths))
        equivalent, different = (decisions.count(d) / runs for d in (Decision.EQUIVALENT, Decision.DIFFERENT))
        row = RatioRow(model.name, figure, n_rounds, sum(held) / runs, equivalent, different, width)
        rows.append(row if width < 1e3 else replace(row, width=None))
    return rows


def _in_random_order(rng: np.random.Generator, pairs: np.ndarray) -> np.ndarray:
    """Either target comes first in half of the rounds."""
    swapped = rng.random(len(pairs)) < 0.5
    return np.where(swapped[:, None, None], pairs[:, ::-1], pairs)


def table(rows: Sequence[RatioRow]) -> list[str]:
    lines = [
        f"{'model':9}  {'figure':6} {'rounds':>6}  {'holds':>6}  {'equivalent':>10}  {'different':>9}  {'width':>6}"
    ]
    for row in rows:
        width = "none" if row.width is None else f"{row.width:.1%}"
        lines.append(
            f"{row.model:9}  {row.figure:6} {row.rounds:6}  {row.held:6.1%}  {row.equivalent:10.1%}  "
            f"{row.different:9.1%}  {width:>6}{'' if row.held >= LOW else f'  under {LOW:.0%}'}"
        )
    return lines


def main(
    show: Callable[[str], None] = print, rounds: Sequence[int] = ROUNDS, runs: int = RUNS, map_with: Any = map
) -> int:
    """Print the table. Returns the exit code."""
    show(f"Two equal targets in {runs:,} simulated runs: intervals of the ratio that hold 1, and what they say")
    models, counts = zip(*itertools.product(MODELS, rounds), strict=True)
    rows = [row for group in map_with(measure, models, counts, itertools.repeat(runs)) for row in group]
    for line in table(rows):
        show(line)
    return int(any(row.held < LOW for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.ratio_coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulated runs of each model and length ({RUNS:,})")
    arguments = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        sys.exit(main(runs=arguments.runs, map_with=pool.map))
