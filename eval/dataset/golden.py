"""The golden sets: what checks a deployment of each model of models/, in eval/golden/MODEL.

Of images, manifest.json lists the files with the model's own answers: they tell whether a deployment computes as the
model does, and no accuracy. Of a tabular model, rows.csv has rows with their true class.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.dataset.image_set import MEDIA_TYPE_BY_SUFFIX, ImageSet, ImageSource, describe_sample
from eval.dataset.rows import ROWS_FILE, load_rows
from eval.dataset.sampling import stratified_sample
from eval.errors import ImagesError
from infra.models import DEFAULT_MODEL
from service.model import Bundle

GOLDEN_DIR = Path(__file__).parent.parent / "golden"
GOLDEN_SOURCE = "golden set (synthetic, bundled)"  # of the default model
GOLDEN_SOURCE_OF = "golden set of {} (bundled)"
ROWS_SOURCE_OF = "rows of {} (bundled)"


def golden_dir(model: str) -> Path:
    """The folder of a model's golden set, which may not be there."""
    return GOLDEN_DIR / model


def is_golden(source: str) -> bool:
    """Whether these are a golden set's images, or a sample of them, which tell no accuracy."""
    return source.startswith("golden set ") and source.partition(";")[0].endswith("bundled)")


def load_golden_set(bundle: Bundle, limit: int | None, seed: int) -> ImageSet:
    """At most `limit` of a model's golden images or rows. Raises ImagesError."""
    folder = golden_dir(bundle.folder.name)
    if (rows := folder / ROWS_FILE).is_file():
        return load_rows(rows, ROWS_SOURCE_OF.format(bundle.name), bundle, limit, seed)
    if not folder.is_dir():
        raise ImagesError(f"{bundle.name} has no golden set in {folder}: give images or rows with --images")
    manifest = _manifest(folder)
    entries = manifest["images"]
    chosen = [entries[index] for index in stratified_sample([entry["label"] for entry in entries], limit, seed)]
    try:
        images = tuple(_source(folder, entry).load() for entry in chosen)
    except OSError as error:
        raise ImagesError(f"cannot read {error.filename}: {error.strerror}; `make golden` writes it again") from None
    for image, entry in zip(images, chosen, strict=True):
        if image.entry.sha256 != entry["sha256"]:
            raise ImagesError(f"{folder / entry['name']} differs from the manifest; `make golden` writes both again")
    is_default = bundle.folder.name == DEFAULT_MODEL
    source = GOLDEN_SOURCE if is_default else GOLDEN_SOURCE_OF.format(bundle.name)
    return ImageSet(
        describe_sample(source, len(chosen), len(entries)),
        bundle.classes,
        images,
        tuple(tuple(entry["probabilities"]) for entry in chosen),
        manifest["model_version"],
        model=bundle.folder.name,
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImagesError(f"cannot read {path}: {error}; `make golden` writes it again") from None


def _source(folder: Path, entry: dict[str, Any]) -> ImageSource:
    path = folder / entry["name"]
    return ImageSource(entry["name"], entry["label"], MEDIA_TYPE_BY_SUFFIX[path.suffix.lower()], path.read_bytes)
