"""The onnx engine: the same answers as torch from the same weights, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from infra.local.staging import stage
from service.engines import engine_class, onnx_engine
from service.engines.onnx_engine import OnnxEngine
from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.errors import BundleError, SettingsError
from service.images.preprocess import decode_image
from service.lifecycle.served_model import SAMPLES
from service.model import load_bundle, sha256
from tests.conftest import ROOT
from tests.helpers.resnet_bundles import random_network, write_resnet
from tests.helpers.running_service import ready_service
from training.bundles.onnx_export import write_float32

pytestmark = pytest.mark.integration

# Of the 100 golden pictures, as the reference has them; 8-bit integers turn a few that are between two classes.
GOLDEN_AGREEMENT, GOLDEN_DIFFERENCE = 0.95, 0.25


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 32, 32), np.float32)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> bytes:
    """A random network as an ONNX file."""
    path = tmp_path_factory.mktemp("graph") / "float32.onnx"
    write_float32(random_network(), 32, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(graph, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bundle")
    return write_resnet(root / "random", random_network().state_dict(), root, graph)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_engine_answers_as_torch_does_from_the_same_weights(folder, count):
    bundle = load_bundle(folder)
    found = OnnxEngine(bundle).probabilities(inputs(count))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TorchEngine(bundle, "float32").probabilities(inputs(count)), atol=1e-5)


def test_threads_follow_the_processs_cores_not_the_hosts(folder, monkeypatch):
    monkeypatch.setattr(onnx_engine, "usable_cpus", lambda: 3)
    engine = OnnxEngine(load_bundle(folder))
    assert engine.details["threads"] == 3
    assert engine._session.get_session_options().intra_op_num_threads == 3


def test_it_brings_in_no_torch_and_nothing_of_the_export(folder):
    code = "import sys; from service.engines import engine_class; engine_class('onnx'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded and not loaded & {"torch", "safetensors", "onnx", "scipy", "google.protobuf"}


def test_engine_without_its_library_is_refused_in_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "service.engines.onnx_engine")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match="ENGINE is 'onnx', and onnxruntime is not installed here"):
        engine_class("onnx")


def fixed_batch(model):
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def another_name(model):
    (first,) = [node for node in model.graph.node if model.graph.input[0].name in node.input]
    model.graph.input[0].name = first.input[0] = "pixels"
    return model


def fewer_classes(model):
    weights = {each.name: each for each in model.graph.initializer}
    (last,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    for name in last.input[1:]:
        weights[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[name])[:9], name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(fewer_classes, r"output probabilities .* 9\], not .*\['N', 10\]", id="classes"),
        pytest.param(fixed_batch, r"input images .* \[1, 3, 32, 32\], not .*\['N', 3, 32, 32\]", id="batch"),
        pytest.param(another_name, "input pixels", id="input"),
    ],
)
def test_a_graph_that_does_not_fit_the_bundle_is_refused(change, says, graph, tmp_path):
    changed = change(onnx.load_from_string(graph)).SerializeToString()
    bundle = load_bundle(write_resnet(tmp_path / "random", random_network().state_dict(), tmp_path, changed))
    with pytest.raises(BundleError, match=says) as caught:
        OnnxEngine(bundle)
    assert "make export" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle?", b"\x08\x07"], ids=["empty", "other", "no-graph"])
def test_a_file_that_is_no_onnx_is_refused_in_one_line(content, tmp_path):
    bundle = load_bundle(write_resnet(tmp_path / "random", {"any": torch.zeros(1)}, tmp_path, content))
    with pytest.raises(BundleError, match=r"cannot be run as an ONNX file.*make export") as caught:
        OnnxEngine(bundle)
    assert "\n" not in str(caught.value)


# The shipped file


def test_shipped_engine_nearly_matches_the_golden_reference(bundle_dir, golden_dir):
    bundle = load_bundle(bundle_dir, ["int8.onnx"])
    manifest = json.loads((golden_dir / "manifest.json").read_text())
    pictures = [decode_image((golden_dir / entry["name"]).read_bytes(), bundle) for entry in manifest["images"]]
    found = OnnxEngine(bundle).probabilities(np.stack(pictures))
    reference = np.array([entry["probabilities"] for entry in manifest["images"]])
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert (found.argmax(1) == reference.argmax(1)).mean() >= GOLDEN_AGREEMENT
    assert np.abs(found - reference).max() <= GOLDEN_DIFFERENCE


def test_the_pages_samples_are_golden_and_named_rightly(bundle_dir, golden_dir):
    bundle = load_bundle(bundle_dir, ["int8.onnx"])
    golden = {path.read_bytes(): path.stem.partition("-")[2] for path in golden_dir.glob("*.png")}
    samples = {path.stem: path.read_bytes() for path in SAMPLES.glob("*.png")}
    assert len(samples) == 5
    assert [golden[data] for data in samples.values()] == list(samples)
    found = OnnxEngine(bundle).probabilities(np.stack([decode_image(data, bundle) for data in samples.values()]))
    assert [bundle.classes[i] for i in found.argmax(1)] == list(samples)


def test_onnx_deployment_serves_without_any_torch_file(tmp_path, png):
    root = stage(tmp_path / "app", "onnx")
    model = root / "models" / "resnet18-cifar10"
    assert not (model / WEIGHTS).exists()
    with ready_service(tmp_path / "log", ENGINE="onnx", MODEL_DIR=str(model)) as server:
        reply = server.post("/predict", png, "image/png")
        assert reply.status == 200 and reply.json["model"]["engine"] == "onnx"
        assert reply.json["model"]["version"] == sha256(model / "int8.onnx")[:12]
        assert "onnxruntime" in server.get("/version").json["versions"]
        worker = next(iter(Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()))
        assert "libtorch" not in Path(f"/proc/{worker}/maps").read_text()
