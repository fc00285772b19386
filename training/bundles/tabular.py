"""A logistic regression on rows of numbers, as a bundle.

    ./cloudtrial tabular rows.csv --bundle models/mine       # columns of numbers, then `class`
    ./cloudtrial tabular sklearn:iris --bundle models/iris   # scikit-learn's own rows: iris, wine, breast_cancer

Fits on most rows, measures on the others, writes the pipeline (scaling, then the regression) as ONNX with skl2onnx, and
checks on the rows held out that it answers as scikit-learn does.
"""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sklearn
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from service.manifest.reader import NAME, is_name
from service.manifest.records import Feature, TabularInput
from training.bundles.manifest import EngineSource, SelfTest, check_replaceable, write_bundle
from training.bundles.onnx_export import run_onnx
from training.bundles.reference import measured, reference_of
from training.errors import DataError, ExportError, FolderError
from training.measure import accuracy

PREFIX = "sklearn:"
LOADERS = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer}
CLASS_COLUMN = "class"
INPUT, OUTPUT = "features", "probabilities"
FILE = "model.onnx"
OPSET = 17
TEST_FRACTION = 1 / 3
FOLDS = 5
MAX_DIFFERENCE = 1e-4  # of a probability, between ONNX Runtime and scikit-learn
MAX_VALUE = float(np.finfo(np.float32).max)
MIN_ROWS = 5  # of a class
SELF_TEST_ROWS = 3


@dataclass(frozen=True)
class Rows:
    """A table: numbers, and a class for each row."""

    name: str
    features: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray  # float32 [N, features]
    labels: np.ndarray  # int64 [N]
    origin: str


def read_rows(source: str) -> Rows:
    """A CSV file, or scikit-learn's data set. Raises DataError with the line that is at fault."""
    if source.startswith(PREFIX):
        return _read_sklearn(source.removeprefix(PREFIX))
    path = Path(source)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = csv.reader(file)
    except FileNotFoundError:
        raise DataError(f"no file {path}; name a CSV file, or {PREFIX}iris") from None
    except (OSError, UnicodeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file with a header: {error}") from None
    _check_header(path, header)
    values = [_numbers(path, number, header, row) for number, row in enumerate(lines, 2) if row]
    names = [_class(path, number, row[-1].strip()) for number, row in enumerate(lines, 2) if row]
    classes = tuple(sorted(set(names)))
    labels = np.array([classes.index(name) for name in names], np.int64)
    return Rows(path.stem, tuple(header[:-1]), classes, np.array(values, np.float32), labels, f"rows of {path.name}")


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) < 2 or header[-1] != CLASS_COLUMN:
        raise DataError(f"{path}: the last column has to be named {CLASS_COLUMN!r}, and it is {header[-1:]}")
    if len(set(header)) < len(header):
        raise DataError(f"{path}: two columns have one name; the columns are {header}")
    for number, name in enumerate(header, 1):
        if not name:
            raise DataError(f"{path}: the column {number} has no name: an index? leave it out")
        if not is_name(name):
            raise DataError(f"{path}: the column {number} is called {name!r}; a name has to be {NAME}")


def _class(path: Path, number: int, name: str) -> str:
    if not is_name(name):
        raise DataError(f"{path}, line {number}: the class is {name!r}; a name has to be {NAME}")
    return name


def _numbers(path: Path, number: int, header: list[str], row: list[str]) -> list[float]:
    if len(row) != len(header):
        raise DataError(f"{path}, line {number}: {len(row)} values in {len(header)} columns")
    try:
        values = [float(value) for value in row[:-1]]
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {error}; every column but {CLASS_COLUMN} holds numbers") from None
    if not all(math.isfinite(value) and abs(value) <= MAX_VALUE for value in values):
        raise DataError(f"{path}, line {number}: a value is missing, infinite or beyond float32; leave the row out")
    return values


def _read_sklearn(name: str) -> Rows:
    if name not in LOADERS:
        raise DataError(f"scikit-learn's {name!r} is not known here; take one of {', '.join(LOADERS)}")
    data: Any = LOADERS[name]()
    return Rows(
        name, tuple(map(str, data.feature_names)), tuple(map(str, data.target_names)), data.data.astype(np.float32),
        data.target.astype(np.int64), f"the {name} rows of scikit-learn {sklearn.__version__}",
    )  # fmt: skip


def check_rows(rows: Rows) -> None:
    """Raises DataError when nothing can be learnt."""
    if len(rows.classes) < 2:
        raise DataError(f"{rows.name} has one class, {list(rows.classes)}; a classifier needs at least two")
    counts = np.bincount(rows.labels, minlength=len(rows.classes))
    if counts.min() < MIN_ROWS:
        name = rows.classes[counts.argmin()]
        raise DataError(f"{rows.name} has {counts.min()} rows of {name!r}; give at least {MIN_ROWS} of each class")


