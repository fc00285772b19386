"""The images of a run: the bytes that are posted, and their labels.

The files of class folders and of the golden set are posted as they are; torchvision's CIFAR-10 has bare pixels, which
are encoded as PNG without loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from eval.dataset.golden import load_golden_set
from eval.dataset.image_set import MEDIA_TYPE_BY_SUFFIX, ImageSet, ImageSource, describe_sample
from eval.dataset.rows import ROWS_FILE, is_rows, is_tabular, load_rows
from eval.dataset.sampling import stratified_sample
from eval.errors import EvalError, ImagesError
from eval.samples.model import MAX_IMAGES
from eval.validation import MAX_NAME_CHARS, read_file
from infra.errors import ModelError
from infra.models import DEFAULT_MODEL, read_model
from service.errors import Problem
from service.images.decode_work import DecodeWork
from service.images.image_file import open_image
from service.model import Bundle
from service.schema import IMAGE_TYPES, MAX_BODY_BYTES

CACHE_DIR = Path.home() / ".cache" / "cloudtrial"
CIFAR10_BATCHES_DIR = "cifar-10-batches-py"  # the folder in which torchvision keeps CIFAR-10
CIFAR10_TEST_IMAGES = 10_000
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"  # of its archive
PROBE_TIMEOUT_S = 4.0  # for the first response of the download host, so that the demo starts soon without a network
DOWNLOAD_STALL_TIMEOUT_S = 15.0  # without a byte; then the download has failed
ARCHIVE_LEFTOVERS = "__MACOSX"  # a folder that a Mac puts into each zip file
DRAFT_PX = 128  # to which a JPEG may be reduced when it is tried
MAX_SKIPPED_SHOWN = 3  # for each reason
MAX_CLASSES_SHOWN = 10  # in a message

Notify = Callable[[str], None]
Activity = Callable[[str], contextlib.AbstractContextManager[object]]  # shows that something is going on


@dataclass
class _SkippedFiles:
    """What a folder of images holds that is not posted, by the reason."""

    root: Path = field(default_factory=Path)
    names_by_reason: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: Path | str, detail: str = "") -> None:
        name = str(path.relative_to(self.root)) if isinstance(path, Path) else path
        self.names_by_reason.setdefault(reason, []).append(f"{name}: {detail}" if detail else name)

    def count_text(self) -> str:
        number = sum(map(len, self.names_by_reason.values()))
        return f"{number:,} {'file' if number == 1 else 'files'} skipped" if number else ""

    def summary(self) -> str:
        """How many, with the first names for each reason."""
        reasons = []
        for reason, names in self.names_by_reason.items():
            shown = ", ".join(names[:MAX_SKIPPED_SHOWN]) + (", ..." if len(names) > MAX_SKIPPED_SHOWN else "")
            reasons.append(f"{len(names):,} {reason} ({shown})")
        return f"{self.count_text()}: {'; '.join(reasons)}"


def _unseen(_: str) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


def load_images(
    selection: str | None,
    limit: int | None,
    seed: int,
    notify: Notify,
    activity: Activity = _unseen,
    *,
    own_classes: bool = False,
    class_names: Sequence[str] | None = None,
    model: str = DEFAULT_MODEL,
) -> ImageSet:
    """The images or rows that `--images` selects, or the best available ones; at most `limit`, stratified by class.

    selection: "golden", "cifar10", a folder, a CSV file, or None. model: the bundle of models/ that is measured.
    own_classes: whether folders and files may have other classes than it; then they are numbered in the order of their
    names, or of `class_names`. Files of a folder that are no images are skipped, and `notify` is told how many. Raises
    ImagesError.
    """
    bundle = _read_bundle(model)
    path = None if selection in (None, "golden", "cifar10") else Path(selection or "").expanduser()
    if selection == "golden" or (selection is None and model != DEFAULT_MODEL):
        return load_golden_set(bundle, limit, seed)
    if path and is_rows(path):
        file = path / ROWS_FILE if path.is_dir() else path
        known = bundle if not own_classes or is_tabular(bundle) else None
        return load_rows(file, f"{file.parent.name or '.'}/{file.name}", known, limit, seed)
    if is_tabular(bundle) and not own_classes:
        raise ImagesError(f"{model} takes rows of numbers: give --images a CSV file, or a folder with {ROWS_FILE}")
    classes = tuple(class_names or _classes_of(path, bundle.classes)) if path and own_classes else bundle.classes
    return _load_image_files(selection, path, bundle, classes, limit, seed, notify, activity, own_classes=own_classes)


def _load_image_files(
    selection: str | None, path: Path | None, bundle: Bundle, classes: tuple[str, ...], limit: int | None, seed: int,
    notify: Notify, activity: Activity, *, own_classes: bool,
) -> ImageSet:  # fmt: skip
    skipped = _SkippedFiles()
    if path:
        sources, source = _list_directory(path, skipped, classes, own_classes=own_classes)
    elif selection is None and (folder := os.environ.get("CIFAR10_DIR")):
        sources, source = _list_directory(Path(folder).expanduser(), skipped, classes)
    else:
        try:
            sources, source = _list_cached_cifar10(CACHE_DIR, notify, activity, classes)
        except ImagesError as error:
            if selection:
                raise
            notify(f"Images: the golden set, because {error}. Use --images DIR or $CIFAR10_DIR for real images.")
            return load_golden_set(bundle, limit, seed)
    chosen_indices = stratified_sample([source_file.label for source_file in sources], limit, seed)
    images = []
    with activity("Reading the images"):
        for index in chosen_indices:
            try:
                images.append(sources[index].load())
            except Problem as problem:
                skipped.add("damaged, or not what the service reads", sources[index].name, problem.detail)
            except (OSError, EvalError) as error:
                skipped.add("not readable as a file", sources[index].name, getattr(error, "strerror", None) or "")
    if skipped.names_by_reason:
        notify(f"Images: {skipped.summary()}")
        source = f"{source}; {skipped.count_text()}"
    if not images:
        raise ImagesError(f"{skipped.root} has no image that can be read: {skipped.summary()}")
    return ImageSet(
        describe_sample(source, len(chosen_indices), len(sources)),
        classes,
        tuple(images),
        model=bundle.folder.name if classes == bundle.classes else None,
    )


def _read_bundle(model: str) -> Bundle:
    try:
        return read_model(model)
    except ModelError as error:
        raise ImagesError(str(error)) from None


# Folders


def folder_classes(directory: Path, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of the folders in their order; the known classes of torchvision's folder."""
    root = directory / "test" if (directory / "test").is_dir() else directory
    if not root.is_dir() or (directory / CIFAR10_BATCHES_DIR).is_dir():
        return known
    return tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not _is_hidden(path)))


