from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import shutil
import socket
import tarfile
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from eval.dataset import golden
from eval.dataset import images as images_module
from eval.dataset.golden import GOLDEN_SOURCE
from eval.dataset.images import folder_classes, load_images
from eval.errors import ImagesError
from tests.conftest import picture_bytes
from tests.helpers.fake_endpoint import CLASSES, closed_port


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    """No picture folder of this machine, no cache of this user, no network."""
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.setattr(images_module, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{closed_port()}/cifar.tar.gz")


@pytest.fixture
def folders(tmp_path):
    """Class folders with a few JPEG files each."""
    root = tmp_path / "pictures"
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(4):
            size = (32, 33 + 4 * label + number)
            (root / name / f"{number:04d}.jpg").write_bytes(picture_bytes(size=size, fmt="JPEG"))
    return root


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """CIFAR-10 in torchvision's layout, with a handful of pictures and checksums to match."""
    root = tmp_path / "torchvision"
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    test = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
    name, checksum = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    monkeypatch.setattr(CIFAR10, "test_list", [list(write("test_batch", test))])
    monkeypatch.setattr(CIFAR10, "train_list", [])
    return root


def quiet(_):
    pass


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_class_folders_are_posted_as_their_own_bytes(folders):
    found = load_images(str(folders), None, 0, quiet)
    assert len(found.images) == 40
    for picture in found.images:
        data = (folders / picture.entry.name).read_bytes()
        assert picture.data == data
        assert picture.entry.sha256 == hashlib.sha256(data).hexdigest()
        assert picture.media_type == "image/jpeg"
        assert picture.entry.label == CLASSES.index(picture.entry.name.split("/")[0])


def test_the_source_names_the_file_format(folders):
    assert load_images(str(folders), None, 0, quiet).source == "pictures/, class folders of JPEG files"


def test_a_whole_cifar10_test_set_in_folders_is_called_so(folders, monkeypatch):
    monkeypatch.setattr(images_module, "CIFAR10_TEST_IMAGES", 40)
    assert load_images(str(folders), None, 0, quiet).source == "CIFAR-10 test set, class folders of JPEG files"
    for folder in folders.iterdir():
        folder.rename(folder.with_name(f"my-{folder.name}"))
    others = folder_classes(folders)
    found = load_images(str(folders), None, 0, quiet, own_classes=True, class_names=others)
    assert found.source == "pictures/, class folders of JPEG files"


def test_a_folder_with_test_inside_means_that(folders, tmp_path):
    (tmp_path / "both").mkdir()
    folders.rename(tmp_path / "both" / "test")
    assert len(load_images(str(tmp_path / "both"), None, 0, quiet).images) == 40


def special_files(folder):
    """One of each kind that is no file of bytes. None may be opened, or one of them would be waited for."""
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket.png"))
    (folder / "dangling.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "device.png").symlink_to("/dev/zero")


def test_what_is_no_image_is_skipped_and_counted(folders):
    before, told, cat = load_images(str(folders), None, 0, quiet), [], folders / "cat"
    (cat / "._1.jpg").write_bytes(b"\0\5\x16\7")  # as a Mac puts it beside 1.jpg
    (cat / "Thumbs.db").write_bytes(b"x")
    (cat / "1.heic").write_bytes(b"x")
    (cat / "9.jpg").write_bytes(picture_bytes(fmt="JPEG")[:200])
    (cat / "8.png").write_bytes(picture_bytes()[:-40])  # of which the head can be read
    (cat / "9.png").write_bytes(b"GIF8 <html>")
    (cat / "empty.png").touch()
    (folders / "README").write_bytes(b"x")
    for folder in (folders / "__MACOSX", folders / ".git", cat / "more"):
        folder.mkdir()
    special_files(cat)
    found = load_images(str(folders), None, 0, told.append)
    assert found.images == before.images
    assert found.source.endswith("; 16 files skipped")
    (line,) = told
    for part in (
        "Images: 16 files skipped: 3 hidden (.git, __MACOSX, cat/._1.jpg); ",
        "1 outside of class folders (README)",
        "1 a subfolder of a class (cat/more)",
        "2 with another ending than .png, .jpg, .jpeg, .jpe, .jfif, .webp, .gif, .bmp (cat/1.heic, cat/Thumbs.db)",
        "4 damaged, or not what the service reads (cat/8.png: the PNG image of ",
        "cat/9.jpg: the JPEG image of 200 bytes",
        "cat/9.png: the 11 bytes are no PNG",
        "5 not readable as a file (cat/dangling.png: No such file or directory, cat/device.png",
    ):
        assert part in line


def test_a_folder_of_damaged_images_is_an_error_that_says_why(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"x")
    with pytest.raises(
        ImagesError, match=r"no image that can be read: 1 file skipped: .*cat/1.png: the 1 bytes are no"
    ):
        load_images(str(tmp_path), None, 0, quiet)


def test_folders_of_some_classes_only_keep_their_ids(folders):
    for name in CLASSES[:8]:
        for path in (folders / name).iterdir():
            path.unlink()
        (folders / name).rmdir()
    assert {p.entry.label for p in load_images(str(folders), None, 0, quiet).images} == {8, 9}


def test_an_unknown_class_folder_is_an_error_that_names_it(folders):
    (folders / "zebra").mkdir()
    with pytest.raises(ImagesError, match="zebra is not a class of the network; its classes are airplane, "):
        load_images(str(folders), None, 0, quiet)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ImagesError, match=r"there is no folder .*nowhere"):
        load_images(str(tmp_path / "nowhere"), None, 0, quiet)


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ImagesError, match="has no images"):
        load_images(str(tmp_path), None, 0, quiet)


