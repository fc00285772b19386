"""A version of a model as a folder on this machine: written whole or not at all, checked against its model.json."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree

from service.errors import BundleError, StoreError
from service.model import MODEL_JSON, Bundle, load_bundle
from service.store_layout import version_of
from store.folder import delete_abandoned, sync_folder, write_durably

Fetch = Callable[[str], Iterator[bytes]]  # of a file's name, its bytes; raises FileNotFoundError


class WrongChecksum(Exception):
    """A file of a store is missing, or is not what model.json says. Its name is the argument."""


def read_bundle(folder: Path) -> tuple[Bundle, bytes]:
    """A bundle whose files are not checked yet, and its model.json. Raises BundleError or StoreError."""
    if not (folder / MODEL_JSON).is_file():
        raise StoreError(
            f"no model at {folder}: {MODEL_JSON} is missing; name a folder that has it, such as models/iris"
        )
    bundle = load_bundle(folder, ())
    for name in (MODEL_JSON, *bundle.files):
        if (folder / name).is_symlink():
            raise StoreError(f"{folder / name} is a symbolic link; a version is made of files alone: copy it there")
    return bundle, (folder / MODEL_JSON).read_bytes()


def read_verified(path: Path, digest: str) -> bytes:
    """The bytes that are sent, which have that sha256. Raises BundleError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise BundleError(f"{path} has sha256 {actual}, {MODEL_JSON} says {digest}; fetch the bundle again")
    return data


def write_version(folder: Path, manifest: bytes, fetch: Fetch) -> None:
    """Make the folder of a version, unless it is there. Raises OSError, WrongChecksum, BundleError or StoreError."""
    if not folder.is_symlink() and not (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        folder.parent.mkdir(parents=True, exist_ok=True)
        delete_abandoned(folder.parent, f".{folder.name}.*.part")
        part = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
        try:
            _write_files(part, manifest, fetch)
            part.rename(folder)
            sync_folder(folder.parent)
            return
        except OSError:
            if not (folder.is_dir() and any(folder.iterdir())):  # else another process has pulled it meanwhile
                raise
        finally:
            rmtree(part, ignore_errors=True)
    _check_there(folder, manifest)


def is_whole(folder: Path, version: str) -> bool:
    """Whether the folder is that version, with every checksum right. It takes a millisecond or so for each MB."""
    try:
        load_bundle(folder)
        return version_of((folder / MODEL_JSON).read_bytes()) == version
    except (OSError, BundleError):
        return False


def _write_files(part: Path, manifest: bytes, fetch: Fetch) -> None:
    part.mkdir()
    write_durably(part / MODEL_JSON, [manifest])
    for name, digest in load_bundle(part, ()).files.items():
        actual = hashlib.sha256()
        try:
            write_durably(part / name, _hashed(fetch(name), actual))
        except FileNotFoundError:
            raise WrongChecksum(name) from None
        if actual.hexdigest() != digest:
            raise WrongChecksum(name)
    sync_folder(part)


def _hashed(chunks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _check_there(folder: Path, manifest: bytes) -> None:
    """Raises StoreError unless the folder is that version, with every checksum right."""
    version = version_of(manifest)
    try:
        there = not folder.is_symlink() and (folder / MODEL_JSON).read_bytes() == manifest
    except OSError:
        there = False
    if not there:
        raise StoreError(f"{folder} is there already, and is not version {version}; name another folder")
    try:
        load_bundle(folder)
    except BundleError as error:
        raise StoreError(f"{folder} is there already, but damaged: {error}; delete it, then pull again") from None
