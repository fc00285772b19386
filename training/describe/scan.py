"""Read every image of a folder once, and keep of each what the description needs: never the pixels themselves."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from service.errors import Problem
from service.images.decode_work import DecodeWork
from service.images.image_file import open_image
from training.folders import SPLITS, class_folders, has_splits, printable

THUMBNAIL_PX = 16  # a side of what near duplicates are compared by
MAX_SIDE_PX = 4096  # to which a JPEG may be reduced when it is read
NO_SPLIT = "all"


@dataclass(frozen=True)
class ImageFile:
    """What is known of one file."""

    path: Path
    split: str  # "train", "test", or NO_SPLIT
    label: str
    problem: str = ""  # why it cannot be read
    size_px: tuple[int, int] = (0, 0)  # width, height
    format: str = ""
    mode: str = ""
    pixels_sha256: str = ""  # of the decoded pixels and the size: the same image in another file has the same
    thumbnail: np.ndarray | None = None  # uint8 [16, 16, 3]
    sums: np.ndarray | None = None  # of the pixels, from 0 to 1, and of their squares: float64 [2, 3]


def scan(folder: Path) -> list[ImageFile]:
    """Every image of the class folders. Raises DataError when there are none."""
    if has_splits(folder):
        found = {split: class_folders(folder / split) for split in SPLITS}
    else:
        found = {NO_SPLIT: class_folders(folder)}
    files = [
        (path, split, printable(label))
        for split, labels in found.items()
        for label, paths in labels.items()
        for path in paths
    ]
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda file: read_image(*file), files, chunksize=16)
        return list(tqdm(read, "images", len(files), leave=False, mininterval=1))


def read_image(path: Path, split: str, label: str) -> ImageFile:
    """One file; what cannot be read says why, in the service's words."""
    try:
        with open_image(path.read_bytes(), MAX_SIDE_PX, DecodeWork()) as image:
            size, kind, mode = image.size, str(image.format), image.mode
            colours = on_white(image)
    except (Problem, OSError, ValueError, SyntaxError) as error:
        return ImageFile(path, split, label, " ".join(str(error).split()) or type(error).__name__)
    pixels = np.asarray(colours)
    digest = hashlib.sha256(f"{size}".encode() + pixels.tobytes()).hexdigest()
    small = np.asarray(colours.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX))
    values = pixels.reshape(-1, 3).astype(np.float32) / 255
    sums = np.stack([values.mean(0, dtype=np.float64), np.square(values).mean(0, dtype=np.float64)])
    return ImageFile(path, split, label, "", size, kind, mode, digest, small, sums)


def on_white(image: Image.Image) -> Image.Image:
    """In RGB, with white where it is transparent, as the service sees it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")


def thumbnail_png(path: Path, side_px: int) -> bytes:
    """A small PNG for the page."""
    with open_image(path.read_bytes(), side_px * 4, DecodeWork()) as image:
        small = on_white(image)
    small.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