@pytest.mark.parametrize(
    ("layout", "classes", "told"),
    [
        pytest.param(
            ("apple/a.png",), ("pear", "plum"), "apple is none of the classes pear, plum: rename it", id="list"
        ),
        pytest.param((), None, "has no images: expected CLASS/*.png or similar, a folder for each class", id="empty"),
        pytest.param(("a.png",), None, "(a.png)): expected CLASS/*.png or similar, a folder for each class", id="flat"),
    ],
)
def test_folders_of_own_classes_are_told_of_no_other_ones(tmp_path, layout, classes, told):
    for name in layout:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture_bytes())
    with pytest.raises(ImagesError) as error:
        load_images(str(tmp_path), None, 0, quiet, own_classes=True, class_names=classes)
    assert told in str(error.value) and "airplane" not in str(error.value) and "network" not in str(error.value)


def test_a_limit_takes_every_class_alike_and_the_source_says_so(folders):
    found = load_images(str(folders), 20, 5, quiet)
    assert set(Counter(p.entry.label for p in found.images).values()) == {2}
    assert found.source.endswith("; a sample of 20 of 40")
    assert found.sha256 == load_images(str(folders), 20, 5, quiet).sha256
    assert found.sha256 != load_images(str(folders), 20, 6, quiet).sha256


def test_the_manifest_checksum_changes_with_a_byte_of_an_image(folders):
    before = load_images(str(folders), None, 0, quiet).sha256
    with (folders / "cat" / "0001.jpg").open("ab") as file:
        file.write(b"x")
    assert load_images(str(folders), None, 0, quiet).sha256 != before


def test_the_golden_set_comes_with_its_reference_answers():
    found = load_images("golden", None, 0, quiet)
    assert found.source == GOLDEN_SOURCE
    assert found.reference_probabilities and len(found.reference_probabilities) == len(found.images) == 100
    assert found.reference_model_version
    assert found.classes == CLASSES


def test_limited_golden_set_keeps_images_with_their_labels():
    everything, some = (load_images("golden", limit, 0, quiet) for limit in (None, 20))
    assert everything.reference_probabilities and some.reference_probabilities
    by_name = dict(zip((p.entry.name for p in everything.images), everything.reference_probabilities, strict=True))
    assert [by_name[p.entry.name] for p in some.images] == list(some.reference_probabilities)


def test_a_changed_golden_image_is_an_error(tmp_path, monkeypatch, golden_dir):
    copy = tmp_path / golden_dir.name
    shutil.copytree(golden_dir, copy)
    some = next(copy.glob("*.png"))
    some.write_bytes(picture_bytes())
    monkeypatch.setattr(golden, "GOLDEN_DIR", tmp_path)
    with pytest.raises(ImagesError, match=f"{some.name} differs from the manifest"):
        load_images("golden", None, 0, quiet)


