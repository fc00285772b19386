"""Rows of a table as requests: a CSV file with a header, whose last column `class` is the label.

Each row is posted as a JSON list of its numbers, in the order in which the model names its features.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from eval.dataset.image_set import ImageSet, ImageSource, describe_sample
from eval.dataset.sampling import stratified_sample
from eval.errors import EvalError, ImagesError
from eval.samples.model import MAX_CLASSES, MAX_IMAGES, TABULAR
from eval.validation import read_file
from service.manifest.records import TabularInput
from service.model import Bundle

ROWS_FILE = "rows.csv"
CLASS_COLUMN = "class"
JSON_TYPE = "application/json"
MAX_BYTES = 64 * 1024 * 1024


def is_tabular(bundle: Bundle) -> bool:
    """Whether the model takes rows of numbers rather than images."""
    return isinstance(bundle.input, TabularInput)


def is_rows(path: Path) -> bool:
    """Whether --images names a table: a CSV file, or a folder with rows.csv."""
    return path.suffix.lower() == ".csv" or (path / ROWS_FILE).is_file()


def load_rows(path: Path, source: str, bundle: Bundle | None, limit: int | None, seed: int) -> ImageSet:
    """At most `limit` rows of a file, stratified by class.

    Without a bundle, the file says what the features and the classes are. Raises ImagesError with the line.
    """
    header, lines = _read_table(path)
    features = header[:-1]
    order = _feature_order(path, features, bundle)
    labels = [line[-1] for line in lines]
    classes = bundle.classes if bundle else tuple(sorted(set(labels)))
    if len(classes) > MAX_CLASSES:
        raise ImagesError(f"{path} has {len(classes):,} classes, more than {MAX_CLASSES:,}")
    if unknown := sorted(set(labels) - set(classes)):
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise ImagesError(f"{path}: {unknown[0]!r} is not a class of the model; its classes are {known}")
    ids = {name: index for index, name in enumerate(classes)}
    rows = [_row(path, number, line, features, order, ids[line[-1]]) for number, line in enumerate(lines, start=2)]
    chosen = [rows[index] for index in stratified_sample([row.label for row in rows], limit, seed)]
    text = describe_sample(source, len(chosen), len(rows))
    return ImageSet(text, tuple(classes), tuple(row.load() for row in chosen), kind=TABULAR,
                    model=bundle.folder.name if bundle else None)  # fmt: skip


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8-sig")
        header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (OSError, EvalError, UnicodeDecodeError, csv.Error) as error:
        raise ImagesError(f"cannot read {path} as CSV: {getattr(error, 'strerror', None) or error}") from None
    header, lines = [name.strip() for name in header], [line for line in lines if line]
    if len(header) < 2 or header[-1] != CLASS_COLUMN:
        raise ImagesError(f"{path}: the first line has to name the features, and {CLASS_COLUMN!r} last")
    if not lines or len(lines) > MAX_IMAGES:
        raise ImagesError(f"{path} has {len(lines):,} rows below its header: expected 1 to {MAX_IMAGES:,}")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise ImagesError(f"{path}, line {number}: {len(line)} cells, and the header has {len(header)}")
    return header, [[cell.strip() for cell in line] for line in lines]


def _feature_order(path: Path, features: Sequence[str], bundle: Bundle | None) -> list[int]:
    """The columns in the order of the model's features, which are matched by name."""
    if bundle is None:
        return list(range(len(features)))
    if not isinstance(bundle.input, TabularInput):
        raise ImagesError(f"{bundle.name} takes images, and {path} is a table: give a folder with CLASS/*")
    wanted = [feature.name for feature in bundle.input.features]
    if sorted(wanted) != sorted(features):
        raise ImagesError(f"{path} has the columns {', '.join(features)}; {bundle.name} takes {', '.join(wanted)}")
    return [list(features).index(name) for name in wanted]


def _row(
    path: Path, number: int, line: Sequence[str], features: Sequence[str], order: Sequence[int], label: int
) -> ImageSource:
    values = []
    for column in order:
        try:
            value = float(line[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ImagesError(f"{path}, line {number}: {features[column]} is {line[column]!r}, expected a number")
        values.append(value)
    body = json.dumps(values).encode()
    return ImageSource(f"row {number - 1}", label, JSON_TYPE, lambda: body)
