"""KEEP_IMAGES: what is written, under which names, and when no more is."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.feedback import kept_images
from service.feedback.kept_images import KeptImages, folder_name
from tests.helpers.bundles import one_coloured
from training.folders import class_folders

DARK, BRIGHT = one_coloured(0), one_coloured(255)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path, said) -> KeptImages:
    return KeptImages(tmp_path, 10**6, said.append)


def files(folder: Path) -> dict[str, list[bytes]]:
    return {each.name: [path.read_bytes() for path in sorted(each.iterdir())] for each in sorted(folder.iterdir())}


def test_images_lie_in_folders_that_training_reads(kept, tmp_path):
    assert kept.keep("cat", DARK) and kept.keep("dog", BRIGHT) and kept.keep("cat", BRIGHT)
    assert {name: len(paths) for name, paths in class_folders(tmp_path).items()} == {"cat": 2, "dog": 1}
    assert files(tmp_path)["dog"] == [BRIGHT]
    assert {path.suffix for path in tmp_path.glob("*/*")} == {".png"}


def test_the_same_image_twice_is_one_file(kept, tmp_path):
    assert kept.keep("cat", DARK) and kept.keep("cat", DARK)
    assert files(tmp_path) == {"cat": [DARK]}


def test_a_full_quota_keeps_what_is_there_and_takes_no_more(tmp_path, said):
    kept = KeptImages(tmp_path, len(DARK) + len(BRIGHT) // 2, said.append)
    assert kept.keep("cat", DARK)
    assert not kept.keep("cat", BRIGHT) and not kept.keep("dog", BRIGHT)
    assert kept.keep("cat", DARK)  # which is there
    assert files(tmp_path) == {"cat": [DARK]}
    assert said == [f"KEEP_IMAGES_MB is used up, so no image is kept; move files out of {tmp_path}"]


def test_what_lies_there_at_the_start_counts(kept, tmp_path, said):
    kept.keep("cat", DARK)
    assert not KeptImages(tmp_path, len(DARK) + 1, said.append).keep("cat", BRIGHT)


def test_room_that_was_made_is_found_again(tmp_path, said, monkeypatch):
    monkeypatch.setattr(kept_images, "LOOK_AGAIN_S", -1.0)
    kept = KeptImages(tmp_path, max(len(DARK), len(BRIGHT)), said.append)
    kept.keep("cat", DARK)
    for path in tmp_path.glob("*/*"):
        path.unlink()
    assert kept.keep("cat", BRIGHT)


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("cat", "cat"),
        ("größer als <alle>", "größer als <alle>"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("and/or", "and%2For"),
        ("../../etc/cron.d", "%2E.%2F..%2Fetc%2Fcron.d"),
        ("/etc", "%2Fetc"),
    ],
)
def test_no_name_of_a_class_leads_out_of_the_folder(tmp_path, said, label, folder):
    assert folder_name(label) == folder
    root = tmp_path / "root"
    root.mkdir()
    assert KeptImages(root, 10**6, said.append).keep(label, DARK)
    assert [path.name for path in root.iterdir()] == [folder]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_disk_that_fails_loses_no_feedback_and_is_said_once(kept, tmp_path, said):
    (tmp_path / "cat").write_text("a file in the folder's place", encoding="utf-8")
    assert not kept.keep("cat", DARK) and not kept.keep("cat", BRIGHT)
    assert said == [f"an image cannot be kept in {tmp_path}: File exists"]
    assert kept.keep("dog", DARK)


def test_half_a_file_is_never_there(kept, tmp_path, monkeypatch):
    seen = []

    def replace(self, target):
        seen.append((self.read_bytes(), Path(target).exists(), self.name.startswith(".")))
        os.replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    kept.keep("cat", DARK)
    assert seen == [(DARK, False, True)]


def test_many_at_once_stay_within_the_quota(tmp_path, said):
    images = [one_coloured(value) for value in range(64)]
    kept = KeptImages(tmp_path, sum(map(len, images)) // 2, said.append)
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda image: kept.keep("cat", image), images))
    assert sum(done) == len(files(tmp_path)["cat"]) < 64
    assert sum(map(len, files(tmp_path)["cat"])) <= sum(map(len, images)) // 2
