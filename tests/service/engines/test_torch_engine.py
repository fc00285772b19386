"""Bundle, network and engine, on bundles with random weights."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from service.classifier import Classifier
from service.engines.torch_engine import WEIGHTS, GpuResNet18, TorchEngine, fold_batch_norm, load_network
from service.errors import BundleError
from service.model import load_bundle
from service.settings import Settings

pytestmark = pytest.mark.integration

CLASSES = tuple("abcdefghij")


def torchvision_network() -> nn.Module:
    """torchvision's own, with batch norms that do something."""
    torch.manual_seed(0)
    net = resnet18(num_classes=len(CLASSES))
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.5, 1.5),
            ):
                nn.init.uniform_(values, low, high)
    return net.eval()


def write_bundle(folder, state, **facts):
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    return write_manifest(folder, **facts)


def write_manifest(folder, **facts):
    manifest = {
        "name": "random",
        "architecture": "resnet18-cifar",
        "classes": CLASSES,
        "input": {"size_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
        "files": {WEIGHTS: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()},
    }
    (folder / "model.json").write_text(json.dumps(manifest | facts))
    return folder


@pytest.fixture(scope="module")
def theirs():
    return torchvision_network()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"), theirs.state_dict())


def inputs(count):
    return np.random.default_rng(count).standard_normal((count, 3, 32, 32), np.float32)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_engine_answers_as_torchvisions_network_does(theirs, folder, count):
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(inputs(count))).softmax(1).numpy()
    found = TorchEngine(load_bundle(folder), "float32").probabilities(inputs(count))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_half_precision_without_counters_gives_the_same_output(theirs, tmp_path):
    half = {k: v.half() for k, v in theirs.state_dict().items() if "num_batches" not in k}
    found = TorchEngine(load_bundle(write_bundle(tmp_path, half)), "float32").probabilities(inputs(2))
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(inputs(2))).softmax(1).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_the_way_to_a_gpu_and_back_gives_the_same_scores(folder):
    """Where there is none, the processor stands in for it."""
    net = load_network(load_bundle(folder))
    with torch.inference_mode():
        images = torch.from_numpy(inputs(2))
        torch.testing.assert_close(GpuResNet18(net, torch.device("cpu"))(images), net(images), rtol=1e-4, atol=1e-4)
    assert not torch.backends.cudnn.allow_tf32  # float32 is what /version says


def test_no_batch_norm_is_left(folder):
    net = load_network(load_bundle(folder))
    fold_batch_norm(net)
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("fc.bias"), "fc.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is not part of the network"),
        (lambda s: s.update({"fc.weight": torch.zeros(3, 512)}), r"fc.weight has shape \[3, 512\], not \[10, 512\]"),
        (lambda s: [s.pop(k) for k in list(s) if "layer" in k], "and [0-9]+ more"),
    ],
    ids=["missing", "unknown", "shape", "many"],
)
def test_weights_that_do_not_fit_are_refused_by_name(theirs, tmp_path, change, says):
    state = dict(theirs.state_dict())
    change(state)
    with pytest.raises(BundleError, match=says) as caught:
        TorchEngine(load_bundle(write_bundle(tmp_path, state)))
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(theirs, tmp_path):
    bundle = load_bundle(write_bundle(tmp_path, theirs.state_dict(), architecture="vgg"))
    with pytest.raises(BundleError, match="holds a 'vgg'; the torch engine runs 'resnet18-cifar'"):
        TorchEngine(bundle)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / WEIGHTS).write_bytes(b"\x80\x04pickle?")
    with pytest.raises(BundleError, match="not a safetensors file"):
        TorchEngine(load_bundle(write_manifest(tmp_path)))


def spoil_weights(folder):
    (folder / WEIGHTS).write_bytes(b"other")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "model.json").unlink(), "model.json is missing; set MODEL_DIR"),
        (lambda f: (f / WEIGHTS).unlink(), "weights.safetensors is missing"),
        (spoil_weights, "weights.safetensors has sha256 [0-9a-f]{64}, model.json says"),
        (lambda f: (f / "model.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "model.json").write_text("{}"), "name is None; it has to be 1 to 100"),
    ],
    ids=["no manifest", "no weights", "wrong checksum", "no JSON", "no name"],
)
def test_a_broken_bundle_is_refused_with_the_file_and_what_to_do(theirs, tmp_path, spoil, says):
    folder = write_bundle(tmp_path / "bundle", theirs.state_dict())
    spoil(folder)
    with pytest.raises(BundleError, match=says):
        Classifier.load(Settings(model_dir=folder))


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_weights_that_cannot_predict_are_refused(theirs, tmp_path, value):
    state = theirs.state_dict() | {"fc.bias": torch.full((len(CLASSES),), value)}
    with pytest.raises(BundleError, match=r"weights\.safetensors cannot predict: .* \(nan, nan, nan"):
        Classifier.load(Settings(model_dir=write_bundle(tmp_path, state)))


def test_a_classifier_is_warm_when_loaded_and_says_what_it_is(folder):
    classifier = Classifier.load(Settings(model_dir=folder))
    assert classifier.ready()
    assert classifier.classes == CLASSES
    assert (classifier.info.name, classifier.info.engine) == ("random", "torch")
    assert classifier.info.version == classifier.sha256[:12]
    assert set(classifier.startup_ms) == {"import", "load", "first_prediction", "total"}
    assert all(ms >= 0 for ms in classifier.startup_ms.values())
    assert classifier.startup_ms["total"] == pytest.approx(sum(list(classifier.startup_ms.values())[:-1]), abs=1)


def test_a_prediction_holds_the_probabilities_of_every_class(folder):
    classifier = Classifier.load(Settings(model_dir=folder))
    predictions, timings = classifier.classify(list(inputs(3)))
    assert [len(p.probabilities) for p in predictions] == [10] * 3
    assert all(sum(p.probabilities) == pytest.approx(1, abs=1e-5) for p in predictions)
    assert timings.queue_ms >= 0
    assert timings.inference_ms > 0


THREADS_OF_CALLERS = """
import os, threading
import numpy as np
from service import engines
engines.usable_cpus = lambda: 1
from service.model import load_bundle
from service.settings import Settings
engine = engines.engine_class("torch")(load_bundle(Settings.model_dir, ["weights.safetensors"]))
before, picture, hold = len(os.listdir("/proc/self/task")), np.zeros((1, 3, 32, 32), np.float32), threading.Event()
for _ in range(8):
    answered = threading.Event()
    ask = lambda: engine.probabilities(picture).any() and (answered.set() or hold.wait())
    threading.Thread(target=ask, daemon=True).start()
    assert answered.wait(60)
print(engine.caller_may_run, len(os.listdir("/proc/self/task")) - before - 8, flush=True)
"""


def test_caller_threads_on_one_core_start_no_openmp_teams():
    environment = os.environ | {"OMP_NUM_THREADS": ""}  # counts as unset
    command = [sys.executable, "-c", THREADS_OF_CALLERS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["True", "0"], done.stderr
