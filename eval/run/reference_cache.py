"""Reference predictions of earlier runs, in the user's cache: one JSON line per image, by its sha256."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from eval.dataset.images import CACHE_DIR
from eval.targets.engines import REFERENCE_ENGINE
from service.errors import BundleError, SettingsError
from service.model import WEIGHTS_OF, load_bundle
from service.settings import Settings
from service.system import processor

Prediction = tuple[int, tuple[float, ...]]  # label, probabilities


@dataclass(frozen=True)
class ReferenceCache:
    """The predictions of one model on one kind of machine. Lines are only appended."""

    path: Path

    def read(self) -> dict[str, Prediction]:
        """Image sha256 -> prediction. An incomplete line (of a killed run) is skipped."""
        predictions: dict[str, Prediction] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return predictions
        for line in lines:
            try:
                entry = json.loads(line)
                predictions[entry["sha256"]] = int(entry["id"]), tuple(map(float, entry["probabilities"]))
            except (ValueError, KeyError, TypeError):
                continue
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


def open_reference_cache(cache_dir: Path = CACHE_DIR / "reference") -> ReferenceCache | None:
    """The cache of the reference process on this machine: its name depends on weights, PyTorch and processor.

    None if the bundle or the settings cannot be read; the process itself then reports why.
    """
    try:
        weights = WEIGHTS_OF[REFERENCE_ENGINE]
        bundle = load_bundle(Settings.from_env(os.environ).model_dir, [weights])
        torch_version = version("torch")
    except (BundleError, SettingsError, PackageNotFoundError, OSError):
        return None
    environment_hash = hashlib.sha256(json.dumps([torch_version, processor()]).encode()).hexdigest()[:12]
    return ReferenceCache(cache_dir / f"{bundle.version(weights)}-{environment_hash}.jsonl")
