"""Training: the recipe's parts, a whole small run, and its resumption."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from service.classifier import Classifier
from service.engines.precision import probe_precision
from service.engines.resnet import build_network
from service.errors import BundleError
from service.manifest.records import EngineFile
from service.model import load_bundle
from service.monitoring.reference import read_reference
from service.settings import Settings
from tests.conftest import ROOT
from tests.helpers.resnet_bundles import write_resnet
from training import augmentation, promote, train
from training.__main__ import main
from training.data import CLASSES, DataError, Split, load_split

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of noise for every class and split."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


def small_network() -> nn.Module:
    """A few channels with all that the recipe treats apart: filters, a batch norm, a last layer."""
    layers = {
        "conv1": nn.Conv2d(3, 4, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(4),
        "relu": nn.ReLU(),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(4, len(CLASSES)),
    }
    return nn.Sequential(OrderedDict(layers)).to(memory_format=torch.channels_last)


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of two steps; ten images are held out, none is skipped."""
    monkeypatch.setattr(train, "RECIPE", train.Recipe(epochs=2, batch_size=15, held_out=10, prune_until=0))


@pytest.fixture
def small_recipe(short_recipe: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a small network, which takes a moment."""
    monkeypatch.setattr(train, "build_network", small_network)


@pytest.fixture
def finished_run(class_folders, small_recipe, tmp_path) -> Path:
    run_train("--data", class_folders, "--out", tmp_path / "run")
    return tmp_path / "run"


def run_train(*arguments: str | Path) -> None:
    main(["train", *map(str, arguments)])


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_resumed_run_ends_as_an_uninterrupted_one(class_folders, finished_run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "accuracy", interrupt)  # right after the first checkpoint
        run_train("--data", class_folders, "--out", tmp_path / "resumed")
    assert train.read_progress(tmp_path / "resumed" / train.CHECKPOINT).epoch == 1
    run_train("--data", class_folders, "--out", tmp_path / "resumed", "--resume")
    expected, resumed = (load_file(run / train.CHECKPOINT) for run in (finished_run, tmp_path / "resumed"))
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_every_epoch_is_a_line_of_the_log(finished_run):
    lines = (finished_run / train.LOG).read_text().splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["1", "2"]
    assert re.fullmatch(r"test set: [\d.]+% of 40 images", lines[-1])  # looked at once


def test_held_out_images_are_not_learnt_from(class_folders, small_recipe, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train, "normalise", lambda images: seen.append(len(images)) or images.float())
    run_train("--data", class_folders, "--out", tmp_path / "run")
    assert seen == [15, 15, 10, 15, 15, 10, 40]  # two steps and ten held out, twice; then the test images
    learnt, held_out = train.hold_out(torch.arange(40), 10, seed=0)
    assert sorted([*learnt.tolist(), *held_out.tolist()]) == [*range(40)]


def test_another_recipe_does_not_go_on_with_a_run(class_folders, finished_run, monkeypatch):
    monkeypatch.setattr(train, "RECIPE", replace(train.RECIPE, epochs=3))
    with pytest.raises(SystemExit, match="trained by another recipe"):
        run_train("--data", class_folders, "--out", finished_run, "--resume")


def test_training_lowers_the_loss(class_folders, small_recipe, monkeypatch, tmp_path):
    """The images of a class share a colour; the network is to learn which."""
    recipe = replace(train.RECIPE, epochs=40, max_lr=0.2, label_smoothing=0.0)
    monkeypatch.setattr(train, "RECIPE", recipe)
    split = load_split(class_folders, train=True)
    coloured = np.random.default_rng(0).integers(0, 256, (10, 1, 1, 3), dtype=np.uint8)[split.labels]
    coloured = np.broadcast_to(coloured, split.images.shape).copy()
    monkeypatch.setattr(train, "load_split", lambda data, train: Split(coloured, split.labels, "colours"))
    run_train("--data", class_folders, "--out", tmp_path / "run")
    losses = [float(line.split()[2]) for line in (tmp_path / "run" / train.LOG).read_text().splitlines()[:-1]]
    assert losses[-1] < losses[0] / 2


def test_the_help_of_the_commands_imports_nothing_heavy():
    code = """
import sys
from training.__main__ import parser
parser().format_help()
print(sorted({"torch", "torchvision", "onnx", "onnxruntime", "numpy"} & set(sys.modules)))
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"


def test_resuming_what_was_not_started_is_refused(class_folders, tmp_path):
    with pytest.raises(SystemExit, match=r"is missing: start without --resume"):
        run_train("--data", class_folders, "--out", tmp_path, "--resume")


def test_too_few_images_for_a_batch_are_one_line(class_folders, small_recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "RECIPE", replace(train.RECIPE, held_out=26))
    message = r"^train: 40 training images are too few: 26 are held out, a batch is 15$"
    with pytest.raises(SystemExit, match=message):
        run_train("--data", class_folders, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(class_folders, finished_run):
    with pytest.raises(SystemExit, match=r"exists: add --resume"):
        run_train("--data", class_folders, "--out", finished_run)


@pytest.mark.slow  # trains ResNet-18 itself
def test_a_finished_run_becomes_a_bundle_that_loads(class_folders, short_recipe, tmp_path):
    run_train("--data", class_folders, "--out", tmp_path / "run")
    test = load_split(class_folders, train=False)
    write_resnet(tmp_path / "bundle", {"any": torch.zeros(1)}, tmp_path, b"of earlier weights")
    stored = promote.promote(tmp_path / "run", tmp_path / "bundle", test, "noise", min_accuracy=0.0)
    bundle = load_bundle(tmp_path / "bundle")
    assert stored["n"] == 40
    assert set(bundle.files) == {"weights.safetensors", "self_test.json", "reference.json"}
    assert bundle.engines == {"torch": EngineFile("weights.safetensors", "float16", "resnet18-cifar")}
    assert bundle.licence == "Apache-2.0" and bundle.origin and "from random weights" in bundle.origin
    Classifier.load(Settings.from_env({"MODEL_DIR": str(bundle.folder), "ENGINE": "torch"})).close()
    reference = read_reference(bundle, "torch")
    assert reference and reference.count == 40 and reference.answers
    assert reference.answers.accuracy == stored["accuracy"]
    manifest = json.loads((tmp_path / "bundle" / "model.json").read_text())
    recipe = manifest["training"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["max_lr"]) == (2, 15, train.RECIPE.max_lr)
    assert manifest["training"]["hours"] >= 0 and "cores of" in manifest["training"]["hardware"]
    measured = {"test", "test_float32_weights"} | ({"test_bfloat16"} if probe_precision("bfloat16").usable else set())
    assert manifest["metrics"].keys() == measured
    assert all(each["low"] <= each["accuracy"] <= each["high"] for each in manifest["metrics"].values())
    assert not list(bundle.folder.glob("*.onnx"))  # an export is of the weights that it was made from
    assert bundle.classes == CLASSES
    with (tmp_path / "bundle" / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(tmp_path / "bundle")


def test_a_network_below_the_floor_is_not_promoted(class_folders, finished_run, monkeypatch, tmp_path):
    monkeypatch.setattr(promote, "answers", lambda *_: None)
    monkeypatch.setattr(promote, "accuracy", lambda predictions, labels: {"accuracy": 0.98})
    test = load_split(class_folders, train=False)
    with pytest.raises(promote.PromotionError, match=r"98\.00%, the floor is 99\.00%"):
        promote.promote(finished_run, tmp_path / "bundle", test, "noise", min_accuracy=0.99)
    assert not (tmp_path / "bundle").exists()


def test_promoting_keeps_a_folder_that_is_no_model(class_folders, finished_run, tmp_path):
    mine = tmp_path / "networks" / "mine.onnx"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(SystemExit, match=r"^promote: .*networks is there, and is no model: name another folder"):
        main(["promote", str(finished_run), "--bundle", str(mine.parent), "--data", str(class_folders), "--floor", "0"])
    assert [path.read_bytes() for path in mine.parent.iterdir()] == [b"mine"]


def test_an_unfinished_run_is_not_promoted(class_folders, small_recipe, monkeypatch, tmp_path):
    finished_run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "accuracy", interrupt)
        run_train("--data", class_folders, "--out", finished_run)
    with pytest.raises(promote.PromotionError, match="1 of 2 epochs"):
        promote.read_run(finished_run)


def test_cutout_greys_one_square_of_each_image():
    images = torch.ones(50, 3, 32, 32)
    result = augmentation.cutout(images, 8, torch.Generator().manual_seed(0))
    assert bool((images == 1).all())  # the input is not changed
    for image in result:
        rows, columns = torch.where(image[0] == 0)
        assert len(rows) == 8 * 8
        assert rows.max() - rows.min() == columns.max() - columns.min() == 7
        assert bool((image == image[0]).all())  # the same square in every channel
    corners = {(int(torch.where(i[0] == 0)[0].min()), int(torch.where(i[0] == 0)[1].min())) for i in result}
    assert len(corners) > 40  # chosen for each image


def test_the_service_network_computes_what_torchvisions_does():
    torch.manual_seed(0)
    theirs = train.build_network().eval()
    ours = build_network(len(CLASSES)).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))


