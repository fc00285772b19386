"""Finds how a foreign endpoint's answers are to be read: where they have a class, and where scores. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.adapters.answers import AnswerForm, Json, class_id_of, read_scores, search

# Keys of a number that is a class, the clearest first: an answer may have a number of the request, too
ID_KEYS = [
    re.compile(keys, re.IGNORECASE) for keys in ("class|label|categor|predict", "result|output|^y$", "idx|index|id")
]
MAX_DEPTH = 8
MAX_ITEMS = 10  # of a list that are looked at
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class _Candidate:
    """Where every answer has a class."""

    path: str
    rank: int  # of its key
    constant: bool  # the same class in every answer


def recognise(payloads: Sequence[Json], classes: Sequence[str]) -> AnswerForm | None:
    """Where the answers to different images have a class or scores; None where nothing can be taken for either.

    Scores of all classes come first, then those of some by name; beside scores without a label the highest is taken. A
    label is a class's name; a number counts only under a key such as class_id, and where there are no scores. Of
    several labels that one counts that differs between the answers.
    """
    scores, known = None, 0
    names: list[_Candidate] = []
    numbers: list[_Candidate] = []
    for path, key, value in _walk(payloads[0]):
        if isinstance(value, list | dict):
            found = [read_scores(search(path, payload), classes) for payload in payloads]
            if all(found) and (fewest := min(each.known for each in found if each)) > known:
                scores, known = path, fewest
            continue
        rank = next((rank for rank, keys in enumerate(ID_KEYS) if keys.search(key)), None)
        is_name = isinstance(value, str) and not value.isdigit()
        if is_name or rank is not None:
            ids = [class_id_of(search(path, payload), classes) for payload in payloads]
            if None not in ids:
                (names if is_name else numbers).append(_Candidate(path, rank or 0, len(set(ids)) == 1))
    label, number = _best(names), _best(numbers)
    if label and scores and (scores == "@" or label.startswith((f"{scores}.", f"{scores}["))):
        label = None  # one of the names that have scores
    label = label or (None if scores else number)
    return AnswerForm(label, scores) if label or scores else None


def _best(candidates: Sequence[_Candidate]) -> str | None:
    """The first of the best."""
    best = min(candidates, key=lambda candidate: (candidate.constant, candidate.rank), default=None)
    return best and best.path


def _walk(value: Json, path: str = "@", key: str = "", depth: int = 0) -> Iterator[tuple[str, str, Json]]:
    """Every value with its JMESPath and the key that it stands under, outer ones first."""
    yield path, key, value
    if depth == MAX_DEPTH:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            step = name if IDENTIFIER.fullmatch(name) else json.dumps(name)
            yield from _walk(inner, step if path == "@" else f"{path}.{step}", name, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value[:MAX_ITEMS]):
            yield from _walk(inner, f"{'' if path == '@' else path}[{index}]", key, depth + 1)
