"""A store in a folder. A file appears in one step, by a hard link or a new name, and is on the disk by then."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from service.errors import StoreError
from store.records import StoredFile

CHUNK_BYTES = 1024 * 1024
PARTS = ".parts"  # files that are being written; what a killed process left there is never read
ABANDONED_S = 24 * 3600  # after which what was not written to is deleted


class FolderBackend:
    """Files below a folder. Names that begin with a dot are no part of the store."""

    def __init__(self, root: Path):
        self.root = root
        self.url = str(root)

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file. False where there is one of that name. Raises StoreError."""
        return self._write(path, data, os.link)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, in place of the one of that name, if there is one. Raises StoreError."""
        self._write(path, data, os.replace)

    def _write(self, path: str, data: bytes, put: Callable[[Path, Path], None]) -> bool:
        target = self.root / path
        part = self.root / PARTS / uuid.uuid4().hex
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            delete_abandoned(part.parent, "*")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(part, [data])
            with suppress(FileExistsError):
                put(part, target)
                sync_folder(target.parent)
                return True
            return False
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror}") from None
        finally:
            with suppress(OSError):
                part.unlink()

    def chunks(self, path: str) -> Iterator[bytes]:
        try:
            with (self.root / path).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{self.root / path} cannot be read: {error.strerror}") from None

    def files(self, folder: str) -> list[StoredFile]:
        found = []
        for place, folders, names in os.walk(self.root / folder, onerror=self._refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(place, name) for name in names if not name.startswith(".")):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    status = path.stat()
                    modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                    found.append(StoredFile(path.relative_to(self.root).as_posix(), status.st_size, modified_at))
        return sorted(found, key=lambda file: file.path)

    def folders(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        except OSError as error:
            self._refuse(error)
            return []

    def _refuse(self, error: OSError) -> None:
        """Raise StoreError unless the folder is just not there."""
        if not isinstance(error, FileNotFoundError):
            raise StoreError(f"{error.filename} cannot be read: {error.strerror}") from None


def write_durably(path: Path, chunks: Iterator[bytes] | list[bytes]) -> None:
    """Write a new file, and wait until it is on the disk. Raises OSError."""
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_abandoned(folder: Path, pattern: str) -> None:
    """Delete what killed processes left a day ago or longer, as far as that can be done."""
    from shutil import rmtree

    with suppress(OSError):
        for path in folder.glob(pattern):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                rmtree(path) if path.is_dir() else path.unlink()
