"""training/export.py: both ONNX files, their metrics, and when they are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.classifier import Classifier
from service.model import load_bundle, sha256
from service.monitoring.reference import read_reference
from service.settings import Settings
from tests.conftest import ROOT
from tests.helpers.class_folders import write_class_folders
from tests.helpers.resnet_bundles import random_network, write_resnet
from training import data, export
from training.__main__ import main
from training.data import CLASSES, Split

pytestmark = pytest.mark.integration

FILES = ("float32.onnx", "int8.onnx")


def noise(per_class: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    return Split(rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), labels, "noise")


def random_bundle(root: Path) -> Path:
    return write_resnet(root / "random", random_network().state_dict(), root)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A bundle with its exports."""
    folder = random_bundle(tmp_path_factory.mktemp("bundle"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "MAX_INT8_LOSS", 1.0)  # nothing was learnt, so an image more or less means nothing
        patch.setattr(export, "CALIBRATION_IMAGES", 20)
        export.export(folder, noise(3, seed=0), noise(4, seed=1), "noise")
    return folder


def test_an_export_is_part_of_the_bundle_and_runs(exported):
    bundle = load_bundle(exported)  # checks every file that it lists
    assert set(bundle.files) == {"weights.safetensors", "int8.onnx", "self_test.json", "reference.json"}
    assert (bundle.licence, bundle.origin) == ("CC0-1.0", "random")
    for engine in bundle.engines:
        assert (reference := read_reference(bundle, engine)) and reference.count == 40 and reference.answers
        Classifier.load(Settings.from_env({"MODEL_DIR": str(exported), "ENGINE": engine})).close()  # tests itself
    assert json.loads((exported / "model.json").read_text())["kept"] is True
    assert {path.name for path in exported.iterdir()} == {"model.json", "float32.onnx", *bundle.files}
    assert {(exported / name).stat().st_mode & 0o044 for name in FILES} == {0o044}  # the service is another user


def test_the_metrics_of_each_file_are_in_model_json(exported):
    manifest = json.loads((exported / "model.json").read_text())
    assert set(manifest["exports"]) == set(FILES)
    for metrics in manifest["exports"].values():
        assert metrics["n"] == 40
        assert 0 <= metrics["low"] <= metrics["accuracy"] <= metrics["high"] <= 1
        assert 0 <= metrics["agreement"] <= 1
        assert metrics["weights"] == manifest["files"]["weights.safetensors"][:12]
    float32, int8 = (manifest["exports"][name] for name in FILES)
    assert float32["agreement"] == 1 and float32["max_abs_dprob"] < 1e-5 < int8["max_abs_dprob"] < 0.2
    assert int8["calibration"] == "20 training images, min-max, biases corrected"


def test_no_two_quantised_products_overflow_16_bits(exported):
    """Processors without VNNI add up pairs of unsigned times signed bytes in 16 bits, and cut off what is beyond."""
    model = onnx.load(exported / "int8.onnx")
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    filters = {name: array for name, array in arrays.items() if array.dtype == np.int8 and array.ndim == 4}
    assert len(filters) == 20
    for name, array in filters.items():
        assert 2 * 255 * int(np.abs(array.astype(int)).max()) < 2**15, name
        (reader,) = [node for node in model.graph.node if name in node.input]
        assert arrays[reader.input[1]].shape == (len(array),), name  # a scale for each output channel
    zero_points = [arrays[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {str(zero_point.dtype) for zero_point in zero_points} == {"uint8"}


def test_an_export_has_the_same_bytes_in_another_process(exported, tmp_path):
    code = """
import sys
from pathlib import Path
from tests.training.test_export import export, load_bundle, noise
from service.engines.torch_engine import load_network
from training.bundles.onnx_export import write_float32, write_int8
export.CALIBRATION_IMAGES = 20
bundle, out = load_bundle(Path(sys.argv[1])), Path(sys.argv[2])
write_float32(load_network(bundle), 32, out / "float32.onnx")
images = export.normalise(export.calibration_images(noise(3, seed=0)), bundle)
write_int8(out / "float32.onnx", out / "int8.onnx", images)
"""
    env = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, exported, tmp_path], cwd=ROOT, env=env, check=True)
    for name in FILES:
        assert sha256(tmp_path / name) == sha256(exported / name), name


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        pytest.param(
            "training.export.MAX_INT8_LOSS", r"int8 costs too much: \d+\.\d\d% became \d+\.\d\d%", id="int8-loses"
        ),
        pytest.param(
            "training.bundles.onnx_export.MAX_FLOAT32_DIFFERENCE",
            "float32.onnx is not the same network",
            id="float32-differs",
        ),
    ],
)
@pytest.mark.slow
def test_a_bad_export_is_refused_and_changes_nothing(limit, message, monkeypatch, tmp_path):
    folder = random_bundle(tmp_path)
    before = (folder / "model.json").read_bytes()
    monkeypatch.setattr(limit, -1.0)
    monkeypatch.setattr(data, "load_split", lambda folder, train, classes: noise(1, seed=int(train)))
    with pytest.raises(SystemExit, match=message):
        main(["export", "--bundle", str(folder)])
    assert (folder / "model.json").read_bytes() == before
    assert not list(folder.glob("*.onnx"))


