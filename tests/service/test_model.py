"""service/model.py: which of a bundle's files are checked, and how it says what is missing."""

from __future__ import annotations

import hashlib
import json

import pytest

from service.engines import engine_class
from service.errors import BundleError
from service.model import WEIGHTS_OF, load_bundle
from service.settings import ENGINES, Settings

FILES = {"weights.safetensors": b"floats", "int8.onnx": b"integers"}


@pytest.fixture
def folder(tmp_path):
    """A bundle with a file for each engine."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    manifest = {
        "name": "net",
        "architecture": "any",
        "classes": ["a", "b"],
        "input": {"size_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
    }
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_bytes(b"x")], ids=["missing", "changed"])
def test_a_deployment_needs_its_own_engines_file_and_no_other(folder, spoil):
    spoil(folder / "weights.safetensors")
    bundle = load_bundle(folder, ["int8.onnx"])
    assert bundle.path("int8.onnx").read_bytes() == b"integers"
    for needed in (None, ["weights.safetensors"]):
        with pytest.raises(BundleError, match=r"weights\.safetensors (is missing|has sha256)"):
            load_bundle(folder, needed)


def test_missing_file_is_named_with_the_command_that_writes_it(folder):
    facts = json.loads((folder / "model.json").read_text())
    del facts["files"]["int8.onnx"]
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"lists no file 'int8\.onnx', only \['weights.*make export"):
        load_bundle(folder, ["int8.onnx"])


def test_engine_names_and_files_match_the_bundle():
    classes = [engine_class(name) for name in ENGINES]
    assert {made.name: made.weights for made in classes} == WEIGHTS_OF
    assert Settings.engine in ENGINES
