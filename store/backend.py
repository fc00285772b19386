"""What a place has to do to hold a store, and the place that an address means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from service.errors import StoreError
from store.bucket import BucketBackend
from store.folder import FolderBackend
from store.records import StoredFile

BUCKETS = ("s3", "gs")


class Backend(Protocol):
    """Files by their paths from the store's root. Nothing is overwritten or deleted."""

    url: str

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file, whole or not at all. False if there is one already, which stays."""
        ...

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file. Raises FileNotFoundError."""
        ...

    def files(self, folder: str) -> list[StoredFile]:
        """Every file below a folder; none where there is no such folder."""
        ...

    def folders(self, folder: str) -> list[str]:
        """The names of the folders right in a folder, sorted."""
        ...


def read(backend: Backend, path: str) -> bytes:
    """A small file whole. Raises FileNotFoundError."""
    return b"".join(backend.chunks(path))


def open_backend(url: str) -> Backend:
    """The place at a folder's path, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX. Raises StoreError."""
    scheme, found, rest = url.partition("://")
    if not found:
        try:
            return FolderBackend(Path(url).expanduser())
        except RuntimeError:
            raise StoreError(f"{url}: there is no such user") from None
    bucket, _, prefix = rest.partition("/")
    if scheme not in BUCKETS or not bucket:
        raise StoreError(f"{url}: a store is a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")
    return BucketBackend(scheme, bucket, prefix.strip("/"))
