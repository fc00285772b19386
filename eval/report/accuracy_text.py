"""How right the answers are, in the words of the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from eval.analysis.verdict_facts import VerdictFacts
from eval.formatting import disagreement_text, percent, plural
from eval.targets.engines import REFERENCE_ENGINE
from service.engines.names import engine_title

MAX_PAIRS = 6  # that the sentence names: all pairs of four targets


def accuracy_text(facts: VerdictFacts) -> str:
    """Whether the answers are those of the one model, and how many of them are right."""
    disagreements = facts.disagreements()
    if disagreements:
        pair_texts = [
            f"{facts.title(a)} and {facts.title(b)} differ on {disagreement_text(agreement.disagreements, agreement.n)}"
            for a, b, agreement in sorted(disagreements, key=lambda pair: -pair[2].disagreements)[:MAX_PAIRS]
        ]
        others = len(disagreements) - MAX_PAIRS
        if others > 0:
            pair_texts.append(f"and {plural(others, 'other pair')} on as many or fewer")
        return f"not all answers are right: {', '.join(pair_texts)}"
    if not any(agreement.n for agreement in facts.agreement.values()):
        return f"whether the answers are those of the model was not checked ({_accuracy_range(facts)})"
    if len(engines := list(dict.fromkeys(map(facts.engine, facts.measured_targets)))) > 1 or engines != [
        REFERENCE_ENGINE
    ]:
        return _accuracy_by_engine(facts, engines)
    image_counts = {agreement.n for agreement in facts.agreement.values()}
    images = f"all {plural(image_counts.pop(), 'image')}" if len(image_counts) == 1 else "every image answered"
    only_one = len(facts.measured_targets) == 1
    subject = (
        f"{facts.title(facts.measured_targets[0])} gives"
        if only_one
        else f"all {len(facts.measured_targets)} targets give"
    )
    if len(facts.measured_targets) < len(facts.targets):
        subject = subject.replace("all ", "the other ", 1)
    compared_with = (
        "the reference's answers" if facts.has_reference else "the same answers, not checked against a reference,"
    )
    return f"{subject} {compared_with} on {images} ({_accuracy_range(facts)})"


def _accuracy_by_engine(facts: VerdictFacts, engines: Sequence[str]) -> str:
    """Every target answers as the others of its engine do; how far the engines are from one another."""
    names_by_engine = {
        engine: [name for name in facts.measured_targets if facts.engine(name) == engine] for engine in engines
    }
    return ", ".join(_engine_text(facts, engine, names_by_engine[engine]) for engine in engines)


def _engine_text(facts: VerdictFacts, engine: str, names: Sequence[str]) -> str:
    title, reference_title = engine_title(engine), engine_title(REFERENCE_ENGINE)
    targets = f" on all {len(names)} targets" if len(names) > 1 else ""
    whose_answers = "the reference's" if facts.has_reference else "the same"
    agreement = facts.vs_reference(names)
    if engine == REFERENCE_ENGINE:
        text = f"gives {whose_answers} answers{targets}"
    elif agreement is None:
        text = f"gives the same answers{targets}, not checked against {reference_title},"
    elif agreement.disagreements:
        images = disagreement_text(agreement.disagreements, agreement.n)
        text = f"differs from {reference_title} on {images}{targets and ', alike' + targets}"
    else:
        text = f"gives the answers of {reference_title}{targets}"
    return f"{title} {text} ({_accuracy_range(facts, names)})"


def _accuracy_range(facts: VerdictFacts, names: Sequence[str] | None = None) -> str:
    names = facts.measured_targets if names is None else names
    values = sorted({percent(facts.targets[name].accuracy.value or 0.0) for name in names}, key=_percent_value)
    return f"accuracy {values[0]}" if len(values) == 1 else f"accuracy {values[0]} to {values[-1]}"


def _percent_value(text: str) -> float:
    return float(text.strip("<>% "))
