"""service/model.py: which of a bundle's files are checked, and how it says what is missing."""

from __future__ import annotations

import hashlib
import json

import pytest

from service.errors import BundleError
from service.manifest.records import EngineFile, Feature, ImageInput, TabularInput
from service.model import load_bundle, load_for_engine

FILES = {"weights.safetensors": b"floats", "int8.onnx": b"integers", "self_test.json": b"{}"}
ONNX_ONLY = {"onnx": {"file": "int8.onnx", "precision": "int8"}}
ROWS = {
    "kind": "tabular",
    "features": [{"name": "length (cm)", "min": 4, "max": 7.9}, {"name": "<b>breite</b> µm", "min": -1, "max": -1}],
}


@pytest.fixture
def folder(tmp_path):
    """A bundle with a file for each engine."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    manifest = {
        "schema": 2,
        "name": "net",
        "classes": ["a", "b"],
        "input": {"kind": "image", "size_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
        "engines": {
            "torch": {"file": "weights.safetensors", "precision": "float16", "architecture": "any"},
            "onnx": {"file": "int8.onnx", "precision": "int8"},
        },
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
        "self_test": "self_test.json",
        "licence": "MIT",
        "origin": "made up",
    }
    (tmp_path / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return tmp_path


def changed(folder, *without, **values):
    """The bundle with other values in its model.json."""
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8")) | values
    manifest = {key: value for key, value in manifest.items() if key not in without}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def first_schema(folder):
    """The same bundle as the first schema has it."""
    shape = {"size_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    return changed(folder, "schema", "engines", "self_test", "licence", "origin", architecture="any", input=shape)


def test_both_schemas_name_the_same_engines_and_input(folder):
    second = load_bundle(folder)
    first = load_bundle(first_schema(folder))
    assert (first.engines, first.input, first.classes) == (second.engines, second.input, second.classes)
    assert first.engines["torch"] == EngineFile("weights.safetensors", "float16", "any")
    assert first.input == ImageInput(32, 32, (0.5,) * 3, (0.25,) * 3)
    assert (first.self_test, first.licence, second.self_test, second.licence) == (None, None, "self_test.json", "MIT")


def test_an_image_may_be_resized_to_more_than_its_square(folder):
    shape = {"kind": "image", "size_px": 224, "resize_px": 256, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert load_bundle(changed(folder, input=shape)).image.resize_px == 256


def test_rows_have_named_features_with_ranges(folder):
    bundle = load_bundle(changed(folder, input=ROWS))
    assert bundle.input == TabularInput((Feature("length (cm)", 4, 7.9), Feature("<b>breite</b> µm", -1, -1)))
    with pytest.raises(BundleError, match="net takes rows of 2 numbers, not images"):
        bundle.image  # noqa: B018  # reading it raises


def test_a_deployment_has_what_belongs_to_no_other_engine(folder):
    bundle = load_bundle(folder)
    assert bundle.files_for("onnx") == ["int8.onnx", "self_test.json"]
    assert bundle.files_for("torch") == ["weights.safetensors", "self_test.json"]


def test_an_engine_without_a_file_is_refused_with_those_it_has(folder):
    with pytest.raises(BundleError, match=r"no file for the engine 'torch', only for: onnx; set ENGINE to one of"):
        load_for_engine(changed(folder, engines=ONNX_ONLY), "torch")


@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_bytes(b"x")], ids=["missing", "changed"])
def test_a_deployment_needs_its_own_engines_file_and_no_other(folder, spoil):
    spoil(folder / "weights.safetensors")
    bundle = load_for_engine(folder, "onnx")
    assert bundle.path("int8.onnx").read_bytes() == b"integers"
    for load in (lambda: load_bundle(folder), lambda: load_for_engine(folder, "torch")):
        with pytest.raises(BundleError, match=r"weights\.safetensors (is missing|has sha256)"):
            load()


WRONG_VALUES = [
    ("name", None),
    ("name", "x" * 101),
    ("name", "net\x1b[2J"),
    ("schema", 3),
    ("schema", True),
    ("schema", "2"),
    ("classes", "ab"),
    ("classes", []),
    ("classes", ["a", "a"]),
    ("classes", ["a", "b\n"]),
    ("classes", ["a", 2]),
    ("classes", [f"class {i}" for i in range(10_001)]),
    ("input.kind", "text"),
    ("input.resize_px", 31),
    ("input.resize_px", 1025),
    ("engines", {}),
    ("engines", {"jax": {}}),
    ("engines.onnx", {"file": "../int8.onnx", "precision": "int8"}),
    ("engines.onnx.file", ["int8.onnx"]),
    ("engines.onnx.precision", "int4"),
    ("engines.torch.architecture", None),
    ("self_test", "other.json"),
    ("licence", None),
    ("origin", "x" * 1001),
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
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    *holders, name = key.split(".")
    holder = manifest
    for each in holders:
        holder = holder[each]
    holder[name] = value
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError) as error:
        load_bundle(folder, ["int8.onnx"])
    wrong, says = ("engines.onnx.file", "../int8.onnx") if key == "engines.onnx" else (key, value)
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
    files = json.loads((folder / "model.json").read_text(encoding="utf-8"))["files"]
    del files["int8.onnx"]
    changed(first_schema(folder), files=files)
    with pytest.raises(BundleError, match=r"lists no file 'int8\.onnx', only \['self_test.*make export"):
        load_bundle(folder, ["int8.onnx"])


WRONG_FEATURES = [
    [],
    [{"min": 0, "max": 1}],
    [{"name": "a\n", "min": 0, "max": 1}],
    [{"name": "a", "min": 1, "max": 0}],
    [{"name": "a", "min": float("nan"), "max": 0}],
    [{"name": "a", "min": 0, "max": True}],
    [{"name": "a", "min": 0, "max": 10**400}],
    [{"name": "a", "min": 0, "max": 1}] * 2,
    [{"name": str(i), "min": 0, "max": 1} for i in range(1001)],
]


@pytest.mark.parametrize("features", WRONG_FEATURES, ids=range(len(WRONG_FEATURES)))
def test_features_that_cannot_be_used_are_refused(folder, features):
    with pytest.raises(BundleError, match=r"input\.features is .*; it has to be 1 to 1000 objects with"):
        load_bundle(changed(folder, input={"kind": "tabular", "features": features}), [])


def test_the_shipped_model_says_what_its_files_are(bundle_dir):
    bundle = load_bundle(bundle_dir)
    assert {engine: file.precision for engine, file in bundle.engines.items()} == {"torch": "float16", "onnx": "int8"}
    assert bundle.licence == "Apache-2.0" and bundle.origin
