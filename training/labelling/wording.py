"""What ./cloudtrial label propose says at its end: one line each."""

from __future__ import annotations

from training.labelling.proposal import ClassFigures, Proposal
from training.labelling.threshold import (
    Choice,
    Goal,
    Trial,
    best_bound,
    held_out_needed,
    label_bound,
    lower_bound,
)  # fmt: skip

SHOWN = 3


def lines(proposal: Proposal) -> list[str]:
    """The result, then what to be wary of."""
    chosen = proposal.choice.chosen
    found = _chosen_lines(proposal, chosen) if chosen else _refusal_lines(proposal)
    if proposal.left_out:
        name, reason = proposal.left_out[0]
        found.append(
            f"{len(proposal.left_out):,} left out, each with the reason in left_out.csv; the first: {name}: {reason}"
        )
    found += [f"warning: {shift.sentence()}" for shift in proposal.shifts if shift.counts]
    if chosen and proposal.unproven:
        found.append(f"warning: {_unproven(proposal)}")
    return found


def _chosen_lines(proposal: Proposal, chosen: Trial) -> list[str]:
    total = len(proposal.labelled) + len(proposal.review)
    bound = lower_bound(chosen.held_out - chosen.wrong, chosen.held_out)
    return [
        f"{chosen.held_out - chosen.wrong:,} of {chosen.held_out:,} held-out images that the model is "
        f"{chosen.confidence:.4f} sure of or more are right: at least {_floor(bound)} of such images, and at least "
        f"{_floor(label_bound(chosen))} of these labels (each with 95% confidence)",
        f"{chosen.labels:,} of {total:,} images got a label ({chosen.labels / total:.1%}), {len(proposal.review):,} "
        "are for a person",
    ]


def _refusal_lines(proposal: Proposal) -> list[str]:
    choice = proposal.choice
    best = best_bound(choice.trials)
    if best is None:
        return [f"no label at {_goal(choice.goal)}: there is no image to label"]
    trial, bound = best
    return [
        f"no label at {_goal(choice.goal)}: the best that {proposal.held_out:,} held-out images show is at least "
        f"{_floor(bound)} ({trial.held_out - trial.wrong:,} of {trial.held_out:,} right, where the model is "
        f"{trial.confidence:.4f} sure or more); {remedy(choice, proposal.held_out)}",
        f"all {len(proposal.review):,} images are for a person",
    ]


def remedy(choice: Choice, held_out: int) -> str:
    """How many held-out images would do, or what else."""
    needed = held_out_needed(choice, held_out)
    if needed is not None:
        return f"about {needed:,} held-out images could show it, if the model stays as often right"
    average = Choice(Goal(choice.goal.precision, on_average=True), choice.trials)
    labels = choice.trials[-1].labels
    if not choice.goal.on_average and held_out_needed(average, held_out) is not None:
        return (
            f"of {labels:,} images one wrong label too many is chance: label more images at once, or ask for the "
            "precision with --on-average"
        )
    return "more held-out images would not show it: ask for a lower --precision, or train a better model"


def _unproven(proposal: Proposal) -> str:
    """Classes that may be below the goal, the worst first."""
    classes = sorted(proposal.unproven, key=lambda each: each.bound)
    shown = ", ".join(map(_of_class, classes[:SHOWN])) + (", ..." if len(classes) > SHOWN else "")
    return (
        f"the precision is that of all labels together; for {len(classes)} of {len(proposal.classes)} classes alone "
        f"the held-out images do not show {_goal(proposal.choice.goal)}: {shown}; proposal.json has each"
    )


def _of_class(figures: ClassFigures) -> str:
    if not figures.held_out:
        return f"{figures.name} (none of them)"
    right = figures.held_out - figures.wrong
    return f"{figures.name} ({right:,} of {figures.held_out:,}, at least {_floor(figures.bound)})"


def _goal(goal: Goal) -> str:
    return f"{100 * goal.precision:g}%"


def _floor(fraction: float) -> str:
    """Rounded down: a bound is not to look better than it is."""
    return f"{int(fraction * 10_000 + 1e-9) / 100:.2f}%"
