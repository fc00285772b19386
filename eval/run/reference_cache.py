"""Reference answers of earlier runs, in the user's cache: one JSON line an image, by the image's sha256."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from eval.dataset.images import CACHE
from eval.targets.engines import REFERENCE_ENGINE
from service.machine import processor
from service.model import WEIGHTS_OF, BundleError, load_bundle
from service.settings import Settings, SettingsError

Answer = tuple[int, tuple[float, ...]]  # label, probabilities


@dataclass(frozen=True)
class ReferenceCache:
    """The answers of one network on one kind of machine. Lines are only ever appended."""

    path: Path

    def read(self) -> dict[str, Answer]:
        """Image sha256 -> answer. A line that a kill tore apart counts as not there."""
        answers: dict[str, Answer] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return answers
        for line in lines:
            try:
                row = json.loads(line)
                answers[row["sha256"]] = int(row["id"]), tuple(map(float, row["probabilities"]))
            except (ValueError, KeyError, TypeError):
                continue
        return answers

    def append(self, sha256: str, answer: Answer) -> None:
        """Keep one more. A cache that cannot be written is none, and no fault of the run."""
        line = json.dumps({"sha256": sha256, "id": answer[0], "probabilities": answer[1]}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            return


def reference_cache(folder: Path = CACHE / "reference") -> ReferenceCache | None:
    """The cache of what the reference process would answer here: weights, PyTorch and processor are part of its name.

    None where the bundle or the settings cannot be read; the process itself then says why.
    """
    try:
        weights = WEIGHTS_OF[REFERENCE_ENGINE]
        bundle = load_bundle(Settings.from_env(os.environ).model_dir, [weights])
        torch = version("torch")
    except (BundleError, SettingsError, PackageNotFoundError, OSError):
        return None
    machine = hashlib.sha256(json.dumps([torch, processor()]).encode()).hexdigest()[:12]
    return ReferenceCache(folder / f"{bundle.version(weights)}-{machine}.jsonl")
