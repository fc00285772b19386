"""By how much each target changed from one run to another, and how much of that the machine did. Pure.

Two runs have other minutes of the machine, or of the network, which may be slower in one of them: by a factor that all
targets share. That factor is taken to be the change of the target in the middle: more than half of the targets would
have to change alike to be mistaken for the machine. Of two in the middle it is the one that changed less.

What is left of a target's change is its own: the ratio to that reference in run B, divided by the same ratio in run A.
Within a run both were sent the same images within seconds, so neither the machine of a run nor its course is in it.

An interval has the variance between instances only where a run has several of each. Where it has not, that of services
elsewhere is assumed. With one target alone, the machine cannot be told from the change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from statistics import fmean

from eval.stats.comparison import InstanceByBlock, Ratio, ValuesByBlock, mean_ratio, quantile_ratio, ratio_of_ratios
from eval.stats.intervals import instance_numbers, nearest_rank

UNKNOWN_INSTANCE_SD = 0.03  # of the logarithm of latency, between instances of a target, where a run has too few
NO_RATIO = Ratio(1.0, 1.0, 1.0, 1.0, blocks=1_000_000, degrees_of_freedom=1_000_000)  # is known without any doubt


@dataclass(frozen=True)
class BothRuns:
    """A target's values in two runs, by round, and the instances that gave them."""

    a: ValuesByBlock
    b: ValuesByBlock
    instances_a: InstanceByBlock
    instances_b: InstanceByBlock
    may_be_reference: bool = True  # not where it was meant to change, as with another engine

    @property
    def unknown_instances(self) -> int:
        """In how many of the runs too few instances responded to know how much they differ."""
        return sum(instance_numbers(of.values()) is None for of in (self.instances_a, self.instances_b))


@dataclass(frozen=True)
class Figure:
    """What is compared of all values."""

    of: Callable[[list[float]], float]
    ratio: Callable[..., Ratio | None]  # as eval.stats.comparison.quantile_ratio, without the percentile

    def both(self, runs: BothRuns) -> tuple[float, float]:
        a, b = (self.of(sorted(chain(*values.values()))) for values in (runs.a, runs.b))
        return a, b


def percentile_figure(p: float) -> Figure:
    return Figure(lambda ordered: nearest_rank(ordered, p), partial(quantile_ratio, p=p))


MEAN = Figure(fmean, mean_ratio)


@dataclass(frozen=True)
class Change:
    """From run A to run B, as factors: what was observed is `machine` times `own`."""

    a: float
    b: float
    machine: float | None  # None where it cannot be told apart
    own: Ratio | None  # all that was observed, where the machine cannot be told apart; None of the reference itself
    reference: str | None  # target whose change is taken for the machine's


def find_changes(runs: Mapping[str, BothRuns], figure: Figure, *, steady_machine: bool = False) -> dict[str, Change]:
    """Of each target that has two rounds in both runs. steady_machine: it is known to be as fast in both."""
    values = {name: figure.both(both) for name, both in runs.items()}
    comparable = {name: b / a for name, (a, b) in values.items() if 0 < a < math.inf and 0 < b < math.inf}
    reference = _reference({name: ratio for name, ratio in comparable.items() if runs[name].may_be_reference})
    if steady_machine or len(comparable) < 2:
        reference = None
    changes = {}
    for name, (a, b) in values.items():
        if name == reference:
            changes[name] = Change(a, b, b / a, None, reference)
            continue
        may_be_machine = name in comparable and not steady_machine  # what is infinite no machine explains
        own = _against_reference(runs[name], runs[reference], figure) if reference and may_be_machine else None
        if own:
            changes[name] = Change(a, b, b / a / own.ratio, own, reference)
        elif own := _observed(runs[name], figure):
            changes[name] = Change(a, b, None if may_be_machine else 1.0, own, None)
    return changes


def _reference(ratios: Mapping[str, float]) -> str | None:
    """The target in the middle; of two the one that changed less."""
    ordered = sorted(ratios, key=lambda name: ratios[name])
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return min(middle, key=lambda name: abs(math.log(ratios[name])), default=None)


def _observed(runs: BothRuns, figure: Figure) -> Ratio | None:
    """The ratio of both runs, with all that the machine did."""
    instances = runs.instances_a, runs.instances_b
    ratio = figure.ratio(runs.a, runs.b, paired=False, instances=instances)
    if ratio is None or not 0 < ratio.ratio < math.inf:
        return ratio
    return ratio_of_ratios(NO_RATIO, ratio, UNKNOWN_INSTANCE_SD * math.sqrt(runs.unknown_instances))


def _against_reference(runs: BothRuns, reference: BothRuns, figure: Figure) -> Ratio | None:
    ratio_a = figure.ratio(reference.a, runs.a, paired=True, instances=(reference.instances_a, runs.instances_a))
    ratio_b = figure.ratio(reference.b, runs.b, paired=True, instances=(reference.instances_b, runs.instances_b))
    if ratio_a is None or ratio_b is None or not all(0 < ratio.ratio < math.inf for ratio in (ratio_a, ratio_b)):
        return None
    n_unknown = runs.unknown_instances + reference.unknown_instances
    return ratio_of_ratios(ratio_a, ratio_b, UNKNOWN_INSTANCE_SD * math.sqrt(n_unknown))
