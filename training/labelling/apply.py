"""./cloudtrial label apply: a person's decisions become files in the class folders of the proposal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import LabelError
from training.labelling.folders import LABELLED, PROPOSAL_JSON, REVIEW, REVIEW_CSV, class_folder, place, read_table

SHOWN = 10


@dataclass(frozen=True)
class Applied:
    """What was done."""

    folder: Path
    added: int
    already_there: int
    undecided: int  # images of the proposal for which these tables have no label


def apply(tables: Sequence[Path], proposal: Path | None, *, link: bool, new_classes: bool) -> Applied:
    """Sort the images into class folders; nothing is touched unless every decision can be. Raises LabelError."""
    folder = proposal or _proposal_of(tables[0])
    content = _read_proposal(folder)
    file_of = {row["path"]: row["file"] for row in read_table(folder / REVIEW / REVIEW_CSV, ("path", "file"))}
    decisions = read_decisions(tables, file_of, None if new_classes else content["classes"])
    root = Path(content["unlabelled"])
    targets = {path: folder / LABELLED / class_folder(label) / file_of[path] for path, label in decisions.items()}
    there = {path.name: path for path in (folder / LABELLED).glob("*/*")}
    for path, target in targets.items():
        if not (root / path).is_file():
            raise LabelError(f"{root / path} is no longer there, and so cannot be labelled")
        if (earlier := there.get(target.name, target)) != target:
            raise LabelError(f"{path} was labelled before: {earlier}; delete that file to label it anew")
    added = sum(place(root / path, target, link=link) for path, target in targets.items())
    return Applied(folder, added, len(targets) - added, len(file_of) - len(targets))


def read_decisions(tables: Sequence[Path], known: dict[str, str], classes: Sequence[str] | None) -> dict[str, str]:
    """Path -> label, of the rows that have one. `classes`: those allowed; None: any. Raises LabelError."""
    decisions: dict[str, str] = {}
    for table in tables:
        for number, row in enumerate(read_table(table, ("path", "label")), 2):
            path, label = row["path"], row["label"].strip()
            if not label:
                continue
            where = f"{table}, row {number}"
            if path not in known:
                raise LabelError(f"{where}: {path!r} is none of the images for a person of this proposal")
            if classes is not None and label not in classes:
                shown = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
                raise LabelError(f"{where}: {label!r} is no class of the model ({shown}); --new-classes allows others")
            if decisions.setdefault(path, label) != label:
                raise LabelError(f"{where}: {path} is {label!r}, and {decisions[path]!r} in an earlier row; keep one")
    return decisions


def _proposal_of(table: Path) -> Path:
    """The proposal in whose review/ the table lies."""
    folder = table.resolve().parent.parent
    if not (folder / PROPOSAL_JSON).is_file():
        raise LabelError(
            f"{table} lies in no proposal's folder: name that of ./cloudtrial label propose with --proposal"
        )
    return folder


def _read_proposal(folder: Path) -> dict[str, Any]:
    path = folder / PROPOSAL_JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"unlabelled": str(content["unlabelled"]), "classes": list(content["classes"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabelError(f"{path} is no proposal of ./cloudtrial label propose: {error}") from None