def _classes_of(directory: Path, known: tuple[str, ...]) -> tuple[str, ...]:
    """The model's classes where the folders are of those, else the folders' names in their order."""
    names = folder_classes(directory, known)
    return known if set(names) <= set(known) else names


def _list_directory(
    directory: Path, skipped: _SkippedFiles, classes: Sequence[str], *, own_classes: bool = False
) -> tuple[list[ImageSource], str]:
    """Images in torchvision's layout, in DIR/test/CLASS/*, or in DIR/CLASS/*."""
    if not directory.is_dir():
        raise ImagesError(f"there is no folder {directory}: name one that holds CLASS/* or test/CLASS/*")
    for root in (directory, directory.parent):
        if (root / CIFAR10_BATCHES_DIR).is_dir() and directory in (root, root / CIFAR10_BATCHES_DIR):
            return _list_cifar10(root, classes, download=False)
    try:
        root = directory / "test" if (directory / "test").is_dir() else directory
        return _list_class_dirs(root, skipped, classes, own_classes=own_classes)
    except OSError as error:
        raise ImagesError(f"cannot read {error.filename}: {error.strerror}") from None


def _list_class_dirs(
    root: Path, skipped: _SkippedFiles, classes: Sequence[str], *, own_classes: bool
) -> tuple[list[ImageSource], str]:
    sources: list[ImageSource] = []
    skipped.root = root
    for class_dir in sorted(root.iterdir()):
        if _is_hidden(class_dir):
            skipped.add("hidden", class_dir)
        elif not class_dir.is_dir():
            skipped.add("outside of class folders", class_dir)
        elif class_dir.name not in classes:
            raise ImagesError(_unknown_class_text(class_dir, classes, own_classes))
        else:
            sources += _list_class_dir(class_dir, classes.index(class_dir.name), skipped)
    if not sources:
        found = f" ({skipped.summary()})" if skipped.names_by_reason else ""
        expected = "a folder for each class" if own_classes else f"of the classes {_shown(classes)}"
        raise ImagesError(f"{root} has no images{found}: expected CLASS/*.png or similar, {expected}")
    if len(sources) > MAX_IMAGES:
        raise ImagesError(f"{root} has {len(sources):,} images, more than {MAX_IMAGES:,}: name a smaller folder")
    return sources, _describe_directory(root, sources, classes)


def _unknown_class_text(class_dir: Path, classes: Sequence[str], own_classes: bool) -> str:
    if own_classes:
        return f"{class_dir} is none of the classes {_shown(classes)}: rename it, or add its name with --classes FILE"
    return (
        f"{class_dir} is not a class of the network; its classes are {_shown(classes)}. A service with other classes "
        "is measured by --target alone, without twins and stacks"
    )


def _list_class_dir(class_dir: Path, label: int, skipped: _SkippedFiles) -> list[ImageSource]:
    """The images of one class by their names. What they hold is not known yet."""
    sources = []
    for path in sorted(class_dir.iterdir()):
        name, media_type = f"{class_dir.name}/{path.name}", MEDIA_TYPE_BY_SUFFIX.get(path.suffix.lower())
        if _is_hidden(path):
            skipped.add("hidden", path)
        elif path.is_dir():
            skipped.add("a subfolder of a class", path)
        elif media_type is None:
            skipped.add(f"with another ending than {', '.join(MEDIA_TYPE_BY_SUFFIX)}", path)
        elif not name.isprintable() or len(name) > MAX_NAME_CHARS:
            skipped.add("with a name too long, or with control characters", path)
        else:
            sources.append(ImageSource(name, label, media_type, lambda path=path: _read_image_file(path)))
    return sources


