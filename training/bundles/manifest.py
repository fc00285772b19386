"""Write a model bundle of schema 2: model.json, the engines' files, and the self-test that every start runs.

The folder is written beside its place and moved there when it is whole and the service's own reader has checked it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import BundleError
from service.model import MODEL_JSON, load_bundle, sha256
from service.monitoring.reference import REFERENCE
from training.bundles.reference import check_reference, write_json
from training.errors import FolderError

SCHEMA = 2
SELF_TEST = "self_test.json"
TOLERANCE = 0.05  # of a probability, between processors
DIGITS = 6
FILE_MODE = 0o644  # the service runs as another user


# Of model.json, beside `name`, which may be told: what write_bundle writes itself, and `architecture` of schema 1
OWN_KEYS = frozenset(
    {"schema", "architecture", "classes", "input", "engines", "files", "self_test", "licence", "origin"}
)


@dataclass(frozen=True)
class EngineSource:
    """A file to put into the bundle, for one engine."""

    path: Path
    file: str  # its name there
    precision: str  # int8, float16 or float32
    architecture: str | None = None


@dataclass(frozen=True)
class SelfTest:
    """Inputs as they are sent, and each engine's answers."""

    inputs: Sequence[Any]
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)


def check_replaceable(folder: Path) -> None:
    """Raises FolderError unless a bundle may be written there: all that is in the folder would be deleted."""
    another = "name another folder with --bundle, such as models/mine"
    if Path.cwd().is_relative_to(folder.resolve()):
        raise FolderError(f"{folder} is the folder that you are in, or holds it: {another}")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        known = {MODEL_JSON, SELF_TEST, REFERENCE, *load_bundle(folder, ()).files}
    except BundleError:
        raise FolderError(f"{folder} is there, and is no model: {another}") from None
    for path in sorted(folder.iterdir()):
        is_hidden_file = path.is_file() and path.name.startswith(".")  # such as macOS writes
        if path.name not in known and path.suffix != ".onnx" and not is_hidden_file:
            raise FolderError(f"{path} is no file of the model there: move it elsewhere, or {another}")


def details_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model.json is kept where its bundle is written again."""
    return {key: value for key, value in manifest.items() if key not in OWN_KEYS}


def write_bundle(
    folder: Path,
    classes: Sequence[str],
    taken: dict[str, Any],
    engines: dict[str, EngineSource],
    self_test: SelfTest,
    *,
    licence: str,
    origin: str,
    details: dict[str, Any],
    reference: Mapping[str, Any] | None = None,
) -> None:
    """Write the bundle, in place of a model that was there. Raises FolderError where something else is.

    `taken`: `input` of model.json; `details`: its other keys, and `name` where it is not the folder's; `reference`: the
    content of reference.json.
    """
    check_replaceable(folder)
    folder = folder.resolve()  # a link's is replaced where it leads
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle-") as scratch:
        new = Path(scratch) / folder.name
        new.mkdir()
        for each in engines.values():
            shutil.copyfile(each.path, new / each.file)
        rows = {
            name: np.round(values.astype(np.float64), DIGITS).tolist()
            for name, values in self_test.probabilities.items()
        }
        content = {"inputs": list(self_test.inputs), "probabilities": rows, "tolerance": TOLERANCE}
        (new / SELF_TEST).write_text(json.dumps(content) + "\n", encoding="utf-8")
        if reference:
            write_json(new / REFERENCE, reference)
        manifest = {
            "schema": SCHEMA,
            "name": folder.name,
            "classes": list(classes),
            "input": taken,
            "engines": {
                name: {"file": each.file, "precision": each.precision}
                | ({"architecture": each.architecture} if each.architecture else {})
                for name, each in engines.items()
            },
            "files": {path.name: sha256(path) for path in sorted(new.iterdir())},
            "self_test": SELF_TEST,
            "licence": licence,
            "origin": origin,
            **details,
        }
        (new / MODEL_JSON).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in new.iterdir():
            path.chmod(FILE_MODE)
        check_reference(load_bundle(new))
        if folder.exists():
            os.rename(folder, Path(scratch) / f"{folder.name}.old")  # a kill here leaves it whole
        os.rename(new, folder)
