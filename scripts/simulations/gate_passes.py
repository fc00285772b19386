"""How often simulated candidates pass a gate of 0.5 points: the table of docs/gate.md.

    python -m scripts.simulations.gate_passes [--runs 2000] [--whole 100]

Production is right on 94% of the images. Candidate and production differ in being right on 3% of them. By accuracy
alone, beside the rule "at least as many right" and what `./cloudtrial compare` lets through; --whole judges macro
precision and F1 in addition, which takes a second a run. A second table is of macro F1 alone, where few images differ:
without any, the limits of a bootstrap have no width. Exit code 1 where more of the worse ones, or fewer of the equal
ones, pass than CASES and F1_CASES allow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.analysis.predictions.mcnemar import DiscordantPairs
from eval.analysis.predictions.paired_scores import paired_scores
from eval.analysis.run_comparison import Thresholds
from eval.gate.criteria import Criterion, Verdict, accuracy_criterion, overall, score_criterion

DISCORDANT, ACCURACY, N_CLASSES = 0.03, 0.94, 10
MARGIN = 0.005
SEED = 21
PASSED = (Verdict.BETTER, Verdict.NOT_WORSE)


@dataclass(frozen=True)
class Case:
    """A candidate of known worth, and how often it has to pass, or may."""

    images: int
    loss: float  # of accuracy, in truth
    at_least: float = 0.0
    at_most: float = 1.0
    discordant: float = DISCORDANT

    @property
    def only_one(self) -> tuple[float, float]:
        """The probability that production alone is right on an image, and that the candidate is."""
        return (self.discordant + self.loss) / 2, (self.discordant - self.loss) / 2


CASES = (
    Case(1_000, 0.0),
    Case(1_000, 0.005, at_most=0.06),
    Case(1_000, 0.01, at_most=0.02),
    Case(10_000, 0.0, at_least=0.88),
    Case(10_000, 0.005, at_most=0.06),
    Case(10_000, -0.005, at_least=0.99),
)
F1_CASES = (
    Case(100, 0.0, discordant=0.002, at_most=0.06),  # so few tell no worth
    Case(100, 0.01, discordant=0.01, at_most=0.06),
    Case(1_000, 0.0, discordant=0.002, at_least=0.65),
    Case(1_000, 0.005, discordant=0.005, at_most=0.06),
)


def draw_pairs(rng: np.random.Generator, case: Case) -> DiscordantPairs:
    """The images on which only one of both is right."""
    only_a, only_b = case.only_one
    drawn = rng.multinomial(case.images, [only_a, only_b, 1 - only_a - only_b])
    return DiscordantPairs(case.images, int(drawn[0]), int(drawn[1]))


def compare_passes(pairs: DiscordantPairs) -> bool:
    """Whether `compare` shows no regression."""
    loss = (pairs.only_a_correct - pairs.only_b_correct) / pairs.n
    return not (pairs.p < 0.05 and loss > Thresholds().max_accuracy_drop)


def pass_rates(case: Case, runs: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """The fraction that passes: by the naive rule, by `compare`, and by the gate."""
    drawn = [draw_pairs(rng, case) for _ in range(runs)]
    return (
        sum(pairs.only_b_correct >= pairs.only_a_correct for pairs in drawn) / runs,
        sum(map(compare_passes, drawn)) / runs,
        sum(accuracy_criterion("", pairs, MARGIN).verdict in PASSED for pairs in drawn) / runs,
    )


def draw_labels(rng: np.random.Generator, case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The true ones, production's and the candidate's."""
    true = rng.integers(0, N_CLASSES, case.images)
    only_a, only_b = case.only_one
    both = ACCURACY - only_a
    kind = rng.choice(4, case.images, p=[both, only_a, only_b, 1 - both - only_a - only_b])
    wrong = (true + rng.integers(1, N_CLASSES, case.images)) % N_CLASSES
    return true, np.where(kind <= 1, true, wrong), np.where(kind % 2 == 0, true, wrong)


def whole_gate(rng: np.random.Generator, case: Case) -> Verdict:
    """The verdict of accuracy, macro precision and macro F1, of labels drawn image by image."""
    true, a, b = draw_labels(rng, case)
    pairs = DiscordantPairs(case.images, int((b != true)[a == true].sum()), int((b == true)[a != true].sum()))
    criteria: list[Criterion] = [accuracy_criterion("", pairs, MARGIN)]
    criteria += [score_criterion("", m, s, MARGIN) for m, s in paired_scores(true, (a, b), None, N_CLASSES).items()]
    return overall(criteria)


def f1_pass_rate(case: Case, runs: int, rng: np.random.Generator) -> float:
    """The fraction that passes by macro F1 alone."""
    passed = 0
    for _ in range(runs):
        true, a, b = draw_labels(rng, case)
        score = paired_scores(true, (a, b), None, N_CLASSES)["f1_macro"]
        passed += score_criterion("", "f1_macro", score, MARGIN).verdict in PASSED
    return passed / runs


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.gate_passes", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--runs", type=int, default=2000, help="simulated candidates a row (default: 2000)")
    parser.add_argument("--whole", type=int, default=0, help="of the whole gate a row (default: 0, not judged)")
    parser.add_argument("--f1", type=int, default=300, help="of macro F1 alone a row (default: 300)")
    options = parser.parse_args(argv)
    rng, missed = np.random.default_rng(SEED), 0
    print("| Images | Candidate's accuracy | At least as many right | `compare` | `gate` | with precision and F1 |")
    print("|--:|--:|--:|--:|--:|--:|")
    for case in CASES:
        naive, compare, gate = pass_rates(case, options.runs, rng)
        whole = [whole_gate(rng, case) in PASSED for _ in range(options.whole)]
        whole_text = f"{sum(whole) / len(whole):.2f}" if whole else ""
        cells = (f"{case.images:,}", f"{0 - case.loss * 100:+g} pp", f"{naive:.2f}", f"{compare:.2f}", f"{gate:.2f}")
        print(f"| {' | '.join((*cells, whole_text))} |", flush=True)
        missed += not case.at_least <= gate <= case.at_most
    print("\n| Images | Candidate's accuracy | Images that differ | `gate --only f1_macro` |\n|--:|--:|--:|--:|")
    for case in F1_CASES:
        passed = f1_pass_rate(case, options.f1, rng)
        print(f"| {case.images:,} | {0 - case.loss * 100:+g} pp | {case.discordant:.1%} | {passed:.2f} |", flush=True)
        missed += not case.at_least <= passed <= case.at_most
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
