"""The folder of a proposal: labelled/CLASS/*, review/, and tables of what became of each image.

proposal.json     every figure
labelled.csv      path, label, probability, margin, file: what the model labelled, and where it lies
left_out.csv      path, reason
labelled/CLASS/*  copies or hard links; ./cloudtrial label apply adds to them
review/           review.csv and review.html, for a person
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from service.model import sha256
from training.errors import LabelError

PROPOSAL_JSON, LABELLED, REVIEW = "proposal.json", "labelled", "review"
LABELLED_CSV, LEFT_OUT_CSV, REVIEW_CSV = "labelled.csv", "left_out.csv", "review.csv"
LABELLED_COLUMNS = ("path", "label", "probability", "margin", "file")
REVIEW_COLUMNS = ("path", "proposed", "probability", "margin", "second", "file", "label")


def class_folder(label: str) -> str:
    """A folder's name for a class: what could be a path or is no file name on some system becomes %2F and the like."""
    return re.sub(r'[/\\:*?"<>|%]|^\.|[. ]$', lambda found: f"%{ord(found[0]):02X}", label)


def file_names(names: Sequence[str]) -> dict[str, str]:
    """For each path from the unlabelled folder, a file name that no other has: in class folders they meet."""
    counts = Counter(PurePosixPath(name).name.casefold() for name in names)
    flat = {
        name: PurePosixPath(name).name if counts[PurePosixPath(name).name.casefold()] == 1 else name.replace("/", "__")
        for name in names
    }
    taken = Counter(file.casefold() for file in flat.values())
    return {
        name: file if taken[file.casefold()] == 1 else f"{number}__{file}"
        for number, (name, file) in enumerate(flat.items())
    }


def place(source: Path, target: Path, *, link: bool) -> bool:
    """Copy or link the file there; False if it lies there already. Raises LabelError rather than overwrite another."""
    if target.exists():
        if sha256(target) == sha256(source):
            return False
        raise LabelError(f"{target} is another file than {source}; move it away first")
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(source, target)
        except OSError as error:
            raise LabelError(f"{source} cannot be linked to {target} ({error.strerror}); leave out --link") from None
        return True
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    os.replace(part, target)
    return True


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with at least these columns. Raises LabelError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a spreadsheet may put a mark first
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise LabelError(
                    f"{path} has no column {', '.join(missing)}; its first line has to name {list(columns)}"
                )
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path} cannot be read as CSV: {error}") from None
