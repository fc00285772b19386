"""The folder that a service follows: what an alias or a version leads to there. The layout: service/store_layout.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import NotInStore, StoreError
from service.store_layout import (
    MAX_RECORD_BYTES,
    NAME,
    VERSION,
    AliasRecord,
    ModelReference,
    alias_dir,
    check_alias,
    check_name,
    read_record,
    record_file,
    record_number,
    version_dir,
)

MANIFEST = "model.json"
MAX_MANIFEST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class StoredVersion:
    """A version of a model, as it was found in a store."""

    name: str
    version: str
    folder: Path  # a bundle
    alias: str | None = None  # that led to it; None for a version that was named itself
    number: int | None = None  # of the alias's record

    @property
    def reference(self) -> ModelReference:
        """What leads to it; by an alias, to another version after the alias's next move."""
        return ModelReference(self.name, self.alias, None if self.alias else self.version)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "alias": self.alias, "version": self.version, "number": self.number}


@dataclass(frozen=True)
class Refusal:
    """What the followed reference leads to, but is not served."""

    reference: ModelReference
    found: StoredVersion | None  # None where the store is damaged before any version
    why: str  # a sentence

    def __str__(self) -> str:
        return f"{self.reference}{f' {self.found.version}' if self.found else ''}"


class FollowedStore:
    """A store's folder, which something else keeps up to date. It is only read, and looked at anew each time."""

    def __init__(self, root: Path):
        self.root = root

    def find(self, reference: ModelReference) -> StoredVersion:
        """What the reference leads to now. Raises StoreError when there is nothing, or it is damaged."""
        name = check_name(reference.name)
        if reference.alias is None:
            return self._version(name, reference.version or "", None)
        if not (numbers := self._numbers(name, check_alias(reference.alias))):
            raise NotInStore(f"{self.root} has no {reference}; {self._what_there_is(name)}")
        record = self._record(name, reference.alias, numbers[0])
        return self._version(name, record.version, record, reference.alias)

    def history(self, reference: ModelReference) -> Iterator[StoredVersion]:
        """What the alias has led to, as far as it is still there, each version once and the last one first."""
        seen: set[str] = set()
        for number in self._numbers(reference.name, reference.alias) if reference.alias else ():
            with suppress(StoreError):
                record = self._record(reference.name, reference.alias or "", number)
                if record.version not in seen:
                    seen.add(record.version)
                    yield self._version(reference.name, record.version, record, reference.alias)

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are complete."""
        folder = self.root / version_dir(check_name(name), "")
        return sorted(
            each for each in _names(folder) if VERSION.fullmatch(each) and (folder / each / MANIFEST).is_file()
        )

    def names(self) -> list[str]:
        """The models. What is no model's folder, such as lost+found, is passed over."""
        return sorted(each for each in _names(self.root) if NAME.fullmatch(each) and self._has_versions(each))

    def _has_versions(self, name: str) -> bool:
        try:
            return (self.root / version_dir(name, "")).is_dir()
        except PermissionError:
            return False

    def _numbers(self, name: str, alias: str) -> list[int]:
        """Of the alias's records, the newest first."""
        return sorted(filter(None, map(record_number, _names(self.root / alias_dir(name, alias)))), reverse=True)

    def _record(self, name: str, alias: str, number: int) -> AliasRecord:
        path = self.root / alias_dir(name, alias) / record_file(number)
        record = read_record(_read(path, MAX_RECORD_BYTES), str(path))
        if record.number != number:
            raise StoreError(f"{path} holds record {record.number}; the store is damaged there: roll the alias forward")
        return record

    def _version(self, name: str, version: str, record: AliasRecord | None, alias: str | None = None) -> StoredVersion:
        if not VERSION.fullmatch(version):
            raise NotInStore(f"{version[:80]!r} is no version; use 12 hex digits; {self._what_there_is(name)}")
        folder = self.root / version_dir(name, version)
        if not (folder / MANIFEST).is_file():
            missing = f"{self.root} has no version {version} of {name}"
            if record:  # it was there before the record
                raise StoreError(f"{missing}, to which {alias} points; fetch it again")
            raise NotInStore(f"{missing}; {self._what_there_is(name)}")
        sha256 = hashlib.sha256(_read(folder / MANIFEST, MAX_MANIFEST_BYTES)).hexdigest()
        if not sha256.startswith(record.sha256 if record else version):
            raise StoreError(f"{folder / MANIFEST} has sha256 {sha256}, not that of its version; fetch it again")
        return StoredVersion(name, version, folder, alias, record.number if record else None)

    def _what_there_is(self, name: str) -> str:
        if not (names := self.names()):
            return "the folder holds no model; set MODEL_STORE to one that `store pull --follow` fills"
        if name not in names:
            return f"it has {', '.join(names[:5])}"
        aliases = ", ".join(sorted(_names(self.root / alias_dir(name, "")))[:5]) or "none"
        return f"it has the aliases {aliases} and the versions {', '.join(self.versions(name)[:5]) or 'none'}"


def _names(folder: Path) -> list[str]:
    try:
        return [each.name for each in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}; see to its rights, or mount it again") from None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; see to its rights, or mount it again") from None
