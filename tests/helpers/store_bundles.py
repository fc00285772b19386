"""Bundles for tests of the store, which reads no network: their files hold a few bytes, and the checksums are right."""

from __future__ import annotations

import json
from pathlib import Path

from service.model import sha256


def plain_bundle(folder: Path, content: str = "weights", name: str = "tiny", more_bytes: int = 0) -> Path:
    """A bundle of a model of rows; another content makes another version."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content.encode() + b"\0" * more_bytes)
    (folder / "self_test.json").write_text("{}", encoding="utf-8")
    manifest = {
        "schema": 2,
        "name": name,
        "classes": ["low", "high"],
        "input": {"kind": "tabular", "features": [{"name": "width", "min": 0, "max": 10}]},
        "engines": {"onnx": {"file": "model.onnx", "precision": "float32"}},
        "files": {file: sha256(folder / file) for file in ("model.onnx", "self_test.json")},
        "self_test": "self_test.json",
        "licence": "Apache-2.0",
        "origin": "made up for a test",
        "metrics": {"test": {"accuracy": 0.9, "low": 0.8, "high": 0.95, "n": 50, "data": "rows made up"}},
    }
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
