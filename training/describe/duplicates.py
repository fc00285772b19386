"""Images that are in the data twice: the same pixels, or nearly the same.

Near duplicates are found by a gradient hash of 256 bits: two images of which at most 15 bits differ agree in one of 16
bands, so that only images of one band's bucket have to be compared. What the hash finds alike has to look alike too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.describe.scan import ImageFile

BANDS, MAX_BITS = 16, 15
MAX_DIFFERENCE = 10.0  # mean of the thumbnails' differences, in 255ths
MIN_CONTRAST = 8.0  # standard deviation of a thumbnail; flatter ones are alike without being duplicates
MAX_BUCKET = 3000


@dataclass(frozen=True)
class Pair:
    """Two files, the first of which comes first in the data."""

    first: ImageFile
    second: ImageFile
    exact: bool

    @property
    def across_splits(self) -> bool:
        return self.first.split != self.second.split

    @property
    def across_classes(self) -> bool:
        return self.first.label != self.second.label


def exact_pairs(files: Sequence[ImageFile]) -> list[Pair]:
    """Each further copy of an image, with the first one of another split or class where there is one."""
    groups: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        groups[file.pixels_sha256].append(file)
    pairs = []
    for group in groups.values():
        for index, file in enumerate(group[1:], 1):
            elsewhere = [each for each in group[:index] if (each.split, each.label) != (file.split, file.label)]
            pairs.append(Pair((elsewhere or group)[0], file, True))
    return pairs


def near_pairs(files: Sequence[ImageFile]) -> list[Pair]:
    """Pairs of different images that look alike: resized, cut a little, brightened or compressed again."""
    thumbnails = np.stack([file.thumbnail for file in files if file.thumbnail is not None])
    bits = _gradient_bits(thumbnails)
    bands = np.packbits(bits, axis=1).view(np.uint16)  # [N, BANDS]
    lively = thumbnails.reshape(len(files), -1).std(1) >= MIN_CONTRAST
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        starts = np.flatnonzero(np.diff(bands[order, band], prepend=-1))
        for bucket in np.split(order, starts[1:]):
            bucket = bucket[lively[bucket]]
            if 1 < len(bucket) <= MAX_BUCKET:
                found |= _alike(bucket, bits, thumbnails)
    return [
        Pair(files[i], files[j], False) for i, j in sorted(found) if files[i].pixels_sha256 != files[j].pixels_sha256
    ]


def _gradient_bits(thumbnails: np.ndarray) -> np.ndarray:
    """Whether each pixel is brighter than its right neighbour, the last than the first: bool [N, 256]."""
    grey = thumbnails.astype(np.float32).mean(3)
    return (grey > np.roll(grey, -1, axis=2)).reshape(len(grey), -1)


def _alike(bucket: np.ndarray, bits: np.ndarray, thumbnails: np.ndarray) -> set[tuple[int, int]]:
    pairs = set()
    for place, index in enumerate(bucket[:-1]):
        others = bucket[place + 1 :]
        close = others[np.count_nonzero(bits[others] != bits[index], axis=1) <= MAX_BITS]
        if len(close):
            differences = np.abs(thumbnails[close].astype(np.int16) - thumbnails[index]).mean((1, 2, 3))
            pairs |= {(min(index, other), max(index, other)) for other in close[differences <= MAX_DIFFERENCE].tolist()}
    return {(int(i), int(j)) for i, j in pairs}
