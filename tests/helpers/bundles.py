"""Model bundles for tests: tiny ones with a real ONNX file, and one in memory for an engine of the test's own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.manifest.records import EngineFile, ImageInput
from service.model import Bundle, sha256

OPSET, IR_VERSION = 17, 8


def bundle_in_memory(classes: str = "abcdef", mean: float = 0.5, std: float = 0.5, size_px: int = 32) -> Bundle:
    """An image bundle without files, for an engine named "test"; a class for each letter."""
    return Bundle(
        folder=Path(),
        name="test",
        classes=tuple(classes),
        input=ImageInput(size_px, size_px, (mean,) * 3, (std,) * 3),
        engines={"test": EngineFile("weights", "float32")},
        files={"weights": "0123456789abcdef" * 4},
    )


def write_bundle(
    folder: Path,
    classes: Sequence[str],
    *,
    features: Sequence[str] = (),
    size_px: int = 8,
    weight: float = 20.0,
    name: str = "tiny",
    self_test: dict[str, Any] | None = None,
) -> Path:
    """A bundle of schema 2 for onnx, of images or of rows with these features, each from 0 to 10 in training.

    It takes the mean of its input, from 0 for a black image or a row of zeros to 1 for a white image or a row of tens,
    and answers with the class at that place among the classes: the first is darkest or smallest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_network(len(classes), len(features), size_px, weight), folder / "float32.onnx")
    answers = np.eye(len(classes))[[0, -1]].tolist()  # of black and white, or of rows of zeros and of tens
    rows = [[0.0] * len(features), [10.0] * len(features)]
    inputs = rows if features else [_base64(one_coloured(grey)) for grey in (0, 255)]
    test = self_test or {"inputs": inputs, "probabilities": {"onnx": answers}, "tolerance": 0.05}
    (folder / "self_test.json").write_text(json.dumps(test), encoding="utf-8")
    image = {"kind": "image", "size_px": size_px, "mean": [0.0] * 3, "std": [1.0] * 3}
    table = {"kind": "tabular", "features": [{"name": each, "min": 0, "max": 10} for each in features]}
    manifest = {
        "schema": 2,
        "name": name,
        "classes": list(classes),
        "input": table if features else image,
        "engines": {"onnx": {"file": "float32.onnx", "precision": "float32"}},
        "files": {file: sha256(folder / file) for file in ("float32.onnx", "self_test.json")},
        "self_test": "self_test.json",
        "licence": "Apache-2.0",
        "origin": "made up for a test",
    }
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def fail_when_run(folder: Path) -> Path:
    """Give a bundle a network that loads, and that no input goes through: it gathers the thousandth of its channels."""
    file = folder / "float32.onnx"
    network = onnx.load(file)
    network.graph.initializer.append(numpy_helper.from_array(np.array([1000], np.int64), "channel"))
    first = network.graph.node[0]
    network.graph.node.insert(0, helper.make_node("Gather", [first.input[0], "channel"], ["gathered"], axis=1))
    network.graph.node[1].input[0] = "gathered"
    onnx.save(network, file)
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    manifest["files"][file.name] = sha256(file)
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _network(classes: int, features: int, size_px: int, weight: float) -> onnx.ModelProto:
    """Scores fall with the square of the distance between the input's mean and each class's place from 0 to 1."""
    name, shape = ("features", [features]) if features else ("images", [3, size_px, size_px])
    places = np.linspace(0, 1, classes, dtype=np.float32)[None]
    sharpness = weight * max(1, classes - 1) ** 2  # a neighbour's probability is exp(-weight)
    constants = {
        "slope": np.float32(2 * sharpness) * places / (10 if features else 1),
        "offset": np.float32(-sharpness) * places**2,
    }
    nodes = [
        helper.make_node("Flatten", [name], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def one_coloured(value: int, size_px: int = 4) -> bytes:
    """A grey PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (size_px, size_px), (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
