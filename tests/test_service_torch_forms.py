"""The forms that the torch engine chooses from: each is the same network, and the choice follows the processor."""

import numpy as np
import pytest
import torch

from service.engines import torch_engine
from service.engines.fused import FusedResNet18, can_fuse
from service.engines.torch_engine import LayeredResNet18, TorchEngine, fastest_form, fold_batch_norm, load_network
from service.model import load_bundle
from service.preprocess import read_picture
from service.settings import ROOT

BUNDLE = ROOT / "models" / "resnet18-cifar10"
GOLDEN = ROOT / "eval" / "golden"
EXACT, ROUNDED = 1e-5, 0.03  # of a probability: float32's and bfloat16's
FORMS = [
    (make, precision, layout, within)
    for make in (LayeredResNet18, FusedResNet18)
    for precision, within in ((torch.float32, EXACT), (torch.bfloat16, ROUNDED))
    for layout in (torch.channels_last, torch.contiguous_format)
]


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(BUNDLE)


@pytest.fixture(scope="module")
def net(bundle):
    net = load_network(bundle)
    fold_batch_norm(net)
    return net


@pytest.mark.skipif(not can_fuse(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0].__name__}-{form[1]}-{form[2]}")
@pytest.mark.parametrize("count", [1, 3, 17])
def test_every_form_is_the_network_that_was_trained(bundle, net, form, count):
    make, precision, layout, within = form
    inputs = torch.from_numpy(np.random.default_rng(count).standard_normal((count, 3, 32, 32), np.float32))
    with torch.inference_mode():
        wanted = load_network(bundle)(inputs).softmax(1)
        found = make(net, precision, layout, bundle.size_px)(inputs).softmax(1)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, wanted, atol=within)


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
    ("flags", "precisions"),
    [({"avx2", "avx512_bf16"}, ["float32", "bfloat16"]), ({"avx2", "avx512f"}, ["float32"]), (set(), ["float32"])],
    ids=["with bfloat16", "without", "unknown"],
)
def test_bfloat16_is_tried_only_where_the_processor_lists_it(monkeypatch, flags, precisions):
    monkeypatch.setattr(torch_engine, "cpu_flags", lambda: flags)
    assert torch_engine.own_precisions() == precisions


@pytest.mark.parametrize(
    ("times_ms", "taken"),
    [
        ([10, 5, 4.5], "bfloat16, channels_last"),
        ([10, 9.9, 9], "float32, channels_last"),
        ([10, 5, 3], "bfloat16, contiguous"),
    ],
    ids=["clearly faster", "within noise", "another memory format"],
)
def test_the_fastest_form_is_taken_and_noise_decides_nothing(monkeypatch, net, times_ms, taken):
    clock = iter(times_ms)
    monkeypatch.setattr(torch_engine, "milliseconds", lambda form, pictures: next(clock))
    _, details = fastest_form(net, ["float32", "bfloat16"], 32)
    assert details["form"].startswith(taken)
    assert list(details["trial_ms"].values()) == times_ms


def test_without_onednn_the_network_runs_layer_by_layer(monkeypatch, bundle):
    monkeypatch.setattr(torch_engine, "can_fuse", lambda: False)
    engine = TorchEngine(bundle, "float32")
    assert engine.details["form"].endswith("layer by layer")
    assert engine.probabilities(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, len(bundle.classes))


def test_the_chosen_form_names_the_golden_pictures_as_float32_does(bundle):
    pictures = np.stack([read_picture(path.read_bytes(), bundle) for path in sorted(GOLDEN.glob("*.png"))])
    chosen, exact = (TorchEngine(bundle, p).probabilities(pictures) for p in (None, "float32"))
    assert (chosen.argmax(1) == exact.argmax(1)).mean() >= 0.99
    np.testing.assert_allclose(chosen, exact, atol=ROUNDED)
