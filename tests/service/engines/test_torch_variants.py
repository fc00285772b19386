"""The variants that the torch engine chooses from: each is the same network, and the choice follows the processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from eval.run.reference_cache import PRECISION_OF
from service.engines import engine_class, load_reference_engine, precision, torch_engine
from service.engines.fused import FusedConvolution, FusedResNet18
from service.engines.precision import PRECISIONS, probe_precision, usable_precisions
from service.engines.torch_engine import LayeredResNet18, TorchEngine, autotune, fold_batch_norm, load_network
from service.images.preprocess import decode_image
from service.model import load_bundle
from service.settings import ENGINES, ROOT

pytestmark = pytest.mark.integration

BUNDLE = ROOT / "models" / "resnet18-cifar10"
GOLDEN = ROOT / "eval" / "golden" / "resnet18-cifar10"
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03}  # of a probability
# What no test here computes with on this processor; the log says so in this line
TESTS_LEFT_OUT = "; ".join(
    f"no tests of {name}, which is {probe_precision(name).reason.partition(':')[0]} on this processor"
    for name in PRECISIONS
    if name not in usable_precisions()
)
LAYERED = {name: lambda net, bundle, dtype=dtype: LayeredResNet18(net, dtype) for name, dtype in PRECISIONS.items()}
FUSED = {
    name: lambda net, bundle, dtype=dtype: FusedResNet18(net, dtype, bundle.image.size_px)
    for name, dtype in PRECISIONS.items()
}
# As on a processor that knows no vector instructions younger than 2008, whatever this one knows
SSE41 = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(BUNDLE)


@pytest.fixture(scope="module")
def net(bundle):
    net = load_network(bundle)
    fold_batch_norm(net)
    return net


@pytest.fixture(scope="module")
def golden(bundle):
    return np.stack([decode_image(path.read_bytes(), bundle) for path in sorted(GOLDEN.glob("*.png"))])


@pytest.mark.parametrize("make", [LAYERED, FUSED], ids=["layered", "fused"])
@pytest.mark.parametrize("count", [1, 3, 17])
def test_every_variant_is_the_network_that_was_trained(bundle, net, make, count):
    """In each precision that a trial finds usable: never a parameter, as several test processes may find otherwise."""
    inputs = torch.from_numpy(np.random.default_rng(count).standard_normal((count, 3, 32, 32), np.float32))
    with torch.inference_mode():
        expected = load_network(bundle)(inputs).softmax(1)
        for name in usable_precisions():
            found = make[name](net, bundle)(inputs).softmax(1)
            assert found.dtype == torch.float32, name
            np.testing.assert_allclose(found, expected, atol=TOLERANCE[name], err_msg=name)


def test_an_answer_does_not_depend_on_what_was_asked_before(bundle):
    """Fused additions write over their inputs; none of that may reach the caller's arrays or the next answer."""
    engine = TorchEngine(bundle)
    one, other = np.random.default_rng(1).standard_normal((2, 2, 3, 32, 32), np.float32)
    kept = one.copy()
    first = engine.probabilities(one)
    engine.probabilities(other)
    np.testing.assert_array_equal(one, kept)
    np.testing.assert_array_equal(engine.probabilities(one), first)


@pytest.mark.parametrize(
    ("float32_ms", "bfloat16_ms", "usable", "reason"),
    [
        pytest.param(1.0, 0.5, True, "a convolution takes 0.50 ms, 1.00 ms in float32", id="in hardware"),
        pytest.param(1.0, 7.0, False, "emulated or too slow: a convolution takes 7.00 ms", id="emulated"),
        pytest.param(1.0, 0.9, False, "emulated or too slow", id="within noise"),
        pytest.param(1.0, RuntimeError("no such kernel\nat 0x7f"), False, "refused: no such kernel", id="refused"),
    ],
)
def test_a_precision_is_used_where_a_trial_shows_that_it_pays(monkeypatch, float32_ms, bfloat16_ms, usable, reason):
    def convolution_ms(dtype: torch.dtype) -> float:
        found = float32_ms if dtype == torch.float32 else bfloat16_ms
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(precision, "_convolution_ms", convolution_ms)
    found = probe_precision.__wrapped__("bfloat16")
    assert found.usable == usable
    assert reason in found.reason and "\n" not in found.reason


@pytest.mark.parametrize(
    ("times_ms", "taken"),
    [([10, 5], "bfloat16"), ([10, 9.9], "float32"), ([10, 12], "float32")],
    ids=["clearly faster", "within noise", "slower"],
)
def test_fastest_precision_is_chosen_and_noise_decides_nothing(monkeypatch, net, times_ms, taken):
    clock = iter(times_ms)
    monkeypatch.setattr(torch_engine, "time_variant", lambda variant, images: next(clock))
    _, trial = autotune(net, ["float32", "bfloat16"], 32)
    assert trial.precision == taken
    assert list(trial.trial_ms.values()) == times_ms


