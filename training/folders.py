"""Folders of images: one folder for each class, in splits or not; and those of golden sets."""

from __future__ import annotations

import json
from pathlib import Path

from training.errors import DataError, FolderError

SPLITS = ("train", "test")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".ppm", ".tif", ".tiff"})
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
        raise DataError(f"{root / empty[0]} holds no images; fill the folder or delete it")
    return files


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
