"""The pictures of a run: which ones, in which bytes, with which labels.

Class folders and the golden set are posted as their files are; torchvision's CIFAR-10 holds bare pixels, which are
packed as PNG, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from eval.dataset.sampling import stratified
from eval.errors import ImagesError
from eval.samples.model import ImageEntry
from service.schema import IMAGE_TYPES

GOLDEN = Path(__file__).parent.parent / "golden"
GOLDEN_SOURCE = "golden set (synthetic, bundled)"
CACHE = Path.home() / ".cache" / "cloudtrial"
BATCHES = "cifar-10-batches-py"  # the folder in which torchvision keeps CIFAR-10
CIFAR10_TEST_IMAGES = 10_000
PROBE_S = 4.0  # for the first answer of the download's host; without a network the demo shall not wait
STALL_S = 15.0  # without a byte, and the download has failed
SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
            ".gif": "image/gif", ".bmp": "image/bmp"}  # fmt: skip

Say = Callable[[str], None]


@dataclass(frozen=True)
class Picture:
    """One picture, as it is posted."""

    entry: ImageEntry
    data: bytes
    media_type: str


@dataclass(frozen=True)
class ImageSet:
    """The pictures of a run, in the order of its manifest."""

    source: str  # what they are, in words
    classes: tuple[str, ...]  # in the order of their ids
    pictures: tuple[Picture, ...]
    reference: tuple[tuple[float, ...], ...] | None = None  # the golden set's probabilities, by picture
    reference_version: str | None = None  # of the model that gave them

    @property
    def entries(self) -> list[ImageEntry]:
        return [picture.entry for picture in self.pictures]

    @property
    def sha256(self) -> str:
        """Of names, checksums and labels: two runs with the same value posted the same."""
        rows = [[entry.name, entry.sha256, entry.label] for entry in self.entries]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class _Found:
    """A picture that has not been read yet."""

    name: str
    label: int
    media_type: str
    read: Callable[[], bytes]


def open_images(wanted: str | None, limit: int | None, seed: int, say: Say) -> ImageSet:
    """The pictures that `--images` names, or the best that are at hand; `limit` of them, every class alike.

    `wanted` is "golden", "cifar10", a folder, or None. Raises ImagesError.
    """
    if wanted == "golden":
        return _golden(limit, seed)
    if wanted == "cifar10":
        found, source = _torchvision_set(CACHE, say)
    elif wanted is not None:
        found, source = _folder_set(Path(wanted).expanduser())
    elif folder := os.environ.get("CIFAR10_DIR"):
        found, source = _folder_set(Path(folder).expanduser())
    else:
        try:
            found, source = _torchvision_set(CACHE, say)
        except ImagesError as error:
            say(f"Images: the golden set, because {error}. Use --images DIR or $CIFAR10_DIR for real pictures.")
            return _golden(limit, seed)
    chosen = stratified([one.label for one in found], limit, seed)
    pictures = tuple(_read(found[index]) for index in chosen)
    return ImageSet(_described(source, len(chosen), len(found)), known_classes(), pictures)


def known_classes() -> tuple[str, ...]:
    """The classes of the shipped network, as the golden set lists them."""
    return tuple(_golden_manifest()["classes"])


def _described(source: str, chosen: int, found: int) -> str:
    return source if chosen == found else f"{source}; a sample of {chosen:,} of {found:,}"


def _read(one: _Found) -> Picture:
    try:
        data = one.read()
    except OSError as error:
        raise ImagesError(f"cannot read {one.name}: {error.strerror}") from None
    checksum = hashlib.sha256(data).hexdigest()
    return Picture(ImageEntry(one.name, checksum, one.label), data, one.media_type)


# The golden set


def _golden_manifest() -> dict[str, Any]:
    path = GOLDEN / "manifest.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ImagesError(f"cannot read {path}: {error}; `make golden` writes it again") from None


def _golden(limit: int | None, seed: int) -> ImageSet:
    manifest = _golden_manifest()
    rows = manifest["images"]
    chosen = [rows[index] for index in stratified([row["label"] for row in rows], limit, seed)]
    pictures = tuple(
        _read(_Found(row["name"], row["label"], "image/png", (GOLDEN / row["name"]).read_bytes)) for row in chosen
    )
    for picture, row in zip(pictures, chosen, strict=True):
        if picture.entry.sha256 != row["sha256"]:
            raise ImagesError(f"{GOLDEN / row['name']} is not the file of the manifest; `make golden` makes both again")
    return ImageSet(
        _described(GOLDEN_SOURCE, len(chosen), len(rows)),
        tuple(manifest["classes"]),
        pictures,
        tuple(tuple(row["probabilities"]) for row in chosen),
        manifest["model_version"],
    )


# Folders


def _folder_set(folder: Path) -> tuple[list[_Found], str]:
    """Pictures of torchvision's layout, of FOLDER/test/CLASS/*, or of FOLDER/CLASS/*."""
    if not folder.is_dir():
        raise ImagesError(f"there is no folder {folder}: name one that holds CLASS/* or test/CLASS/*")
    for root in (folder, folder.parent):
        if (root / BATCHES).is_dir() and folder in (root, root / BATCHES):
            return _torchvision_pictures(root, download=False)
    return _class_folders(folder / "test" if (folder / "test").is_dir() else folder)


