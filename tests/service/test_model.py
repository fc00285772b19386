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


WRONG_VALUES = [
    ("name", None),
    ("name", "x" * 101),
    ("name", "net\x1b[2J"),
    ("architecture", 18),
    ("classes", "ab"),
    ("classes", []),
    ("classes", ["a", "a"]),
    ("classes", ["a", "b\n"]),
    ("classes", ["a", 2]),
    ("classes", [f"class {i}" for i in range(10_001)]),
    ("input", [32]),
    ("input.size_px", 0),
    ("input.size_px", 32.0),
    ("input.size_px", True),
    ("input.size_px", 10**400),
    ("input.mean", [0.5]),
    ("input.mean", [0.5, 0.5, float("nan")]),
    ("input.mean", [0.5, 0.5, "0.5"]),
    ("input.mean", [0.5, 0.5, 10**400]),
    ("input.std", [0.25, 0.25, 0]),
    ("input.std", [0.25, 0.25, -1]),
    ("input.std", [0.25, 0.25, 1e-320]),
    ("input.std", 0.25),
    ("files", ["int8.onnx"]),
    ("files", {"int8.onnx": "abc"}),
    ("files", {"../int8.onnx": "0" * 64}),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES, ids=[f"{key}-{i}" for i, (key, _) in enumerate(WRONG_VALUES)])
def test_a_wrong_value_is_named_with_its_file_and_key(folder, key, value):
    manifest = json.loads((folder / "model.json").read_text())
    holder, name = (manifest["input"], key.removeprefix("input.")) if "." in key else (manifest, key)
    holder[name] = value
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as error:
        load_bundle(folder, ["int8.onnx"])
    wrong, says = ("input.size_px", None) if key == "input" else (key, value)
    assert str(error.value).startswith(f"{folder / 'model.json'}: {wrong} is {ascii(says)[:200]}; it has to be ")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[1]", "has to hold a JSON object"),
        (b" " * 2**20 + b"{}", "of at most 1048576 bytes"),
    ],
    ids=["cut", "bytes", "deep", "list", "long"],
)
def test_what_is_no_manifest_is_one_line(folder, text, says):
    (folder / "model.json").write_bytes(text)
    with pytest.raises(BundleError, match=says) as error:
        load_bundle(folder)
    assert "\n" not in str(error.value)


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
