"""A reference.json for a small bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.model import sha256
from service.monitoring.inputs import LIGHT
from service.monitoring.reference import REFERENCE

UNIFORM = {"bounds": [0.25, 0.5, 0.75], "shares": [0.25, 0.5, 0.75]}


def reference_json(classes: int, inputs: Sequence[str] = LIGHT, **changes: Any) -> dict[str, Any]:
    """Made up."""
    answers: dict[str, Any] = {"labels": [1 / classes] * classes, "accuracy": 0.9, "confidence_mean": 0.8}
    answers |= {"confidence": UNIFORM, "margin": UNIFORM}
    content: dict[str, Any] = {"schema": 1, "data": "made up", "count": 1000, "inputs": dict.fromkeys(inputs, UNIFORM)}
    return content | {"answers": {"onnx": answers}} | changes


def add_reference(folder: Path, content: object) -> Path:
    """Put a reference.json into a bundle."""
    (folder / REFERENCE).write_text(json.dumps(content), encoding="utf-8")
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    manifest["files"][REFERENCE] = sha256(folder / REFERENCE)
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