def test_reference_is_float32_where_bfloat16_is_faster(monkeypatch, bundle):
    monkeypatch.setattr(torch_engine, "_trials", {})
    monkeypatch.setattr(torch_engine, "usable_precisions", lambda: ["bfloat16"])
    assert str(TorchEngine(bundle).details["form"]).startswith("bfloat16")
    assert str(load_reference_engine("torch", bundle).details["form"]).startswith("float32")


def test_a_kept_reference_is_named_by_its_precision():
    """By that of the engine, which the name of the file may not import."""
    options = {name: engine_class(name).reference_options for name in ENGINES}
    assert options == {name: {"precision": PRECISION_OF[name]} if name in PRECISION_OF else {} for name in ENGINES}


def test_later_engine_takes_what_the_first_measured(bundle, golden, monkeypatch):
    """It is loaded while that one answers: no trial, and no second team of threads."""
    first, threads, asked = TorchEngine(bundle), torch.get_num_threads(), []

    def counted(net, precisions, size_px):
        asked.append((list(precisions), torch.get_num_threads()))
        return autotune(net, precisions, size_px)

    def no_trial(variant, images):
        raise AssertionError("measured again")

    monkeypatch.setattr(torch_engine, "autotune", counted)
    monkeypatch.setattr(torch_engine, "time_variant", no_trial)
    later = TorchEngine(bundle)
    assert asked == [([str(first.details["form"]).partition(",")[0]], 1)]
    assert torch.get_num_threads() == threads
    assert later.details == first.details
    np.testing.assert_array_equal(later.probabilities(golden[:10]), first.probabilities(golden[:10]))


def test_requested_precision_predicts_correctly_on_any_processor(bundle, golden):
    """Where oneDNN refuses to fuse in that precision, the network runs layer by layer, and /version says so."""
    engine = TorchEngine(bundle, "bfloat16")
    exact = TorchEngine(bundle, "float32").probabilities(golden[:10])
    np.testing.assert_allclose(engine.probabilities(golden[:10]), exact, atol=TOLERANCE["bfloat16"])
    fused = engine.details["form"] == "bfloat16, fused by oneDNN"
    assert fused == ("refused" not in engine.details)


def remove_operator(monkeypatch):
    class NoOperators:
        pass

    monkeypatch.setattr("service.engines.fused.operators", NoOperators())


def refuse_to_run(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("bf16 path needs the cpu support avx_ne_convert or avx512bw")

    monkeypatch.setattr(FusedConvolution, "added_to", refuse)


def answer_wrongly(monkeypatch):
    monkeypatch.setattr(FusedConvolution, "added_to", lambda self, base, x: base)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(remove_operator, "no attribute", id="missing"),
        pytest.param(refuse_to_run, "bf16 path needs the cpu support", id="refused"),
        pytest.param(answer_wrongly, "away from the plain network's", id="wrong"),
    ],
)
def test_a_fused_operator_that_does_not_work_is_not_used(monkeypatch, bundle, golden, fault, reason):
    exact = TorchEngine(bundle, "float32").probabilities(golden[:10])
    fault(monkeypatch)
    engine = TorchEngine(bundle, "float32")
    assert engine.details["form"] == "float32, layer by layer"
    assert reason in engine.details["refused"]["float32, fused by oneDNN"]
    np.testing.assert_allclose(engine.probabilities(golden[:10]), exact, atol=1e-5)


def test_chosen_variant_labels_golden_images_as_float32_does(bundle, golden):
    engine = TorchEngine(bundle)
    chosen, exact = engine.probabilities(golden), TorchEngine(bundle, "float32").probabilities(golden)
    assert (chosen.argmax(1) == exact.argmax(1)).mean() >= 0.99
    np.testing.assert_allclose(chosen, exact, atol=TOLERANCE["bfloat16"])
    assert engine.details["precisions"] == {name: probe_precision(name).reason for name in PRECISIONS}


LESSER_PROCESSOR = """
import torch
from service.engines.fused import FusedConvolution
from service.engines.precision import usable_precisions
from training.train import has_fast_bfloat16
print(usable_precisions(), has_fast_bfloat16(torch.device("cpu")))
try:
    FusedConvolution(torch.nn.Conv2d(64, 64, 3).requires_grad_(False), torch.bfloat16, 32)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the limit is one of x86-64")
def test_on_a_processor_without_bfloat16_nothing_uses_it():
    """Whatever this processor has: the limit bites, as oneDNN's own refusal shows."""
    command = [sys.executable, "-c", LESSER_PROCESSOR]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | SSE41, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[0] == "['float32'] False", done.stderr
    assert "bf16 path needs the cpu support" in lines[1]
