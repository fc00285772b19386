"""Reference predictions of earlier runs, in the user's cache: one JSON line per image, by its sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from eval.dataset.images import CACHE_DIR
from eval.errors import InvalidInput
from eval.samples.model import MAX_CLASSES, Label
from eval.validation import AtMost, Name, Probability, parse_json, validate
from service.errors import BundleError
from service.model import Bundle, load_bundle, sha256
from service.system import processor

LIBRARY_OF = {"torch": "torch", "onnx": "onnxruntime"}  # that computes an engine's predictions
PRECISION_OF = {"torch": "float32"}  # the engine's reference_options say it, too, but their import is torch's
SERVICE_FOLDER = Path(__file__).resolve().parents[2] / "service"
Prediction = tuple[int, tuple[float, ...]]  # label, probabilities


@dataclass(frozen=True)
class Record:
    """One line of the cache, or of the reference process, which has no sha256."""

    id: Label
    probabilities: Annotated[tuple[Probability, ...], AtMost(MAX_CLASSES)]
    sha256: Name = ""


def parse_record(line: str | bytes, class_count: int) -> tuple[str, Prediction]:
    """The image's sha256, and its prediction. Raises InvalidInput, also for a model with other classes."""
    record = validate(Record, parse_json(line))
    if record.id >= class_count or len(record.probabilities) != class_count:
        raise InvalidInput(f"id {record.id} with {len(record.probabilities)} probabilities, of {class_count} classes")
    return record.sha256, (record.id, record.probabilities)


@dataclass(frozen=True)
class ReferenceCache:
    """The predictions of one model on one kind of machine. Lines are only appended."""

    path: Path

    def read(self, class_count: int) -> dict[str, Prediction]:
        """Image sha256 -> prediction. An incomplete line (of a killed run) is skipped."""
        predictions: dict[str, Prediction] = {}
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(InvalidInput):
                    sha256, prediction = parse_record(line, class_count)
                    predictions[sha256] = prediction
        return predictions

    def append(self, sha256: str, prediction: Prediction) -> None:
        """Append a prediction. An OSError is ignored: the run does not need the cache."""
        line = json.dumps({"sha256": sha256, "id": prediction[0], "probabilities": prediction[1]}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            return


def open_reference_cache(
    bundle: Bundle, engine: str, cache_dir: Path = CACHE_DIR / "reference"
) -> ReferenceCache | None:
    """The cache of the reference process on this machine: named by all that its predictions depend on.

    None if the weights are not those of model.json, or the library is missing; the process itself then reports why.
    """
    file = bundle.engine(engine).file
    try:
        load_bundle(bundle.folder, [file])
        library_version = version(LIBRARY_OF[engine])
    except (BundleError, PackageNotFoundError, OSError):
        return None
    decoding = [sha256(path) for path in sorted((SERVICE_FOLDER / "images").glob("*.py"))]
    environment = [
        library_version, version("pillow"), processor(), PRECISION_OF.get(engine), asdict(bundle.input), decoding
    ]  # fmt: skip
    environment_hash = hashlib.sha256(json.dumps(environment).encode()).hexdigest()[:12]
    return ReferenceCache(cache_dir / f"{bundle.version(file)}-{environment_hash}.jsonl")
