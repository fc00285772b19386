"""./cloudtrial export RUN and promote RUN of a base that the service runs with ONNX alone."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from store.cli import main as store
from tests.helpers.class_folders import write_class_folders
from training.__main__ import main
from training.bundles.from_run import network_inputs
from training.finetune.dataset import read_dataset
from training.finetune.run import load
from training.networks.bases import find_base

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A run of an epoch, and its ONNX files."""
    root = tmp_path_factory.mktemp("own")
    write_class_folders(root / "photos", {"ant": 8, "bee": 8})
    small = ("--base", "mobilenet_v3_small", "--weights", "none", "--size", "32", "--epochs", "1")
    main(["finetune", str(root / "photos"), *small, "--out", str(root / "run")])
    main(["export", str(root / "run")])
    return root / "run"


def test_a_model_tells_the_accuracy_of_what_it_runs(exported, tmp_path, capsys):
    shutil.copytree(exported, tmp_path / "run")
    run = json.loads((exported / "run.json").read_text(encoding="utf-8"))
    run["metrics"]["accuracy"] = 0.125  # of torch; another than int8's
    (tmp_path / "run" / "run.json").write_text(json.dumps(run), encoding="utf-8")
    main(["promote", str(tmp_path / "run"), "--bundle", str(tmp_path / "mine"), "--floor", "0"])
    manifest = json.loads((tmp_path / "mine" / "model.json").read_text(encoding="utf-8"))
    int8 = manifest["exports"]["int8.onnx"]
    assert list(manifest["engines"]) == ["onnx"]
    assert manifest["metrics"]["test"] == {
        "accuracy": int8["accuracy"], "low": int8["low"], "high": int8["high"], "n": 4, "data": "photos, test images"
    }  # fmt: skip
    assert manifest["metrics"]["test_torch"] == run["metrics"]
    capsys.readouterr()
    store(["push", str(tmp_path / "mine"), "--store", str(tmp_path / "store")])
    store(["show", capsys.readouterr().out.strip(), "--store", str(tmp_path / "store")])
    assert f"{int8['accuracy']:.1%} ({int8['low']:.1%} to {int8['high']:.1%}) on 4: photos" in capsys.readouterr().out


def test_the_inputs_of_many_images_are_not_in_memory(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), np.uint8)
    base = find_base("resnet18-cifar")
    tracemalloc.start()
    try:
        inputs = network_inputs(images, base, tmp_path / "inputs.npy")
        assert tracemalloc.get_traced_memory()[1] < inputs.nbytes / 4
    finally:
        tracemalloc.stop()
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (base.mean, base.std))
    np.testing.assert_allclose(inputs[-1], (images[-1] / 255 - mean) / std, atol=1e-5)


def test_without_an_unreadable_file_images_stay_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr("training.finetune.dataset.MAX_MEMORY_BYTES", 0)  # every part is a file
    write_class_folders(tmp_path / "photos", {"ant": 12, "bee": 12})
    dataset, base = read_dataset(tmp_path / "photos", 0), find_base("resnet18-cifar")
    images, labels = load(dataset, base, tmp_path, print).train
    expected = np.delete(images, 3, 0)
    dataset.train.paths[3].write_bytes(b"no image at all")
    images, kept = load(dataset, base, tmp_path, print).train
    assert isinstance(images, np.memmap) and np.array_equal(kept, np.delete(labels, 3))
    assert np.array_equal(images, expected)
