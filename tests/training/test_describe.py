"""./cloudtrial describe: what is found in a folder of images, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from training.__main__ import main

pytestmark = pytest.mark.integration


def photo(seed: int, side_px: int = 32) -> Image.Image:
    """A picture of soft colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> tuple[dict, str, Path]:
    """A folder with one of every fault: the JSON, the page, and the folder of both."""
    root = tmp_path_factory.mktemp("described")
    seed = 0
    for split, counts in (("train", {"ant": 20, "bee": 20, "cow": 20}), ("test", {"ant": 8, "bee": 8})):
        for label, count in counts.items():
            folder = root / "mine" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                photo(seed := seed + 1).save(folder / f"{number:02d}.png")
    mine = root / "mine"
    shutil.copy(mine / "train/ant/00.png", mine / "test/ant/copy.png")
    with Image.open(mine / "train/bee/03.png") as image:
        image.save(mine / "train/cow/again.jpg", quality=80)
    (mine / "train/bee/broken.png").write_bytes((mine / "train/bee/00.png").read_bytes()[:200])
    main(["describe", str(mine), "--out", str(root), "--no-pictures"])
    return json.loads((root / "mine.json").read_text(encoding="utf-8")), (root / "mine.html").read_text("utf-8"), root


@pytest.mark.parametrize("name", ["photos.json", "photos.html"])
def test_a_file_of_the_users_own_is_kept(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    photo(1).save(tmp_path / "photos" / "ant" / "1.png")
    (tmp_path / name).write_text('{"annotations": []}')
    with pytest.raises(
        SystemExit, match=rf"^describe: {name} is there, and was not written by .*: add --name or --out"
    ):
        main(["describe", "photos"])
    assert (tmp_path / name).read_text() == '{"annotations": []}'
    for _ in range(2):  # an earlier description is replaced
        main(["describe", "photos", "--name", "mine"])
    with pytest.raises(SystemExit, match=rf"^describe: {name} is no folder"):
        main(["describe", "photos", "--out", name])


def test_images_are_counted_by_class_and_split(described):
    content, _, _ = described
    assert content["splits"] == {"train": 61, "test": 17} and content["images"] == 78
    assert content["classes"]["cow"] == {"train": 21, "test": 0}
    assert content["missing"] == {"train": [], "test": ["cow"]}
    assert content["formats"] == {"PNG": 77, "JPEG": 1}


def test_copies_are_found_across_splits_and_classes(described):
    duplicates = described[0]["duplicates"]
    assert duplicates["exact"]["pairs"] == [["train/ant/00.png", "test/ant/copy.png"]]
    assert duplicates["exact"]["across_splits"] == 1
    assert duplicates["near"]["pairs"] == [["train/bee/03.png", "train/cow/again.jpg"]]  # compressed again
    assert duplicates["near"]["across_classes"] == 1


def test_an_image_that_is_like_many_is_counted_once(tmp_path):
    for number, (folder, quality) in enumerate(
        [*(("train/ant", 95 - step) for step in range(6)), ("train/bee", 89), ("test/ant", 88)]
    ):
        (tmp_path / "mine" / folder).mkdir(parents=True, exist_ok=True)
        photo(1, 128).save(tmp_path / "mine" / folder / f"{number}.jpg", quality=quality)
    photo(2).save(tmp_path / "mine" / "test" / "ant" / "other.png")
    main(["describe", str(tmp_path / "mine"), "--out", str(tmp_path), "--no-pictures"])
    content = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    near = content["duplicates"]["near"]
    assert (near["across_splits"], near["images_across_splits"]) == (7, 1)
    assert (near["across_classes"], near["images_across_classes"]) == (7, 2)
    assert "1 test image is nearly the same as a training image: accuracy will be too high." in content["findings"]
    assert "2 images are nearly the same as one of another class: a label may be wrong." in content["findings"]


def test_each_fault_is_a_sentence(described):
    content, page, _ = described
    assert [line.split(":")[0] for line in content["findings"]] == [
        "No image of cow in test.",
        "1 test image is the same as a training image",
        "1 image is nearly the same as one of another class",
        "1 file cannot be read; the first",
    ]
    assert "train/bee/broken.png" in page and "1 test image is the same" in page


def test_copies_in_one_folder_and_other_files_are_told(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / "mine" / label).mkdir(parents=True)
    for number in range(20):
        photo(number).save(tmp_path / "mine/ant" / f"{number}.png")
        photo(100 + number).save(tmp_path / "mine/bee" / f"{number}.png")
    shutil.copy(tmp_path / "mine/ant/0.png", tmp_path / "mine/ant/copy.png")
    (tmp_path / "mine/ant/a.heic").write_bytes(b"a photo of a telephone")
    main(["describe", str(tmp_path / "mine"), "--out", str(tmp_path), "--no-pictures"])
    found = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))["findings"]
    assert [line.split(":")[0] for line in found] == [
        "1 pair of images is the same",
        "1 file is left out, as no image ends so",
    ]


