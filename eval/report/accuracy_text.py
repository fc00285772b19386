"""How right the answers are, in the words of the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.formatting import count, percent, plural
from eval.targets.engines import REFERENCE_ENGINE
from infra.local.names import engine_title

if TYPE_CHECKING:
    from eval.analysis.findings import Findings


def rightness(found: Findings) -> str:
    """Whether the answers are those of the one model, and how many of them are right."""
    disputes = found.disputes()
    if disputes:
        words = [f"{found.title(a)} and {found.title(b)} differ on {differing(both)}" for a, b, both in disputes]
        return f"not all answers are right: {', '.join(words)}"
    if not any(both["n"] for both in found.parity.values()):
        return f"whether the answers are those of the model was not checked ({_accuracies(found)})"
    if len(engines := list(dict.fromkeys(map(found.engine, found.answered)))) > 1 or engines != [REFERENCE_ENGINE]:
        return _right_by_engine(found, engines)
    numbers = {both["n"] for both in found.parity.values()}
    images = f"all {plural(numbers.pop(), 'image')}" if len(numbers) == 1 else "every image answered"
    alone = len(found.answered) == 1
    who = f"{found.title(found.answered[0])} gives" if alone else f"all {len(found.answered)} targets give"
    if len(found.answered) < len(found.targets):
        who = who.replace("all ", "the other ", 1)
    same = "the reference's answers" if found.has_reference else "the same answers, not checked against a reference,"
    return f"{who} {same} on {images} ({_accuracies(found)})"


def _right_by_engine(found: Findings, engines: Sequence[str]) -> str:
    """Every target answers as the others of its engine do; how far the engines are from one another."""
    names = {engine: [name for name in found.answered if found.engine(name) == engine] for engine in engines}
    return ", ".join(_of_engine(found, engine, names[engine]) for engine in engines)


def _of_engine(found: Findings, engine: str, names: Sequence[str]) -> str:
    title, plain = engine_title(engine), engine_title(REFERENCE_ENGINE)
    targets = f" on all {len(names)} targets" if len(names) > 1 else ""
    whose = "the reference's" if found.has_reference else "the same"
    both = found.beside(names)
    if engine == REFERENCE_ENGINE:
        words = f"gives {whose} answers{targets}"
    elif both is None:
        words = f"gives the same answers{targets}, not checked against {plain},"
    elif both["disagreements"]:
        words = f"differs from {plain} on {differing(both)}{targets and ', alike' + targets}"
    else:
        words = f"gives the answers of {plain}{targets}"
    return f"{title} {words} ({_accuracies(found, names)})"


def _accuracies(found: Findings, names: Sequence[str] | None = None) -> str:
    names = found.answered if names is None else names
    values = sorted({percent(found.targets[name]["accuracy"]["value"]) for name in names}, key=_number)
    return f"accuracy {values[0]}" if len(values) == 1 else f"accuracy {values[0]} to {values[-1]}"


def _number(text: str) -> float:
    return float(text.strip("<>% "))


def differing(both: Mapping[str, Any]) -> str:
    """ "2 of 400 images"."""
    return f"{count(both['disagreements'])} of {plural(both['n'], 'image')}"
