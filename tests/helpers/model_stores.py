"""A store's folder, as `store pull --follow` or a mounted bucket leaves it, for a service to follow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from service.model import sha256
from service.store_layout import AliasRecord, alias_dir, record_file, version_dir, version_of


def add_version(root: Path, name: str, bundle: Path) -> str:
    """Copy a bundle into the store: its files first, then model.json."""
    manifest = (bundle / "model.json").read_bytes()
    version = version_of(manifest)
    folder = root / version_dir(name, version)
    folder.mkdir(parents=True, exist_ok=True)
    for file in json.loads(manifest)["files"]:
        if (bundle / file).exists():
            shutil.copyfile(bundle / file, folder / file)
    (folder / "model.json").write_bytes(manifest)
    return version


def point(root: Path, name: str, alias: str, version: str) -> int:
    """Move an alias by one more record, which appears whole. Returns its number."""
    folder = root / alias_dir(name, alias)
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.json"))) + 1
    manifest = root / version_dir(name, version) / "model.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    record = AliasRecord(number, version, digest, None, "2026-11-29T12:00:00+00:00", "a test", "")
    partial = folder / "record.tmp"
    partial.write_text(record.to_json(), encoding="utf-8")
    os.replace(partial, folder / record_file(number))
    return number


def perturbed_copy(bundle: Path, folder: Path, seed: int) -> Path:
    """A bundle again for onnx alone, its file with other biases: another version, whose answers differ a little."""
    folder.mkdir(parents=True)
    manifest = json.loads((bundle / "model.json").read_bytes())
    (name,) = (file for file in manifest["files"] if file.endswith(".onnx"))
    shutil.copyfile(bundle / "self_test.json", folder / "self_test.json")
    model = onnx.load(bundle / name)
    last = max((each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT), key=_size)
    values = numpy_helper.to_array(last)
    moved = values * (1 + np.random.default_rng(seed).normal(0, 1e-4, values.shape)).astype(np.float32)
    last.CopyFrom(numpy_helper.from_array(moved, last.name))
    onnx.save(model, folder / name)
    manifest["files"] = {file: sha256(folder / file) for file in manifest["files"] if (folder / file).exists()}
    if "engines" in manifest:
        manifest["engines"] = {engine: own for engine, own in manifest["engines"].items() if own["file"] == name}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _size(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims))
