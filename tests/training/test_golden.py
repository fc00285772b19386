"""The golden set: complete, well formed, and answered as its manifest says."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.images.preprocess import decode_image
from service.model import load_bundle
from tests.conftest import ROOT
from tests.helpers.resnet_bundles import random_network, write_resnet
from training import golden
from training.__main__ import main
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


def test_a_set_replaces_a_set_and_keeps_other_images(bundle_dir, tmp_path):
    bundle = load_bundle(bundle_dir)
    manifest = {"model_version": "of before", "images": [{"name": "old.png"}, {"name": "gone.png"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for name in ("old.png", "mine.png"):
        (tmp_path / name).write_bytes(b"an image")
    golden.write_golden_set(tmp_path, bundle, np.zeros((10, 32, 32, 3), np.uint8))
    assert (tmp_path / "mine.png").exists() and not (tmp_path / "old.png").exists()
    assert len(json.loads((tmp_path / "manifest.json").read_text())["images"]) == 10


def test_an_own_model_has_a_golden_set_under_its_name(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("training.__main__.GOLDEN_SETS", tmp_path / "golden")
    mine = write_resnet(tmp_path / "mine", random_network(2).state_dict(), tmp_path, classes=("ant", "bee"))
    main(["golden", "--bundle", str(mine), "--steps", "1"])
    assert "mine: 20 images, " in capsys.readouterr().out
    manifest = json.loads((tmp_path / "golden/mine/manifest.json").read_text())
    assert manifest["classes"] == ["ant", "bee"] and len(manifest["images"]) == 20


def test_photos_replace_the_images_of_an_earlier_set(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "set"
    photos.mkdir()
    out.mkdir()
    for name in ("coffee.jpg", "provenance.json"):
        shutil.copy(ROOT / "eval/golden/efficientnet-lite0-imagenet" / name, photos)
    (out / "manifest.json").write_text(json.dumps({"model_version": "of before", "images": [{"name": "old.png"}]}))
    for name in ("old.png", "mine.png"):
        (out / name).write_bytes(b"an image")
    bundle = ROOT / "models" / "efficientnet-lite0-imagenet"
    main(["golden", "--bundle", str(bundle), "--photos", str(photos), "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {"coffee.jpg", "manifest.json", "provenance.json", "mine.png"}


@pytest.mark.parametrize(
    ("name", "photos", "message"),
    [
        ("efficientnet-lite0-imagenet", False, "imagenet has no weights for torch, which draws the images: give some"),
        ("iris", False, "iris has no weights for torch"),
        ("iris", True, "iris takes rows of 4 numbers, not images"),
        ("efficientnet-lite0-imagenet", True, r"a\.png cannot be read: "),
    ],
)
def test_what_has_no_golden_set_is_one_line(name, photos, message, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image at all")
    (tmp_path / "provenance.json").write_text(json.dumps({"a.png": {"source": "a test", "licence": "CC0"}}))
    words = ["--photos", str(tmp_path)] if photos else ["--steps", "1"]
    with pytest.raises(SystemExit, match=f"^golden: .*{message}"):
        main(["golden", "--bundle", str(ROOT / "models" / name), "--out", str(tmp_path / "set"), *words])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("photos", [False, True])
@pytest.mark.parametrize("manifest", [None, "[]", '{"name": "a web page"}'])
def test_a_folder_of_images_is_no_golden_set_and_is_kept(photos, manifest, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "coffee.jpg").write_bytes(b"my photo")
    (mine / "a.png").write_bytes(b"my image")
    if manifest is not None:
        (mine / "manifest.json").write_text(manifest)
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    name = "efficientnet-lite0-imagenet" if photos else "resnet18-cifar10"
    source = ["--photos", str(ROOT / "eval" / "golden" / name)] if photos else ["--steps", "1"]
    with pytest.raises(SystemExit, match=r"^golden: .*mine is there, and is no golden set: name another folder"):
        main(["golden", "--bundle", str(ROOT / "models" / name), "--out", str(mine), *source])
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_photos_may_become_a_golden_set_where_they_lie(tmp_path):
    photos = ROOT / "eval" / "golden" / "efficientnet-lite0-imagenet"
    for name in ("coffee.jpg", "provenance.json"):
        shutil.copy(photos / name, tmp_path)
    main(["golden", "--bundle", str(ROOT / "models" / photos.name), "--photos", str(tmp_path), "--out", str(tmp_path)])
    assert [each["name"] for each in json.loads((tmp_path / "manifest.json").read_text())["images"]] == ["coffee.jpg"]


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