def write_onnx(model: Pipeline, features: int, path: Path) -> None:
    """Write the pipeline: features [N, F] -> probabilities [N, classes]."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    taken: Any = [(INPUT, FloatTensorType([None, features]))]
    model_proto: Any = to_onnx(
        model, initial_types=taken, target_opset=OPSET,
        options={"zipmap": False},
    )  # fmt: skip
    keep_output(model_proto.graph, OUTPUT)
    onnx.checker.check_model(model_proto)
    path.write_bytes(model_proto.SerializeToString())


def keep_output(graph: onnx.GraphProto, name: str) -> None:
    """Drop the other outputs, and the nodes that only they need. Nodes are in the order in which they compute."""
    needed = {name}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    outputs = [each for each in graph.output if each.name == name]
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.output.extend(outputs)


def write_csv(rows: Rows, indices: np.ndarray, path: Path) -> None:
    """Write these rows in the form that `read_rows` takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*rows.features, CLASS_COLUMN])
        for index in indices:
            writer.writerow(
                [*(f"{shortest(value):.15g}" for value in rows.values[index]), rows.classes[rows.labels[index]]]
            )


def check_golden(path: Path, rows: Rows, held_out: int) -> None:
    """Raises FolderError unless the rows held out may be written there: in place of some of this table's alone."""
    if not path.exists():
        return
    with suppress(DataError):
        there = read_rows(str(path))
        if there.features == rows.features and len(there.labels) <= held_out and _pairs(there) <= _pairs(rows):
            return
    raise FolderError(f"--golden {path} is there, and holds more or other rows than are held out: name another file")


def _pairs(rows: Rows) -> set[tuple[bytes, str]]:
    return {(each.tobytes(), rows.classes[label]) for each, label in zip(rows.values, rows.labels, strict=True)}


def shortest(value: np.float32) -> float:
    """The shortest decimal that is this number, so most likely the one in the table."""
    return float(str(value))


def make_bundle(source: str, folder: Path, golden: Path | None, seed: int) -> dict[str, Any]:
    """Fit, measure, export, check; write the bundle, and the rows held out into `golden`. Returns the test's figures.

    Raises TrainingError.
    """
    check_replaceable(folder)
    if golden is not None and golden.exists() and Path(source).exists() and golden.samefile(source):
        raise DataError(f"--golden {golden} is the table itself, of which a third would be left: name another file")
    rows = read_rows(source)
    check_rows(rows)
    train, test = train_test_split(
        np.arange(len(rows.labels)), test_size=TEST_FRACTION, random_state=seed, stratify=rows.labels
    )
    train, test = np.sort(train), np.sort(test)
    if golden is not None:
        check_golden(golden, rows, len(test))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(rows.labels[train]).min())), shuffle=True, random_state=seed)
    cross_validated = cross_val_score(model, rows.values[train], rows.labels[train], cv=folds)
    model.fit(rows.values[train], rows.labels[train])
    regression: Any = model[-1]
    path = folder.parent / f".{folder.name}.onnx"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_onnx(model, len(rows.features), path)
        expected = model.predict_proba(rows.values[test])
        found = run_onnx(path, rows.values[test], INPUT)
        difference = float(np.abs(found - expected).max())
        if difference > MAX_DIFFERENCE:
            raise ExportError(f"ONNX Runtime's probabilities differ from scikit-learn's by {difference:.2g}")
        figures = accuracy(found, rows.labels[test])
        chosen = [int(np.flatnonzero(rows.labels[train] == label)[0]) for label in range(len(rows.classes))]
        samples = rows.values[train][chosen[:SELF_TEST_ROWS]]
        inputs = [[shortest(value) for value in row] for row in samples]
        lows, highs = rows.values[train].min(0), rows.values[train].max(0)
        features = [
            {"name": name, "min": shortest(low), "max": shortest(high)}
            for name, low, high in zip(rows.features, lows, highs, strict=True)
        ]
        taken = TabularInput(tuple(Feature(**each) for each in features))
        held_out = f"{len(test)} rows held out, seed {seed}"
        reference = reference_of(
            taken, measured(rows.values[test], taken), {"onnx": found}, rows.labels[test], f"{rows.name}, {held_out}"
        )
        write_bundle(
            folder, rows.classes, {"kind": "tabular", "features": features},
            {"onnx": EngineSource(path, FILE, "float32")},
            SelfTest(inputs, {"onnx": run_onnx(path, samples, INPUT)}),
            licence="Apache-2.0",
            origin=f"A logistic regression of standardised features, fitted by this project to {rows.origin}.",
            details={
                "parameters": int(regression.coef_.size + regression.intercept_.size),
                "storage": "float32",
                "metrics": {"test": figures | {"data": held_out}},
                "training": {
                    "data": f"{len(train)} rows", "seed": seed,
                    "cross_validation": {
                        "folds": folds.get_n_splits(), "accuracy": round(float(cross_validated.mean()), 5)
                    },
                    "max_abs_dprob_to_scikit_learn": float(f"{difference:.2g}"),
                    "libraries": {"scikit-learn": sklearn.__version__, "onnx": onnx.__version__},
                },
            },
            reference=reference,
        )  # fmt: skip
    finally:
        path.unlink(missing_ok=True)
    if golden is not None:
        write_csv(rows, test, golden)
    return figures | {"max_abs_dprob": difference, "bytes": (folder / FILE).stat().st_size}
