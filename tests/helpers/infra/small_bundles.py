"""A bundle of models/ whose model.json is whole, and whose weights are a few bytes that nothing runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

MODEL_FILES = {"torch": "weights.safetensors", "onnx": "network.onnx"}
PRECISIONS = {"torch": "float16", "onnx": "float32"}
ROWS = {"kind": "tabular", "features": [{"name": "width", "min": 0.0, "max": 1.0}]}
IMAGES = {"kind": "image", "size_px": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


def model_json(name: str, files: Mapping[str, bytes], *, tabular: bool = False) -> bytes:
    """The manifest of these files; each that MODEL_FILES names is an engine's."""
    engines = {}
    for engine, file in MODEL_FILES.items():
        if file in files:
            engines[engine] = {"file": file, "precision": PRECISIONS[engine]}
            engines[engine] |= {"architecture": "resnet18-cifar"} if engine == "torch" else {}
    content = {
        "schema": 2, "name": name, "classes": ["no", "yes"], "input": ROWS if tabular else IMAGES,
        "engines": engines, "files": {key: hashlib.sha256(data).hexdigest() for key, data in files.items()},
        "self_test": "self_test.json", "licence": "Apache-2.0", "origin": "Made for a test.",
    }  # fmt: skip
    return json.dumps(content).encode()


def write_bundle(models: Path, name: str, engines: Mapping[str, bytes], *, tabular: bool = False) -> Path:
    """models/NAME with these engines' bytes, and a self-test. Returns the folder."""
    folder = models / name
    folder.mkdir(parents=True)
    files = {MODEL_FILES[engine]: data for engine, data in engines.items()} | {"self_test.json": b"{}"}
    for file, data in {**files, "model.json": model_json(name, files, tabular=tabular)}.items():
        (folder / file).write_bytes(data)
    return folder
