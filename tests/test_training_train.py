"""Training: the recipe's parts, a whole small run, and its resumption."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from service.model import BundleError, load_bundle
from service.network import build_network
from training import promote, train
from training.data import CLASSES, DataError, load_split

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of noise for every class and split."""
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
    """Two epochs, one a cycle."""
    monkeypatch.setattr(train, "STAGES", ((1, 16, 2, 0, 0.0, 0.0), (1, 32, 2, 8, 0.5, 0.5)))
    monkeypatch.setattr(train, "EPOCHS", 2)
    monkeypatch.setattr(train, "CYCLE_ENDS", (1, 2))
    monkeypatch.setattr(train, "RATE_KNOTS", ((0, 1.0), (2, 0.0)))
    monkeypatch.setattr(train, "BATCH_SIZE", 20)


@pytest.fixture
def small_recipe(short_recipe: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a small network: the recipe's course in a moment."""
    monkeypatch.setattr(train, "build_network", small_network)


def put_resnet18(run: Path) -> None:
    """Put a network of the shipped kind in the place of a run's small one: promotion runs it through the service."""
    torch.manual_seed(0)
    save_file(build_network(len(CLASSES)).state_dict(), run / train.NETWORK)


def run_train(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    train.main()


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(class_folders, small_recipe, monkeypatch, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_train(monkeypatch, "--data", class_folders, "--out", whole)
    with monkeypatch.context() as patch:
        patch.setattr(train, "EPOCHS", 1)  # stops after the first epoch, with the schedule of two
        patch.setattr(train, "CYCLE_ENDS", (1,))
        run_train(patch, "--data", class_folders, "--out", broken)
    run_train(monkeypatch, "--data", class_folders, "--out", broken, "--resume")
    for file in (train.CHECKPOINT, train.NETWORK):
        expected, found = (load_file(run / file) for run in (whole, broken))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len((broken / "log.txt").read_text().splitlines()) == 2


def test_an_existing_run_is_not_overwritten(class_folders, small_recipe, monkeypatch, tmp_path):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)
    with pytest.raises(SystemExit, match=r"exists: add --resume"):
        run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)


@pytest.mark.slow  # trains ResNet-18 itself
def test_a_finished_run_becomes_a_bundle_that_loads(class_folders, short_recipe, monkeypatch, tmp_path):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path / "run")
    test = load_split(class_folders, train=False)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "int8.onnx").write_bytes(b"of earlier weights")
    stored = promote.promote(tmp_path / "run", tmp_path / "bundle", test, "noise", floor=0.0)
    bundle = load_bundle(tmp_path / "bundle")
    assert stored["n"] == 40
    assert list(bundle.files) == ["weights.safetensors"]
    assert not list(bundle.folder.glob("*.onnx"))  # an export is of the weights that it was made from
    assert bundle.classes == CLASSES
    with (tmp_path / "bundle" / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(tmp_path / "bundle")


def test_a_network_below_the_floor_is_not_promoted(class_folders, small_recipe, monkeypatch, tmp_path):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path / "run")
    put_resnet18(tmp_path / "run")
    with pytest.raises(promote.PromotionError, match="the floor is"):
        test = load_split(class_folders, train=False)
        promote.promote(tmp_path / "run", tmp_path / "bundle", test, "noise", floor=0.99)
    assert not (tmp_path / "bundle").exists()


def test_an_unfinished_run_is_not_promoted(class_folders, small_recipe, monkeypatch, tmp_path):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)
    monkeypatch.setattr(train, "EPOCHS", 3)
    with pytest.raises(promote.PromotionError, match="2 of 3 epochs"):
        promote.read_result(tmp_path)


def test_cutting_out_greys_one_square_of_each_picture_and_nothing_else():
    pictures = torch.ones(50, 3, 32, 32)
    found = train.cut_out(pictures, 8, torch.Generator().manual_seed(0))
    assert bool((pictures == 1).all())  # what was given is not touched
    for picture in found:
        rows, columns = torch.where(picture[0] == 0)
        assert len(rows) == 8 * 8
        assert rows.max() - rows.min() == columns.max() - columns.min() == 7
        assert bool((picture == picture[0]).all())  # the same square in every channel
    corners = {(int(torch.where(p[0] == 0)[0].min()), int(torch.where(p[0] == 0)[1].min())) for p in found}
    assert len(corners) > 40  # drawn anew for each picture


def test_varying_changes_about_its_share_of_the_pictures_and_nothing_else():
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8)
    found = train.vary(pictures, 0.5)
    assert found.shape == pictures.shape and found.dtype == torch.uint8
    same = (found == pictures).flatten(1).all(1).view(-1, train.ALIKE).all(1)
    assert 0.4 < same.float().mean() < 0.75  # handfuls; some changes are none
    assert bool((train.vary(pictures, 0.0) == pictures).all())


