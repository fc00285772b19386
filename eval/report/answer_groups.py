"""Targets that gave the same answers, as one: accuracy and parity differ by the engine, and by nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.formatting import count, interval_of, join_words, percent, score, value_of
from eval.samples.model import REFERENCE
from eval.targets.engines import REFERENCE_ENGINE
from service.engines.names import engine_title

PERCENTS = ("accuracy", "accuracy_over_sent", "top5_accuracy", "precision_macro", "precision_weighted")
SCORES = dict.fromkeys(PERCENTS, percent) | dict.fromkeys(
    ("f1_macro", "f1_weighted", "roc_auc", "average_precision", "ece"), score
)

SCORE_TITLES = {  # in the order of the columns, with what stands small below
    "accuracy": ("Accuracy", "of answers"),
    "accuracy_over_sent": ("Accuracy", "of all sent"),
    "top5_accuracy": ("Top 5", ""),
    "f1_macro": ("F1", "macro"),
    "f1_weighted": ("F1", "weighted"),
    "precision_macro": ("Precision", "macro"),
    "precision_weighted": ("Precision", "weighted"),
    "roc_auc": ("ROC AUC", ""),
    "average_precision": ("Average precision", ""),
    "ece": ("Calibration error", ""),
}
WEAKEST_CLASSES = 10  # that are shown of many

SummaryReport = Mapping[str, Any]


@dataclass(frozen=True)
class AnswerGroup:
    """Targets of one engine with the same label for every image, and the same scores."""

    title: str  # "PyTorch on all 4 targets"
    names: list[str]
    engine: str
    report: Mapping[str, Any]  # of the first target


@dataclass(frozen=True)
class AgreementRow:
    """How often two groups, or the targets of one, or one and the reference gave the same label."""

    title: str
    names: list[str]
    n: int
    disagreements: int
    fraction: Mapping[str, Any]
    max_abs_prob_diff: float | None
    mcnemar_p: float | None  # None: not tested, or nothing differs
    is_fault: bool


def answer_groups(summary: SummaryReport) -> list[AnswerGroup]:
    """Every target is in one."""
    reports = summary["targets"]
    groups: list[list[str]] = []
    for name in reports:
        alike = next((names for names in groups if _alike(summary, names[0], name)), None)
        if alike:
            alike.append(name)
        else:
            groups.append([name])
    return [
        AnswerGroup(_title(names, reports), names, _engine(reports[names[0]]), reports[names[0]]) for names in groups
    ]


def agreement_rows(summary: SummaryReport, groups: Sequence[AnswerGroup], reference_engine: str) -> list[AgreementRow]:
    """A row for every two of the groups and the reference of which any pair was compared."""
    numbers = {name: number for number, group in enumerate(groups) for name in group.names} | {REFERENCE: len(groups)}
    pairs: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for pair, agreement in summary["agreement"].items():
        a, b = sorted(numbers[name] for name in _names(pair, numbers))
        pairs.setdefault((a, b), []).append(agreement)
    return [
        _agreement_row(groups[a], groups[b] if b < len(groups) else None, agreements, reference_engine)
        for (a, b), agreements in sorted(pairs.items())
    ]


def _names(pair: str, known: Container[str]) -> tuple[str, str]:
    """The two names of "one|other", either of which may have a bar itself."""
    parts = ((pair[:bar], pair[bar + 1 :]) for bar, char in enumerate(pair) if char == "|")
    return next((a, b) for a, b in parts if a in known and b in known)


def weakest_classes(per_class: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those with the lowest F1, of the classes that have an image."""
    with_images = [row for row in per_class if row["support"]]
    return sorted(with_images, key=lambda row: (value_of(row["f1"]) or 0.0, row["label"]))[:WEAKEST_CLASSES]


def as_the_model(summary: SummaryReport, name: str) -> str:
    """How many images a target answers as the reference does: "100 of 100"."""
    agreement = summary["agreement"].get(f"{name}|{REFERENCE}")
    return f"{count(agreement['n'] - agreement['disagreements'])} of {count(agreement['n'])}" if agreement else "–"


def _agreement_row(
    a: AnswerGroup, b: AnswerGroup | None, agreements: Sequence[Mapping[str, Any]], reference_engine: str
) -> AgreementRow:
    """Of the pairs the one that differs most; the largest difference of a probability is of all."""
    worst = max(agreements, key=lambda agreement: agreement["disagreements"])
    differences = [d for one in agreements if (d := value_of(one["max_abs_prob_diff"])) is not None]
    p = value_of(worst["mcnemar"]["p_holm"]) if worst["mcnemar"] and worst["disagreements"] else None
    return AgreementRow(
        title=f"{a.title}: with each other" if a is b else f"{a.title} and {b.title if b else f'the {REFERENCE}'}",
        names=[*a.names, *(b.names if b and b is not a else [])],
        n=worst["n"],
        disagreements=worst["disagreements"],
        fraction=worst["fraction"],
        max_abs_prob_diff=max(differences, default=None),
        mcnemar_p=p,
        is_fault=worst["disagreements"] > 0 and a.engine == (b.engine if b else reference_engine),
    )


def _alike(summary: SummaryReport, a: str, b: str) -> bool:
    """Whether two targets have one engine, the same label for every image, and the same scores."""
    first, second = summary["targets"][a], summary["targets"][b]
    return _engine(first) == _engine(second) and _answers(first) == _answers(second) and _same_labels(summary, a, b)


def _same_labels(summary: SummaryReport, a: str, b: str) -> bool:
    """Not known of two that were compared neither with each other nor with the reference."""
    if not any(summary["targets"][name]["succeeded"] for name in (a, b)):
        return True
    agreements = summary["agreement"]
    if direct := agreements.get(f"{a}|{b}") or agreements.get(f"{b}|{a}"):
        return not direct["disagreements"]
    with_reference = [agreements.get(f"{name}|{REFERENCE}") for name in (a, b)]
    return all(agreement and not agreement["disagreements"] for agreement in with_reference)


def _answers(report: Mapping[str, Any]) -> tuple[object, ...]:
    """Scores as they are shown: probabilities may differ in their last digits."""
    scores = [report[name] for name in SCORES]
    shown = [
        (unit(value), interval_of(one, unit)) if (value := value_of(one)) is not None else None
        for one, unit in zip(scores, SCORES.values(), strict=True)
    ]
    return report["confusion"], report["most_confused"], report["succeeded"] > 0, shown


def _engine(report: Mapping[str, Any]) -> str:
    return report["engine"] or REFERENCE_ENGINE


def _title(names: Sequence[str], reports: Mapping[str, Mapping[str, Any]]) -> str:
    engines = {name: _engine(report) for name, report in reports.items()}
    of_engine = [name for name, engine in engines.items() if engine == engines[names[0]]]
    if len(names) == 1 or len(names) < len(of_engine):
        return join_words([reports[name]["title"] for name in names])
    where = f"all {len(names)} targets"
    return where if len(set(engines.values())) == 1 else f"{engine_title(engines[names[0]])} on {where}"