def own_bundle(root: Path) -> Path:
    """The bundle of a network of two classes of its own."""
    return write_resnet(root / "mine", random_network(2).state_dict(), root, classes=("ant", "bee"))


def test_own_classes_are_not_measured_on_cifar10(monkeypatch, tmp_path):
    folder = own_bundle(tmp_path)
    before = (folder / "model.json").read_bytes()
    monkeypatch.setattr(data, "load_split", lambda *_, **__: pytest.fail("downloads"))
    with pytest.raises(SystemExit, match=r"^export: .*mine has classes of its own, of which CIFAR-10 tells nothing"):
        main(["export", "--bundle", str(folder)])
    assert (folder / "model.json").read_bytes() == before


def test_own_classes_are_measured_on_their_own_images(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "MAX_INT8_LOSS", 1.0)
    folder = own_bundle(tmp_path)
    for seed, split in enumerate(("train", "test")):
        write_class_folders(tmp_path / "photos" / split, {"ant": 4, "bee": 4}, seed=seed)
    main(["export", "--bundle", str(folder), "--data", str(tmp_path / "photos")])
    bundle = load_bundle(folder)
    assert bundle.classes == ("ant", "bee") and set(bundle.engines) == {"onnx", "torch"}
    test = json.loads((folder / "model.json").read_text())["metrics"]["test"]
    assert (test["n"], test["data"]) == (8, "class folders of PNG files (photos/), test split")


def test_calibration_uses_the_same_images_of_every_class(monkeypatch):
    monkeypatch.setattr(export, "CALIBRATION_IMAGES", 30)
    train = noise(20, seed=0)
    chosen = export.calibration_images(train)
    labels = [int(train.labels[(train.images == image).all((1, 2, 3))][0]) for image in chosen]
    assert sorted(labels) == sorted(list(range(10)) * 3) != labels
    assert (chosen == export.calibration_images(train)).all()


def test_the_shipped_exports_lose_next_to_nothing(bundle_dir):
    manifest = json.loads((bundle_dir / "model.json").read_text())
    assert manifest["files"]["int8.onnx"] == sha256(bundle_dir / "int8.onnx")
    for metrics in manifest["exports"].values():
        assert metrics["weights"] == manifest["files"]["weights.safetensors"][:12]
        assert metrics["n"] == manifest["metrics"]["test"]["n"] == 10_000
        assert metrics["accuracy"] >= manifest["metrics"]["test"]["accuracy"] - export.MAX_INT8_LOSS
    assert manifest["exports"]["int8.onnx"]["agreement"] > 0.98
