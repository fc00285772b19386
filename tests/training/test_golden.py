"""The golden set: complete, well formed, and answered as its manifest says."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.images.preprocess import decode_image
from service.model import load_bundle
from tests.conftest import ROOT
from training import golden
from training.bundles.onnx_export import run_onnx

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def manifest(golden_dir) -> dict:
    return json.loads((golden_dir / "manifest.json").read_text())


def test_the_golden_set_holds_ten_images_of_every_class(manifest, golden_dir):
    labels = [entry["label"] for entry in manifest["images"]]
    assert [labels.count(i) for i in range(10)] == [10] * 10
    assert {path.name for path in golden_dir.glob("*.png")} == {entry["name"] for entry in manifest["images"]}


def test_every_golden_checksum_is_correct(manifest, golden_dir):
    for entry in manifest["images"]:
        assert hashlib.sha256((golden_dir / entry["name"]).read_bytes()).hexdigest() == entry["sha256"], entry["name"]


def test_shipped_network_predicts_as_in_the_manifest(manifest, golden_dir, bundle_dir):
    bundle = load_bundle(bundle_dir)
    assert manifest["model_version"] == bundle.version(WEIGHTS)
    images = [decode_image((golden_dir / entry["name"]).read_bytes(), bundle) for entry in manifest["images"]]
    predictions = TorchEngine(bundle, "float32").probabilities(np.stack(images))
    expected = np.array([entry["probabilities"] for entry in manifest["images"]])
    assert (predictions.argmax(1) == expected.argmax(1)).all()
    np.testing.assert_allclose(predictions, expected, atol=1e-3)  # other processors round elsewhere


def test_most_golden_images_are_classified_as_intended(manifest):
    correct = sum(int(np.argmax(entry["probabilities"])) == entry["label"] for entry in manifest["images"])
    assert correct >= 95


def test_a_new_set_has_a_manifest_that_fits_its_files(bundle_dir, tmp_path):
    bundle = load_bundle(bundle_dir)
    images = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
    golden.write_golden_set(tmp_path, bundle, images)
    again = json.loads((tmp_path / "manifest.json").read_text())
    assert len(again["images"]) == len(list(tmp_path.glob("*.png"))) == 100
    assert tuple(again["classes"]) == bundle.classes


def test_the_photos_are_answered_as_their_manifest_says():
    photos = ROOT / "eval" / "golden" / "efficientnet-lite0-imagenet"
    bundle = load_bundle(ROOT / "models" / photos.name)
    manifest = json.loads((photos / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["model_version"] == bundle.version("int8.onnx") and tuple(manifest["classes"]) == bundle.classes
    assert {path.name for path in photos.glob("*.jpg")} == {entry["name"] for entry in manifest["images"]}
    inputs = np.stack([decode_image((photos / entry["name"]).read_bytes(), bundle) for entry in manifest["images"]])
    found = run_onnx(bundle.path("int8.onnx"), inputs)
    assert found.argmax(1).tolist() == [entry["label"] for entry in manifest["images"]]
    for entry in manifest["images"]:
        assert hashlib.sha256((photos / entry["name"]).read_bytes()).hexdigest() == entry["sha256"], entry["name"]
        assert entry["licence"].startswith(("CC0", "public domain")) and "sha256" in entry["source"]