@pytest.mark.parametrize("where", ["", CIFAR10.base_folder], ids=["root", "batches"])
def test_torchvisions_layout_becomes_lossless_png(batches, where):
    found = load_images(str(batches / where), None, 0, quiet)
    assert found.source == "CIFAR-10 test set, original pixels as PNG"
    dataset = CIFAR10(batches, train=False)
    for picture, pixels, label in zip(found.images, dataset.data, dataset.targets, strict=True):
        assert picture.media_type == "image/png"
        assert picture.entry.label == label
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.data))), pixels)


def test_packing_the_same_pixels_twice_gives_the_same_bytes(batches):
    assert load_images(str(batches), None, 0, quiet).sha256 == load_images(str(batches), None, 0, quiet).sha256


def test_a_damaged_torchvision_folder_is_an_error(batches):
    (batches / CIFAR10.base_folder / "test_batch").write_bytes(b"x")
    with pytest.raises(ImagesError, match="is not a complete copy of CIFAR-10"):
        load_images(str(batches), None, 0, quiet)


def test_the_cache_is_used_without_a_word(batches, monkeypatch):
    monkeypatch.setattr(images_module, "CACHE_DIR", batches)
    said = []
    assert len(load_images(None, None, 0, said.append).images) == 20
    assert said == []


@contextlib.contextmanager
def served_archive(batches, tmp_path, monkeypatch):
    """The batches as the archive that CIFAR-10's host has, with its checksums, on a server of our own."""
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(batches / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(images_module, "CIFAR10_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        try:
            yield
        finally:
            server.shutdown()


def test_missing_dataset_is_downloaded_to_the_cache_in_one_line(batches, tmp_path, monkeypatch):
    said = []
    with served_archive(batches, tmp_path, monkeypatch):
        assert len(load_images(None, None, 0, said.append).images) == 20
    assert len(said) == 1 and said[0].startswith("Images: downloading CIFAR-10")
    assert (images_module.CACHE_DIR / CIFAR10.base_folder).is_dir()


def test_an_archive_with_another_sha256_is_not_unpacked(batches, tmp_path, monkeypatch):
    with served_archive(batches, tmp_path, monkeypatch):
        monkeypatch.setattr(images_module, "CIFAR10_SHA256", "0" * 64)
        with pytest.raises(ImagesError, match=r"has sha256 .*, expected 0000"):
            load_images("cifar10", None, 0, quiet)
    assert list(images_module.CACHE_DIR.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["\x1b[31m.png", "a\n.png", "\u202egpj.png", "\udc80.png"], ids=["esc", "lf", "bidi", "bytes"]
)
def test_an_image_with_a_name_to_hide_in_is_skipped(folders, name):
    told = []
    (folders / "cat" / name).write_bytes(picture_bytes())
    assert len(load_images(str(folders), None, 0, told.append).images) == 40
    assert "1 with a name too long, or with control characters" in told[0]


def test_what_a_link_leads_to_is_posted_only_if_an_image(folders, tmp_path):
    (tmp_path / "secret").write_text("[default]\naws_secret_access_key = x\n")
    (folders / "cat" / "9.png").symlink_to(tmp_path / "secret")
    assert len(load_images(str(folders), None, 0, quiet).images) == 40


def test_golden_set_is_used_offline_and_one_line_says_why():
    said = []
    assert load_images(None, None, 0, said.append).source == GOLDEN_SOURCE
    assert len(said) == 1
    assert "golden set, because CIFAR-10 is not in" in said[0] and "cannot be reached" in said[0]


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(images_module, "PROBE_TIMEOUT_S", 0.1)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{mute.getsockname()[1]}/cifar.tar.gz")
        assert load_images(None, None, 0, quiet).source == GOLDEN_SOURCE


def test_asked_for_by_name_a_missing_cifar10_is_an_error():
    with pytest.raises(ImagesError, match="its host cannot be reached"):
        load_images("cifar10", None, 0, quiet)


def test_environment_folder_precedes_cache_and_golden_set(folders, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(folders))
    assert load_images(None, None, 0, quiet).source.startswith("pictures/")
