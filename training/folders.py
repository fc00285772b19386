"""Folders of images: one folder for each class, in splits or not; and those of golden sets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from training.errors import DataError, FolderError

SPLITS = ("train", "test")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".ppm", ".tif", ".tiff"})
SYSTEM_FOLDERS = frozenset({"__MACOSX"})
GOLDEN_MANIFEST = "manifest.json"


def has_splits(folder: Path) -> bool:
    """Whether the folder holds train/ and test/ rather than classes. Raises DataError when it is not there.

    Neither is train/CLASS/* without test/CLASS/*, which would be learnt as a class of the name train.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected {folder}/CLASS/* or {folder}/train/CLASS/* and test/CLASS/*")
    train, test = (list((folder / split).iterdir()) if (folder / split).is_dir() else [] for split in SPLITS)
    if any(map(_is_class, test)):
        return any(map(_is_class, train))
    if any(map(_is_class, train)) and not any(map(_is_image, train)):
        raise DataError(
            f"{folder} holds train/CLASS/* and no test/CLASS/*: name the folder of the test images test, or give "
            f"{folder / 'train'} alone"
        )
    return False


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and path.name not in SYSTEM_FOLDERS


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def printable(name: str) -> str:
    """The name as text that can be written: some system may have written it in another encoding than UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Each class in the order of the names, with its image files. Raises DataError when there are none.

    A file counts by its name; whether it can be read shows when it is.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}: expected a folder for each class in it")
    folders = sorted(path for path in root.iterdir() if _is_class(path))
    if not folders:
        raise DataError(f"{root} holds no class folders: put the images of each class into a folder with its name")
    files = {folder.name: sorted(filter(_is_image, folder.rglob("*"))) for folder in folders}
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        others = skipped_files([root / empty[0]])
        if others:
            raise DataError(
                f"{root / empty[0]} holds {len(others)} files, such as {printable(others[0].name)}, and none ends as an"
                f" image does: convert them to one of {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        raise DataError(f"{root / empty[0]} holds no images; fill the folder or delete it")
    return files


def skipped_files(folders: Iterable[Path]) -> list[Path]:
    """Files in class folders that are left out, as they do not end as an image does; hidden ones are expected."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if not _is_image(path) and not path.name.startswith(".")]


def skipped_files_text(folder: Path) -> str | None:
    """A sentence on what of a data set is left out; None where nothing is."""
    roots = [folder / split for split in SPLITS] if has_splits(folder) else [folder]
    others = skipped_files(each for root in roots for each in sorted(root.iterdir()) if _is_class(each))
    if not others:
        return None
    files = "1 file is" if len(others) == 1 else f"{len(others)} files are"
    return f"{files} left out, as no image ends so: {printable(others[0].name)}{', ...' if len(others) > 1 else ''}"


def image_files(root: Path) -> list[Path]:
    """Every image file below a folder, in the order of the names. Raises DataError when the folder is not there."""
    if not root.is_dir():
        raise DataError(f"no folder {root}: name one with images")
    return sorted(filter(_is_image, root.rglob("*")))


def golden_files(folder: Path) -> list[str]:
    """The images of the golden set that is there; none in a new folder. Raises FolderError where something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    try:
        manifest = json.loads((folder / GOLDEN_MANIFEST).read_text(encoding="utf-8"))
        manifest["model_version"]
        return [Path(entry["name"]).name for entry in manifest["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise FolderError(f"{folder} is there, and is no golden set: name another folder with --out") from None
