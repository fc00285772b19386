"""A gate's verdict as text or JSON. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from eval.formatting import count, ms, percent, plural, usd
from eval.gate.criteria import MEASURED, Criterion, Verdict, overall
from eval.report.wording import message

NAMES = {
    "accuracy": "accuracy",
    "precision_macro": "macro precision",
    "f1_macro": "macro F1",
    "roc_auc": "ROC AUC",
    "p95": "p95",
    "failures": "failures",
    "cost": "cost",
    MEASURED: "measured",
}
UNITS: dict[str, Callable[[float], str]] = {"p95": ms, "cost": usd, "roc_auc": "{:.4f}".format}
RATIOS = ("p95", "cost")  # whose gain is a fraction of production's
SENTENCES = {
    Verdict.BETTER: "Better: the candidate may take production's place.",
    Verdict.NOT_WORSE: "Not worse: the candidate may take production's place.",
    Verdict.WORSE: "Worse: the candidate must not take production's place.",
    Verdict.UNDECIDED: "Undecided: it is not shown that the candidate is not worse.",
}


def to_text(criteria: Sequence[Criterion]) -> str:
    """A line for each criterion, then the verdict."""
    rows = [("", "production", "candidate", "gain", "one-sided 95%", "margin", "verdict"), *map(_row, criteria)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", SENTENCES[overall(criteria)], *_explanations(criteria)])


def to_json(criteria: Sequence[Criterion]) -> str:
    """Every field of every criterion. What is infinite is null, and named in `infinite`."""
    document = {"schema_version": 1, "verdict": overall(criteria), "criteria": [_fields(c) for c in criteria]}
    return json.dumps(document, indent=1, allow_nan=False)


def _fields(c: Criterion) -> dict[str, Any]:
    fields = asdict(c) | {"reason": message(c.reason) if c.reason else None}
    infinite = [name for name, value in fields.items() if isinstance(value, float) and math.isinf(value)]
    return fields | dict.fromkeys(infinite) | ({"infinite": infinite} if infinite else {})


def _row(c: Criterion) -> tuple[str, ...]:
    name = " ".join(filter(None, (c.target, NAMES[c.metric], c.scenario)))
    limits = "" if c.low is None or c.high is None else f"{_gain(c, c.low)} to {_gain(c, c.high)}"
    margin = f"-{c.margin:.0%}" if c.metric in RATIOS else f"-{c.margin * 100:g} pp"
    margin = "" if c.metric == MEASURED else margin
    gain = "" if c.gain is None else _gain(c, c.gain)
    return (name, _value(c, c.production), _value(c, c.candidate), gain, limits, margin, c.verdict)


def _value(c: Criterion, value: float | None) -> str:
    if value is None:
        return ""
    return "endless" if math.isinf(value) else UNITS.get(c.metric, percent)(value)


def _gain(c: Criterion, value: float) -> str:
    if math.isinf(value):
        return "endless loss"
    return f"{value:+.1%}" if c.metric in RATIOS else f"{value * 100:+.2f} pp"


def _explanations(criteria: Sequence[Criterion]) -> list[str]:
    """What would decide, what was not judged, and what was not measured."""
    lines = []
    for c in criteria:
        name = f"{NAMES[c.metric]} of {c.target}{f' ({c.scenario})' if c.scenario else ''}"
        if c.metric == MEASURED and c.reason:
            lines.append(f"{c.target} was {message(c.reason)}")
        elif c.verdict == Verdict.UNDECIDED and c.reason:
            lines.append(f"{name}: {message(c.reason)}")
        elif c.verdict == Verdict.UNDECIDED and c.needed:
            lines.append(
                f"{name}: {count(c.needed)} images would decide, if the difference stays what it is ({count(c.n)} now)"
            )
        elif c.verdict == Verdict.UNDECIDED:
            lines.append(f"{name}: a longer run would decide ({plural(c.n, 'request')} now)")
        elif c.verdict == Verdict.NOT_JUDGED:
            lines.append(f"{name} is not judged{f': {message(c.reason)}' if c.reason else ''}")
    return lines
