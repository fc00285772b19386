"""Images whose true class was said, in folders of classes as `./cloudtrial finetune` reads them.

A file is the image as it was sent, named by its content: the same image twice is one file. Nothing is ever deleted;
where the quota is full, no more is kept until somebody has moved files away.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from service.images.image_formats import sniff

NAME_DIGITS = 32  # of an image's sha256
LOOK_AGAIN_S = 60.0  # before a full folder is counted again
NEW = ".new-"  # how the name of a file begins that is not whole yet; training ignores it


class KeptImages:
    """The folder, and how much of its quota is used. Other processes may write into it as well."""

    def __init__(
        self,
        folder: Path,
        quota_bytes: int,
        say: Callable[[str], None] = lambda line: print(f"service: {line}", file=sys.stderr, flush=True),
    ):
        self._folder, self._quota_bytes, self._say = folder, quota_bytes, say
        self._used_bytes = used_bytes(folder)
        self._looked_at = time.monotonic()
        self._fault = ""  # that was said last
        self._lock = threading.Lock()  # guards all of it

    def keep(self, label: str, image: bytes) -> bool:
        """Write an image, or find it there already. False: the quota is full, or it cannot be written."""
        name = f"{hashlib.sha256(image).hexdigest()[:NAME_DIGITS]}.{sniff(image).lower()}"
        path = self._folder / folder_name(label) / name
        with self._lock:
            try:
                if path.exists():
                    return True
                if not self._has_room(len(image)):
                    self._complain(f"KEEP_IMAGES_MB is used up, so no image is kept; move files out of {self._folder}")
                    return False
                write_whole(path, image)
            except OSError as error:
                self._complain(f"an image cannot be kept in {self._folder}: {error.strerror}")
                return False
            self._used_bytes += len(image)
            self._fault = ""
            return True

    def _has_room(self, size: int) -> bool:
        if self._used_bytes + size > self._quota_bytes and time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            self._used_bytes, self._looked_at = used_bytes(self._folder), time.monotonic()
        return self._used_bytes + size <= self._quota_bytes

    def _complain(self, fault: str) -> None:
        """Once, until it has gone well again."""
        if fault != self._fault:
            self._say(fault)
        self._fault = fault


def folder_name(label: str) -> str:
    """The label itself, wherever that is a name below the folder; else its slashes and its first dot as %2F and %2E."""
    if "/" not in label and not label.startswith("."):
        return label
    name = quote(label, safe=" ")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file())


def write_whole(path: Path, data: bytes) -> None:
    """A reader finds all of the file or none. Only this user may read it."""
    path.parent.mkdir(exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=NEW, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
