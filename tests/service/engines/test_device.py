"""DEVICE: what an engine runs on, by what its library finds."""

from __future__ import annotations

import numpy as np
import pytest

from service.classifier import Classifier
from service.engines import onnx_engine
from service.engines.device import choose_device
from service.engines.onnx_engine import OnnxEngine
from service.errors import SettingsError
from service.model import load_bundle
from service.settings import ENGINES, Settings
from tests.helpers.bundles import write_bundle

NO_GPU = "DEVICE is 'cuda', and {} finds no GPU: install its CUDA build"


@pytest.mark.parametrize(
    ("wanted", "gpu", "device"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
    ],
)
def test_a_gpu_is_used_where_there_is_one_and_it_may_be(wanted, gpu, device):
    assert choose_device(wanted, lambda: gpu, "torch") == device


def test_nothing_looks_for_a_gpu_where_none_may_be_used():
    assert choose_device("cpu", lambda: pytest.fail("looked"), "torch") == "cpu"


@pytest.mark.integration
@pytest.mark.parametrize("engine", ENGINES)
def test_a_start_that_wants_a_gpu_ends_without_one(engine):
    library = {"torch": "torch", "onnx": "onnxruntime"}[engine]
    with pytest.raises(SettingsError, match=NO_GPU.format(library)):
        Classifier.load(Settings(engine=engine, device="cuda"))


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
def test_onnx_on_the_processor_after_all_says_so(tmp_path, monkeypatch):
    """As onnxruntime-gpu does without CUDA's libraries: it finds a GPU, and runs on the processor."""
    monkeypatch.setattr(onnx_engine, "finds_gpu", lambda: True)
    bundle = load_bundle(write_bundle(tmp_path, ["dark", "bright"]))
    engine = OnnxEngine(bundle, device="auto")
    assert engine.device == "cpu"
    assert engine.probabilities(np.zeros((3, 3, 8, 8), np.float32)).argmax(1).tolist() == [0, 0, 0]
    with pytest.raises(SettingsError, match=NO_GPU.format("onnxruntime")):
        OnnxEngine(bundle, device="cuda")