def _shown(classes: Sequence[str]) -> str:
    """The classes for an error, the first of many."""
    return ", ".join(classes[:MAX_CLASSES_SHOWN]) + (", ..." if len(classes) > MAX_CLASSES_SHOWN else "")


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == ARCHIVE_LEFTOVERS


def _read_image_file(path: Path) -> bytes:
    """The bytes of an image that the service can read, as it reads it; nothing else is posted to an endpoint.

    Raises Problem for other bytes; OSError and EvalError for what is no regular file, or too large.
    """
    data = read_file(path, MAX_BODY_BYTES)
    with open_image(data, DRAFT_PX, DecodeWork()) as image:
        image.load()
    return data


def _describe_directory(root: Path, sources: Sequence[ImageSource], classes: Sequence[str]) -> str:
    formats = "/".join(sorted({IMAGE_TYPES[source_file.media_type] for source_file in sources}))
    class_sizes = Counter(source_file.label for source_file in sources)
    of_each = {label: CIFAR10_TEST_IMAGES // len(classes) for label in range(len(classes))}
    is_cifar10 = tuple(classes) == read_model(DEFAULT_MODEL).classes and class_sizes == of_each
    dataset_name = "CIFAR-10 test set" if is_cifar10 else f"{root.name}/"
    return f"{dataset_name}, class folders of {formats} files"


# torchvision


def _list_cached_cifar10(
    cache_dir: Path, notify: Notify, activity: Activity, classes: Sequence[str]
) -> tuple[list[ImageSource], str]:
    """The copy in the cache; downloaded first if it is missing and its host responds in time."""
    with activity("Looking for CIFAR-10"):
        with contextlib.suppress(FileNotFoundError):
            return _list_cifar10(cache_dir, classes, download=False)
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_url

        _check_reachable(CIFAR10.url)
    notify(f"Images: downloading CIFAR-10 (170 MB, once) into {cache_dir}")
    previous_timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_STALL_TIMEOUT_S)  # torchvision sets none: a stalled download would hang
    try:
        download_url(CIFAR10.url, cache_dir, CIFAR10.filename, CIFAR10.tgz_md5)  # shows a bar of its own
        archive = cache_dir / CIFAR10.filename
        with activity("Unpacking CIFAR-10"):
            with archive.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != CIFAR10_SHA256:  # its files are unpacked and unpickled, which MD5 is too weak to vouch for
                archive.unlink()
                raise ImagesError(f"the archive from {CIFAR10.url} has sha256 {sha256}, expected {CIFAR10_SHA256}")
            return _list_cifar10(cache_dir, classes, download=True)
    except (OSError, RuntimeError) as error:
        raise ImagesError(f"the download of CIFAR-10 failed: {error}") from None
    finally:
        socket.setdefaulttimeout(previous_timeout_s)


def _list_cifar10(root: Path, classes: Sequence[str], *, download: bool) -> tuple[list[ImageSource], str]:
    """Raises FileNotFoundError if there is no complete copy and `download` is false."""
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise ImagesError(f"torchvision, which reads CIFAR-10, cannot be imported ({error})") from None
    try:
        dataset = CIFAR10(root, train=False, download=download)
    except RuntimeError as error:
        if download:
            raise
        if (root / CIFAR10_BATCHES_DIR).is_dir() and root != CACHE_DIR:
            raise ImagesError(f"{root / CIFAR10_BATCHES_DIR} is not a complete copy of CIFAR-10: {error}") from None
        raise FileNotFoundError(root) from None
    if tuple(dataset.classes) != tuple(classes):
        raise ImagesError(f"the model's classes are {_shown(classes)}, not CIFAR-10's")
    sources = [
        ImageSource(f"{dataset.classes[label]}/{index:05d}.png", label, "image/png", _png_encoder(pixels))
        for index, (pixels, label) in enumerate(zip(dataset.data, dataset.targets, strict=True))
    ]
    return sources, "CIFAR-10 test set, original pixels as PNG"


def _png_encoder(pixels: Any) -> Callable[[], bytes]:
    """Encodes when called. The settings are fixed: the same pixels give the same bytes."""

    def encode() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", optimize=False, compress_level=6)
        return buffer.getvalue()

    return encode


def _check_reachable(url: str) -> None:
    """Raises ImagesError unless the host of `url` responds within PROBE_TIMEOUT_S, DNS included."""
    failures: list[str] = ["no response in time"]

    def send_request() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_TIMEOUT_S):
                failures.clear()
        except (OSError, ValueError) as error:
            failures[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=send_request, daemon=True)  # DNS has no timeout, so it may be left behind
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    if failures:
        raise ImagesError(f"CIFAR-10 is not in {CACHE_DIR} and its host cannot be reached ({failures[0]})")