def test_mixing_puts_a_rectangle_of_the_neighbour_into_each_picture_and_says_how_much_is_kept():
    pictures = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 32, 32).contiguous()
    generator = torch.Generator().manual_seed(3)
    shares = []
    for _ in range(40):
        mixed, kept = train.mix(pictures, generator)
        own = (mixed == pictures).float().mean((1, 2, 3))
        assert own.tolist() == pytest.approx([kept] * 6)
        assert bool(((mixed == pictures) | (mixed == pictures.roll(1, 0))).all())
        shares.append(kept)
    assert min(shares) < 0.4 and max(shares) > 0.9


def test_the_average_is_settled_on_batches_of_every_class(class_folders, small_recipe, monkeypatch, tmp_path):
    """Pictures lie class by class: batches of one class would give batch norm the wrong spread."""
    seen = []
    monkeypatch.setattr(train, "update_bn", lambda batches, average: seen.extend(batches))
    monkeypatch.setattr(train, "SETTLE_PICTURES", 40)
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)
    held = load_split(class_folders, train=True)
    first_class = train.normalise(torch.from_numpy(held.images[:4]).permute(0, 3, 1, 2).float())
    batches = seen[-2:]  # of the result, at the full size
    in_each = [sum(bool((batch == picture).all((1, 2, 3)).any()) for picture in first_class) for batch in batches]
    assert sum(in_each) == 4 and max(in_each) < 4


def test_the_mean_over_the_ends_of_cycles_is_what_is_promoted(class_folders, small_recipe, monkeypatch, tmp_path):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)
    tensors, _ = promote.read_result(tmp_path)
    first, last = (load_file(tmp_path / train.CYCLE.format(end))["fc.weight"] for end in (1, 2))
    held = load_file(tmp_path / train.CHECKPOINT)
    assert torch.equal(last, held["average.fc.weight"]) and not torch.equal(last, held["net.fc.weight"])
    assert not torch.equal(first, last)
    torch.testing.assert_close(tensors["fc.weight"], (first + last) / 2)


def test_a_run_that_ended_before_its_result_was_written_writes_it_on_resume(
    class_folders, small_recipe, monkeypatch, tmp_path
):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)
    before = load_file(tmp_path / train.NETWORK)
    (tmp_path / train.NETWORK).unlink()
    with pytest.raises(promote.PromotionError, match=r"no .*network.safetensors.*--resume"):
        promote.read_result(tmp_path)
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path, "--resume")
    after = load_file(tmp_path / train.NETWORK)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_missing_cycle_is_said_before_hours_are_spent(class_folders, small_recipe, monkeypatch, tmp_path):
    run_train(monkeypatch, "--data", class_folders, "--out", tmp_path)
    (tmp_path / "cycle-1.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"cycle-1.safetensors of an earlier cycle is missing"):
        run_train(monkeypatch, "--data", class_folders, "--out", tmp_path, "--resume")


def test_the_service_network_computes_what_torchvisions_does():
    torch.manual_seed(0)
    theirs = train.build_network().eval()
    ours = build_network(len(CLASSES)).eval()
    ours.load_state_dict(theirs.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pictures), theirs(pictures))


def test_learning_rates_end_at_zero_and_stages_fill_the_epochs():
    assert train.rate_share(0) == 1
    assert train.rate_share(train.EPOCHS) == 0
    stages = [train.stage(epoch) for epoch in range(train.EPOCHS)]
    assert stages == [tuple(rest) for epochs, *rest in train.STAGES for _ in range(epochs)]


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(train.orthogonalise(torch.randn(16, 64)))
    assert values.min() > 0.5 and values.max() < 1.5


def test_where_bfloat16_is_emulated_matrices_are_orthogonalised_in_float32(monkeypatch):
    matrix = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(train, "has_fast_bfloat16", lambda device: False)
    exact = train.orthogonalise(matrix.double())
    torch.testing.assert_close(train.orthogonalise(matrix), exact.float(), atol=1e-4, rtol=0)
    monkeypatch.setattr(train, "has_fast_bfloat16", lambda device: True)
    assert (train.orthogonalise(matrix) - exact).abs().max() > 1e-3  # eight bits of each number


@pytest.mark.parametrize("side", [16, 24, 32])
def test_augmentation_mirrors_and_shifts_but_keeps_the_size(side):
    pictures = torch.arange(side * side * 3, dtype=torch.float32).reshape(1, 3, side, side)
    flip = torch.tensor([True])
    out = train.augment(pictures, flip, 2, torch.Generator().manual_seed(0))
    assert out.shape == pictures.shape
    assert set(out.flatten().tolist()) <= set(pictures.flatten().tolist())
    assert out[0, 0, 5, 5] > out[0, 0, 5, 6]  # columns rise to the right before the flip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda root: None, "no folder", id="nothing there"),
        pytest.param(lambda root: (root / "test" / "cat").mkdir(parents=True), "cat", id="a class without pictures"),
    ],
)
def test_a_folder_that_is_not_cifar10_is_refused(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load_split(tmp_path, train=False)
