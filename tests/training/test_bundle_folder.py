"""Where a bundle may be written: all that was in its folder is deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from service.model import load_bundle
from tests.conftest import ROOT
from training.__main__ import main

pytestmark = pytest.mark.integration

NAMES = ("iris", "efficientnet-lite0-imagenet")


def tabular(folder: Path) -> None:
    main(["tabular", "sklearn:iris", "--bundle", str(folder)])


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(request, tmp_path) -> Path:
    """A folder of a user, by what is in it."""
    folder = tmp_path / request.param
    folder.mkdir()
    if request.param == "thesis":
        (folder / "thesis.txt").write_text("years of work")
    elif request.param == "models":
        for name in NAMES:
            shutil.copytree(ROOT / "models" / name, folder / name)
    elif request.param == "web":  # a model.json of somebody else
        (folder / "model.json").write_text(json.dumps({"format": "layers-model", "modelTopology": {}}))
    else:
        shutil.copytree(ROOT / "models" / "iris", folder, dirs_exist_ok=True)
        (folder / "README.md").write_text("what I know of it")
    return folder


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("thesis", "thesis is there, and is no model: name another folder with --bundle, such as models/mine"),
        ("models", "models is there, and is no model"),
        ("web", "web is there, and is no model"),
        ("described", "README.md is no file of the model there: move it elsewhere, or name another folder"),
    ],
    indirect=["folder"],
)
def test_a_folder_that_holds_something_else_is_kept(folder, message):
    before = tree(folder)
    with pytest.raises(SystemExit, match=f"^tabular: .*{message}"):
        tabular(folder)
    assert before and tree(folder) == before


def test_the_folder_is_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.setattr("training.bundles.pretrained.build", lambda *_: pytest.fail("began to work"))
    with pytest.raises(SystemExit, match=r"^pretrained: .* is no model"):
        main(["pretrained", "efficientnet_lite0", "--images", str(tmp_path), "--bundle", str(tmp_path)])
    monkeypatch.setattr("training.bundles.from_run.load_run", lambda *_: pytest.fail("began to work"))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"^promote: .* is no model"):
        main(["promote", str(tmp_path), "--bundle", str(tmp_path)])
    monkeypatch.setattr("training.data.load_split", lambda *_, **__: pytest.fail("began to work"))
    with pytest.raises(SystemExit, match=r"^promote: .* is no model"):
        main(["promote", str(tmp_path / "run"), "--bundle", str(tmp_path)])


def test_a_file_is_kept(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a photo")
    with pytest.raises(SystemExit, match=r"^tabular: .*a\.jpg is there, and is no model"):
        tabular(tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == b"a photo"


@pytest.mark.parametrize("path", [".", "..", "../mine"])
def test_the_folder_that_one_is_in_is_not_replaced(path, tmp_path, monkeypatch):
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" if path != ".." else tmp_path / "mine" / "inner")
    with pytest.raises(SystemExit, match=r"^tabular: .* is the folder that you are in, or holds it"):
        tabular(Path(path))


def test_a_model_is_replaced_and_an_empty_folder_filled(tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(ROOT / "models" / "efficientnet-lite0-imagenet", mine)
    (mine / ".DS_Store").write_bytes(b"of macOS")
    os.symlink(mine, tmp_path / "link")
    (tmp_path / "empty").mkdir()
    for name in ("link", "empty"):
        tabular(tmp_path / name)
    assert load_bundle(mine).name == "mine" and not (mine / "int8.onnx").exists()
    assert (tmp_path / "link").is_symlink() and load_bundle(tmp_path / "empty").name == "empty"
