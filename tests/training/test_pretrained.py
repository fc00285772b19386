"""./cloudtrial pretrained: a network as it is becomes a bundle, if its 8-bit file answers as torch does."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from training.__main__ import main
from training.bundles import pretrained as pretrained_bundle
from training.bundles.pretrained import evenly
from training.finetune.run import image_bundle
from training.networks.bases import find_base

pytestmark = pytest.mark.integration


@pytest.fixture
def grey(tmp_path) -> Path:
    """A folder with a photo of nothing."""
    (tmp_path / "grey").mkdir()
    Image.new("RGB", (300, 300), (120, 120, 120)).save(tmp_path / "grey" / "a.png")
    return tmp_path / "grey"


def pretrained(images: Path, bundle: Path, *more: str | Path) -> None:
    main(["pretrained", "efficientnet_lite0", "--images", str(images), "--bundle", str(bundle), *map(str, more)])


def test_photos_of_nothing_do_not_judge_a_network(grey, tmp_path):
    with pytest.raises(SystemExit, match=r"^pretrained: torch is sure of none of 16 crops of .*grey, so that int8"):
        pretrained(grey, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_of_many_photos_a_few_from_all_over_are_taken(grey, tmp_path, monkeypatch):
    assert [path.name for path in evenly([Path(str(number)) for number in range(7)], 3)] == ["0", "2", "4"]
    monkeypatch.setattr(pretrained_bundle, "MAX_PHOTOS", 2)
    for name in "bcde":
        shutil.copy(grey / "a.png", grey / f"{name}.png")
    with pytest.raises(SystemExit, match="torch is sure of none of 32 crops"):
        pretrained(grey, tmp_path / "mine")


def test_crops_are_held_in_memory_once(grey):
    bundle = image_bundle(find_base("efficientnet_lite0"), ("any",))
    tracemalloc.start()
    try:
        crops = pretrained_bundle.random_crops([grey / "a.png"] * 4, bundle)
        assert tracemalloc.get_traced_memory()[1] < 1.2 * crops.nbytes
    finally:
        tracemalloc.stop()
    assert crops.shape == (2, 64, 3, 224, 224)


@pytest.mark.slow
def test_a_share_of_no_images_is_null_and_none(grey, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    shutil.copy(ROOT / "eval/golden/efficientnet-lite0-imagenet/coffee.jpg", tmp_path / "photos")
    pretrained(tmp_path / "photos", tmp_path / "mine", "--compare", grey)
    said = capsys.readouterr().out.splitlines()
    assert "of 16 images, for " in said[0]
    assert said[1].endswith("1 images, of none of which torch is sure")
    manifest = json.loads((tmp_path / "mine/model.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert manifest["exports"]["int8.onnx"]["compared"]["sure_agreement"] is None
