"""The folder of a service that follows an alias: a store with that alias, and the last versions it pointed to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from service.errors import StoreError
from service.store_layout import AliasRecord, alias_dir, record_file, version_dir
from store.aliases import Aliases
from store.backend import read
from store.folder import FolderBackend, delete_abandoned
from store.version_folder import is_whole


class FollowedFolder:
    """What one alias needs of a folder."""

    def __init__(self, folder: Path, name: str, alias: str):
        self.folder, self.name, self.alias = folder, name, alias
        self._backend = FolderBackend(folder)
        self._aliases = Aliases(self._backend, name)

    def version_folder(self, version: str) -> Path:
        return self.folder / version_dir(self.name, version)

    def has(self, record: AliasRecord) -> bool:
        """Whether the folder is up to date, its files too. Raises StoreError where it follows another store."""
        numbers = self._aliases.numbers(self.alias)
        newest, there = max(numbers, default=0), self._aliases.readable(self.alias, numbers)
        if newest > record.number or (there and there.number == record.number and there != record):
            raise StoreError(
                f"{self.folder} follows another store: its record {newest} of {self.name}@{self.alias} is not "
                "this store's; follow this one into another folder"
            )
        return there == record and is_whole(self.version_folder(record.version), record.version)

    def add(self, record: AliasRecord) -> None:
        """From here on a service sees the version, which is there. A damaged copy of the record is replaced."""
        path, data = f"{alias_dir(self.name, self.alias)}/{record_file(record.number)}", record.to_json().encode()
        if not self._backend.create(path, data) and read(self._backend, path) != data:
            self._backend.replace(path, data)

    def delete_old(self, keep: int) -> None:
        """Delete the versions that this alias pointed to, but for the last `keep` of each alias here."""
        kept = {version for alias in self._aliases.all() for version in self._recent(alias)[:keep]}
        recent = self._recent(self.alias)
        versions = f"{self.name}/versions"
        delete_abandoned(self.folder / versions, ".*.part")
        for version in self._backend.folders(versions):
            if version in recent and version not in kept:  # another one was pushed here, or pulled by its version
                delete_version(self.version_folder(version))

    def _recent(self, alias: str) -> list[str]:
        """The versions that an alias pointed to, the newest first."""
        return list(dict.fromkeys(record.version for record in reversed(self._aliases.history(alias))))


def delete_version(folder: Path) -> None:
    """Delete a version, which is gone in one step: no service finds half of it."""
    part = folder.parent / f".{folder.name}.deleted.part"
    with suppress(OSError):  # read by another process, or gone: the next time will do
        rmtree(part, ignore_errors=True)
        folder.rename(part)
        rmtree(part)