def _class_folders(root: Path) -> tuple[list[_Found], str]:
    classes = known_classes()
    found: list[_Found] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if folder.name not in classes:
            raise ImagesError(f"{folder} is a class that the network does not know; it knows {', '.join(classes)}")
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
        label = classes.index(folder.name)
        found += [_Found(f"{folder.name}/{p.name}", label, SUFFIXES[p.suffix.lower()], p.read_bytes) for p in files]
    if not found:
        raise ImagesError(f"{root} holds no pictures: expected CLASS/*.png or the like, of the classes {classes}")
    return found, _folder_source(root, found, len(classes))


def _folder_source(root: Path, found: Sequence[_Found], classes: int) -> str:
    formats = "/".join(sorted({IMAGE_TYPES[one.media_type] for one in found}))
    sizes = Counter(one.label for one in found)
    is_cifar10 = set(sizes.values()) == {CIFAR10_TEST_IMAGES // classes} and len(found) == CIFAR10_TEST_IMAGES
    origin = "CIFAR-10 test set" if is_cifar10 else f"{root.name}/"
    return f"{origin}, class folders of {formats} files"


# torchvision


def _torchvision_set(cache: Path, say: Say) -> tuple[list[_Found], str]:
    """The copy in the cache; downloaded first if it is not there and its host answers soon."""
    try:
        return _torchvision_pictures(cache, download=False)
    except FileNotFoundError:
        pass
    from torchvision.datasets import CIFAR10

    _probe(CIFAR10.url)
    say(f"Images: downloading CIFAR-10 (170 MB, once) into {cache}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_S)  # torchvision sets none, and a stalled download would hang for ever
    try:
        return _torchvision_pictures(cache, download=True)
    except (OSError, RuntimeError) as error:
        raise ImagesError(f"the download of CIFAR-10 failed: {error}") from None
    finally:
        socket.setdefaulttimeout(before)


def _torchvision_pictures(root: Path, *, download: bool) -> tuple[list[_Found], str]:
    """Raises FileNotFoundError when torchvision has no whole copy there and may not download one."""
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise ImagesError(f"torchvision, which reads CIFAR-10, cannot be imported ({error})") from None
    try:
        dataset = CIFAR10(root, train=False, download=download)
    except RuntimeError as error:
        if download:
            raise
        if (root / BATCHES).is_dir() and root != CACHE:
            raise ImagesError(f"{root / BATCHES} is not a whole copy of CIFAR-10: {error}") from None
        raise FileNotFoundError(root) from None
    if tuple(dataset.classes) != known_classes():
        raise ImagesError(f"the network knows {known_classes()}, not CIFAR-10's classes")
    found = [
        _Found(f"{dataset.classes[label]}/{index:05d}.png", label, "image/png", _png_of(pixels))
        for index, (pixels, label) in enumerate(zip(dataset.data, dataset.targets, strict=True))
    ]
    return found, "CIFAR-10 test set, original pixels as PNG"


def _png_of(pixels: Any) -> Callable[[], bytes]:
    """Packs when called. The settings are fixed, so that the same pixels give the same bytes."""

    def pack() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", optimize=False, compress_level=6)
        return buffer.getvalue()

    return pack


def _probe(url: str) -> None:
    """Raises ImagesError unless the host of `url` answers within PROBE_S, name look-up included."""
    failures: list[str] = ["no answer in time"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_S):
                failures.clear()
        except (OSError, ValueError) as error:
            failures[0] = str(getattr(error, "reason", error))

    asking = threading.Thread(target=ask, daemon=True)  # a name look-up knows no timeout, so it may be left behind
    asking.start()
    asking.join(PROBE_S)
    if failures:
        raise ImagesError(f"CIFAR-10 is not in {CACHE} and its host cannot be reached ({failures[0]})")