def test_images_are_seen_on_white_as_the_service_sees_them(tmp_path):
    for label, box in (("ant", (0, 0, 8, 8)), ("bee", (8, 8, 32, 32))):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(2):
            icon = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
            icon.paste((0, 0, 0, 255), (box[0] + number, *box[1:]))
            icon.save(tmp_path / "mine" / label / f"{number}.png")
    main(["describe", str(tmp_path / "mine"), "--out", str(tmp_path), "--no-pictures"])
    content = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    assert content["duplicates"]["exact"]["n"] == 0 and content["channels"]["mean"][0] > 0.5


def test_the_interval_is_that_of_the_test_images(described):
    interval = described[0]["accuracy_interval"]
    assert interval["n"] == 17
    ninety = next(row for row in interval["rows"] if row["accuracy"] == 0.9)
    assert ninety["high"] - ninety["low"] > 0.25
    assert interval["images_for_1_point"]["0.9"] == 3457  # 0.09 * 196 ** 2


def test_channel_statistics_are_those_of_the_pixels(described):
    content, _, root = described
    files = [path for path in (root / "mine").rglob("*") if path.suffix in (".png", ".jpg") and path.stem != "broken"]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]).reshape(-1, 3) / 255
    np.testing.assert_allclose(content["channels"]["mean"], pixels.mean(0), atol=1e-4)
    np.testing.assert_allclose(content["channels"]["std"], pixels.std(0), atol=1e-4)


def test_names_that_are_not_utf8_are_written_with_escapes(tmp_path):
    mine, name = tmp_path / os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xe9.png")
    for label in (os.fsdecode(b"th\xe9"), "ant"):
        (mine / label).mkdir(parents=True)
        photo(1).save(mine / label / name)
    (mine / "ant" / os.fsdecode(b"x\xe9.png")).write_bytes(b"no image")
    for _ in range(2):  # what is there is its own
        main(["describe", str(mine), "--out", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"caf\\udce9.html", "caf\\udce9.json"}
    text, page = ((tmp_path / "out" / f"caf\\udce9.{kind}").read_text(encoding="utf-8") for kind in ("json", "html"))
    content = json.loads(text)
    assert content["duplicates"]["exact"]["pairs"] == [["ant/\\udce9.png", "th\\udce9/\\udce9.png"]]
    assert content["unreadable"]["files"][0]["file"] == "ant/x\\udce9.png" in page
    assert content["classes"].keys() == {"ant", "th\\udce9"} and "all/th\\udce9/\\udce9.png" in page


def test_a_description_that_is_cut_off_leaves_no_half_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine" / "ant").mkdir(parents=True)
    photo(1).save(tmp_path / "mine" / "ant" / "1.png")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        main(["describe", str(tmp_path / "mine"), "--out", str(tmp_path)])
    assert not (tmp_path / "mine.json").exists() and not (tmp_path / "mine.html").exists()
    main(["describe", str(tmp_path / "mine"), "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.json", "mine.html"}


def test_a_page_without_pictures_holds_none(described):
    assert "data:image" not in described[1] and "<script" not in described[1]


def test_a_page_with_pictures_shows_each_class(described, tmp_path, capsys):
    main(["describe", str(described[2] / "mine"), "--out", str(tmp_path)])
    page = (tmp_path / "mine.html").read_text(encoding="utf-8")
    assert all(f'alt="an image of {label}"' in page for label in ("ant", "bee", "cow"))
    assert "- 1 file cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda root: None, "no folder", id="nothing there"),
        pytest.param(lambda root: root.mkdir(), "holds no class folders", id="empty"),
        pytest.param(lambda root: (root / "ant").mkdir(parents=True), "holds no images", id="a class without images"),
    ],
)
def test_a_folder_that_is_no_data_set_is_one_line(make, message, tmp_path):
    make(tmp_path / "mine")
    with pytest.raises(SystemExit, match=f"^describe: .*{message}"):
        main(["describe", str(tmp_path / "mine"), "--out", str(tmp_path)])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_committed_descriptions_hold_no_image(name):
    page = (ROOT / "docs" / "datasets" / f"{name}.html").read_text(encoding="utf-8")
    content = json.loads((ROOT / "docs" / "datasets" / f"{name}.json").read_text(encoding="utf-8"))
    assert "data:image" not in page and all(f">{label}</th>" in page for label in content["classes"])
    assert content["images"] == {"cifar10": 60_000, "cifar100": 20_000}[name]
