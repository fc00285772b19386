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
from safetensors.numpy import load_file, save_file

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


def perturbed_copy(bundle: Path, folder: Path, seed: int, engine: str = "onnx") -> Path:
    """A bundle again for one engine, its file with other weights: another version, whose answers differ a little."""
    folder.mkdir(parents=True)
    manifest = json.loads((bundle / "model.json").read_bytes())
    own = manifest["engines"][engine]
    names = {own["file"], manifest["self_test"]}
    shutil.copyfile(bundle / manifest["self_test"], folder / manifest["self_test"])
    perturb = _perturbed_onnx if engine == "onnx" else _perturbed_safetensors
    perturb(bundle / own["file"], folder / own["file"], np.random.default_rng(seed))
    manifest |= {"engines": {engine: own}, "files": {name: sha256(folder / name) for name in sorted(names)}}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _perturbed_onnx(source: Path, copy: Path, rng: np.random.Generator) -> None:
    model = onnx.load(source)
    floats = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    largest = max(floats, key=lambda tensor: int(np.prod(tensor.dims)))
    largest.CopyFrom(numpy_helper.from_array(_perturbed(numpy_helper.to_array(largest), rng), largest.name))
    onnx.save(model, copy)


def _perturbed_safetensors(source: Path, copy: Path, rng: np.random.Generator) -> None:
    tensors = load_file(source)
    tensors["fc.weight"] = _perturbed(tensors["fc.weight"], rng)
    save_file(tensors, copy)


def _perturbed(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (values * (1 + rng.normal(0, 1e-3, values.shape))).astype(values.dtype)
