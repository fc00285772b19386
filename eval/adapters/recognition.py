"""Finds how a foreign endpoint's answer is to be read: where it has a class, and where scores. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from eval.adapters.adapter import AnswerForm, Json, class_id_of, read_scores

ID_KEYS = re.compile(r"(class|label|category|prediction|predicted|result|output|index|idx|id|y)", re.IGNORECASE)
MAX_DEPTH = 8
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def recognise(payload: Json, classes: Sequence[str]) -> AnswerForm | None:
    """Where an answer has a class or scores; None where nothing in it can be taken for either.

    Scores of all classes come first, then those of some by name; beside scores without a label the highest is taken. A
    label is a class's name; a number counts only under a key such as class_id, and where there are no scores.
    """
    scores, known = None, 0
    name_path = number_path = None
    for path, key, value in _walk(payload):
        if name_path is None and isinstance(value, str) and not value.isdigit():
            name_path = path if class_id_of(value, classes) is not None else None
        elif number_path is None and ID_KEYS.search(key) and class_id_of(value, classes) is not None:
            number_path = path
        found = read_scores(value, classes) if isinstance(value, list | dict) else None
        if found and found.known > known:
            scores, known = path, found.known
    if name_path and scores and (scores == "@" or name_path.startswith((f"{scores}.", f"{scores}["))):
        name_path = None  # one of the names that have scores
    label = name_path or (None if scores else number_path)
    return AnswerForm(label, scores) if label or scores else None


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
        for index, inner in enumerate(value[:10]):
            yield from _walk(inner, f"{'' if path == '@' else path}[{index}]", key, depth + 1)
