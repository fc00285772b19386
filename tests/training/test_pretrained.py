"""./cloudtrial pretrained: a network as it is becomes a bundle, if its 8-bit file answers as torch does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from training.__main__ import main

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
