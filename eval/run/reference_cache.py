"""Reference answers of earlier runs, in the user's cache: one JSON line an image, by the image's sha256."""

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
    """The answers of one network on one kind of machine. Lines are only ever appended."""

    path: Path

    def read(self) -> dict[str, Prediction]:
        """Image sha256 -> answer. A line that a kill tore apart counts as not there."""
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
        """Keep one more. A cache that cannot be written is none, and no fault of the run."""
        line = json.dumps({"sha256": sha256, "id": prediction[0], "probabilities": prediction[1]}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            return


def open_reference_cache(cache_dir: Path = CACHE_DIR / "reference") -> ReferenceCache | None:
    """The cache of what the reference process would answer here: weights, PyTorch and processor are part of its name.

    None where the bundle or the settings cannot be read; the process itself then says why.
    """
    try:
        weights = WEIGHTS_OF[REFERENCE_ENGINE]
        bundle = load_bundle(Settings.from_env(os.environ).model_dir, [weights])
        torch_version = version("torch")
    except (BundleError, SettingsError, PackageNotFoundError, OSError):
        return None
    environment_hash = hashlib.sha256(json.dumps([torch_version, processor()]).encode()).hexdigest()[:12]
    return ReferenceCache(cache_dir / f"{bundle.version(weights)}-{environment_hash}.jsonl")