def test_learning_rate_follows_one_cycle():
    recipe = train.RECIPE
    rates = [train.learning_rate(recipe, epoch) for epoch in range(recipe.epochs + 1)]
    assert (max(rates), rates[recipe.epochs // 5], rates[-1]) == (recipe.max_lr, recipe.max_lr, 0)
    assert 0 < rates[0] < recipe.max_lr


def test_images_grow_to_their_whole_size():
    sizes = [train.image_size_px(train.RECIPE, epoch) for epoch in range(train.RECIPE.epochs)]
    assert sizes == sorted(sizes) and set(sizes) == {16, 24, 32}
    assert sizes.count(32) >= 0.4 * len(sizes)  # as the service sees them


def test_a_shrunk_image_keeps_its_colours():
    halves = torch.zeros(2, 3, 32, 32)
    halves[..., 16:] = 1.0  # black to the left, white to the right
    shrunk = augmentation.resize(halves, 16)
    assert shrunk.shape == (2, 3, 16, 16)
    assert bool((shrunk[..., :7] == 0).all()) and bool((shrunk[..., 9:] == 1).all())
    assert augmentation.resize(halves, 32) is halves


def test_easy_images_are_skipped_and_represented():
    recipe, count = train.Recipe(), 1000
    losses = torch.rand(count, generator=torch.Generator().manual_seed(1))
    chosen, weights = train.prune_easy(losses, recipe, 1, torch.Generator().manual_seed(2))
    easy = set(losses.argsort()[: int(count * recipe.easy_fraction)].tolist())
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(range(count)) - easy <= set(chosen.tolist())  # every hard image is learnt from
    assert len(easy & set(chosen.tolist())) == int(len(easy) * recipe.easy_kept)
    assert float(weights[chosen].sum()) == pytest.approx(count)  # those kept stand for those skipped
    assert {round(float(weights[i]), 3) for i in chosen.tolist() if i not in easy} == {1.0}


@pytest.mark.parametrize("epoch", [0, 70, 79])
def test_the_first_and_the_last_epochs_skip_nothing(epoch):
    chosen, weights = train.prune_easy(torch.rand(100), train.Recipe(), epoch, torch.Generator().manual_seed(0))
    assert sorted(chosen.tolist()) == [*range(100)] and bool((weights == 1).all())


def test_a_skipped_image_keeps_its_loss(class_folders, small_recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "RECIPE", train.Recipe(epochs=3, batch_size=5, held_out=10))
    run_train("--data", class_folders, "--out", tmp_path / "run")
    losses = load_file(tmp_path / "run" / train.CHECKPOINT)["losses"]
    assert losses.shape == (30,) and bool((losses > 0).all())


def test_a_run_does_not_go_on_with_other_images(class_folders, small_recipe, monkeypatch, tmp_path):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "accuracy", interrupt)
        run_train("--data", class_folders, "--out", tmp_path / "run")
    more = shutil.copytree(class_folders, tmp_path / "more")
    shutil.copy(more / "train" / "cat" / "0.png", more / "train" / "cat" / "copy.png")
    with pytest.raises(SystemExit, match=r"has learnt from 30 images, not 31: choose another --out"):
        run_train("--data", more, "--out", tmp_path / "run", "--resume")


def test_a_shifted_image_keeps_its_size_and_its_pixels():
    images = torch.arange(32 * 32 * 3, dtype=torch.float32).reshape(1, 3, 32, 32).repeat(200, 1, 1, 1)
    shifted = augmentation.shift(images, 4, torch.Generator().manual_seed(0))
    assert shifted.shape == images.shape
    assert set(shifted.flatten().tolist()) <= set(images[0].flatten().tolist())
    centres = set(shifted[:, 0, 16, 16].int().tolist())
    assert centres <= {32 * row + column for row in range(12, 21) for column in range(12, 21)} and len(centres) > 60


def test_an_image_is_mirrored_in_every_other_epoch(class_folders, small_recipe, monkeypatch, tmp_path):
    flips = []
    monkeypatch.setattr(train, "flip_horizontally", lambda images, flip: flips.append(flip) or images)
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n))
    run_train("--data", class_folders, "--out", tmp_path / "run")
    first, second = torch.cat(flips[:2]), torch.cat(flips[2:])
    assert torch.equal(first, ~second) and 0 < first.sum() < len(first)


def test_a_mistyped_run_is_told_before_a_download(monkeypatch, tmp_path):
    monkeypatch.setattr("training.data.load_split", lambda *_, **__: pytest.fail("downloads"))
    with pytest.raises(SystemExit, match=r"^promote: no run\.json and no checkpoint\.safetensors in .*mien: name the"):
        main(["promote", str(tmp_path / "mien"), "--bundle", str(tmp_path / "mine")])


@pytest.mark.parametrize("command", ["train", "export"])
def test_a_download_without_a_network_is_one_line(command, monkeypatch, tmp_path):
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(SystemExit, match=rf"^{command}: CIFAR-10 cannot be downloaded \(no route to host\); without"):
        main([command, "--out", str(tmp_path / "run")] if command == "train" else [command])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda root: None, "no folder", id="nothing there"),
        pytest.param(lambda root: (root / "test" / "cat").mkdir(parents=True), "cat", id="a class without images"),
    ],
)
def test_a_folder_that_is_not_cifar10_is_refused(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load_split(tmp_path, train=False)
