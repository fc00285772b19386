"""A golden set of photos: what the bundle itself answers for each, to check a deployment.

    ./cloudtrial golden --bundle models/efficientnet-lite0-imagenet --photos DIR --out eval/golden/NAME

DIR holds the photos and provenance.json, which names each photo's source and licence.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import Problem
from service.images.preprocess import decode_image
from service.model import Bundle
from service.schema import PROBABILITY_DIGITS
from training.bundles.onnx_export import run_onnx
from training.errors import DataError
from training.folders import GOLDEN_MANIFEST, golden_files, image_files

PROVENANCE = "provenance.json"


def write_photo_set(bundle: Bundle, photos: Path, out: Path) -> list[tuple[str, str, float]]:
    """Copy the photos and write manifest.json, in place of an earlier set's.

    Returns each name with the bundle's class and its probability. Raises TrainingError, BundleError.
    """
    in_place = photos.resolve() == out.resolve()
    earlier = [] if in_place else golden_files(out)  # raises where something else is there
    paths = image_files(photos)
    try:
        provenance: dict[str, Any] = json.loads((photos / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{photos / PROVENANCE} has to name the source and licence of each photo: {error}") from None
    unknown = [path.name for path in paths if path.name not in provenance]
    if unknown or not paths:
        raise DataError(f"{photos / PROVENANCE} says nothing of {unknown or 'any photo'}")
    file = bundle.engine("onnx").file
    rows = run_onnx(bundle.path(file), np.stack([_decoded(path, bundle) for path in paths]))
    out.mkdir(parents=True, exist_ok=True)
    for name in set(earlier) - {path.name for path in paths}:
        (out / name).unlink(missing_ok=True)
    entries, answers = [], []
    for path, row in zip(paths, rows, strict=True):
        label = int(row.argmax())
        if path.resolve() != (out / path.name).resolve():
            shutil.copyfile(path, out / path.name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        probabilities = [round(float(p), PROBABILITY_DIGITS) for p in row]
        entries.append(
            {"name": path.name, "sha256": digest, "label": label, **provenance[path.name],
             "probabilities": probabilities}
        )  # fmt: skip
        answers.append((path.name, bundle.classes[label], float(row[label])))
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in entries)
    head = f' "classes": {json.dumps(bundle.classes)},\n "model_version": "{bundle.version(file)}",\n'
    (out / GOLDEN_MANIFEST).write_text(f'{{\n{head} "images": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    if not in_place:
        shutil.copyfile(photos / PROVENANCE, out / PROVENANCE)
    return answers


def _decoded(path: Path, bundle: Bundle) -> np.ndarray:
    try:
        return decode_image(path.read_bytes(), bundle)
    except Problem as error:
        raise DataError(f"{path} cannot be read: {error}") from None
