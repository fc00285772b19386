"""Aliases: numbered records, of which the highest counts. A move is one more record; nothing is overwritten."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from service.errors import StoreError
from service.store_layout import (
    NAME,
    AliasRecord,
    alias_dir,
    check_alias,
    check_name,
    read_record,
    record_file,
    record_number,
)
from store.backend import Backend, read
from store.errors import DamagedRecord, StoreConflict

NO_VERSION = "none"  # expected of an alias that does not exist yet
MAX_REASON_CHARACTERS = 1000
READERS = 8  # records that are fetched at once


class Aliases:
    """The aliases of one model. Whoever names a version has made sure that it exists."""

    def __init__(self, backend: Backend, name: str):
        self.backend, self.name = backend, check_name(name)

    def all(self) -> dict[str, AliasRecord]:
        """The record of every alias that counts."""
        names = [name for name in self.backend.folders(f"{self.name}/aliases") if NAME.fullmatch(name)]
        return {name: record for name in names if (record := self.newest(name))}  # none: a move was cut off

    def current(self, alias: str) -> AliasRecord:
        """The record that counts. Raises StoreError, which says which aliases there are."""
        record = self.newest(alias)
        if record is None:
            raise self._unknown(alias)
        return record

    def newest(self, alias: str) -> AliasRecord | None:
        """The same, or None for an alias that is not there."""
        numbers = self.numbers(alias)
        return self._record(alias, numbers[-1]) if numbers else None

    def history(self, alias: str, report: Callable[[str], None] = lambda _: None) -> list[AliasRecord]:
        """Every record, oldest first; a damaged one is left out and reported. Raises StoreError where there is none."""
        numbers = self.numbers(alias)
        if not numbers:
            raise self._unknown(alias)
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(lambda number: self._readable(alias, number), numbers))
        for number, record in zip(numbers, found, strict=True):
            if record is None:
                report(f"{self.backend.url}/{self._path(alias, number)} is damaged, and left out")
        return list(filter(None, found))

    def move(
        self, alias: str, sha256: str, version: str, *, reason: str, created_by: str | None, expected: str | None
    ) -> AliasRecord:
        """Let the alias point to a version, whose model.json has this sha256; nothing is done where it does already.

        Raises StoreConflict where it points to another version than `expected` (NO_VERSION: to none).
        """
        check_alias(alias)
        _check_reason(reason)
        while True:
            numbers = self.numbers(alias)
            current = self._readable(alias, numbers[-1]) if numbers else None
            if current and current.version == version:
                return current
            found = current.version if current else NO_VERSION
            if expected is not None and found != expected:
                raise StoreConflict(
                    f"{self.name}@{alias} points to {found}, not to {expected}: somebody else has moved it; "
                    f"see ./cloudtrial store history {self.name}@{alias}"
                )
            record = AliasRecord(
                number=numbers[-1] + 1 if numbers else 1,
                version=version,
                sha256=sha256,
                previous=current.version if current else None,
                created_at=datetime.now(UTC).isoformat(),
                created_by=created_by or current_user(),
                reason=reason,
            )
            if self.backend.create(self._path(alias, record.number), record.to_json().encode()):
                return record  # else somebody was quicker: look again

    def numbers(self, alias: str) -> list[int]:
        """Of its records, rising; damaged ones, too."""
        files = self.backend.files(alias_dir(self.name, check_alias(alias)))
        numbers = (record_number(file.path.rpartition("/")[2]) for file in files)
        return sorted(number for number in numbers if number is not None)

    def _record(self, alias: str, number: int) -> AliasRecord:
        path = self._path(alias, number)
        content = read(self.backend, path)
        try:
            record = read_record(content, f"{self.backend.url}/{path}")
        except StoreError as error:
            raise DamagedRecord(str(error)) from None
        if record.number != number:
            raise DamagedRecord(f"{self.backend.url}/{path} says that its number is {record.number}: it was renamed")
        return record

    def _path(self, alias: str, number: int) -> str:
        return f"{alias_dir(self.name, alias)}/{record_file(number)}"

    def _readable(self, alias: str, number: int) -> AliasRecord | None:
        """The record; None for a damaged one, over which an alias can be moved."""
        try:
            return self._record(alias, number)
        except DamagedRecord:
            return None

    def readable(self, alias: str, numbers: Sequence[int]) -> AliasRecord | None:
        """The last of these records that is not damaged."""
        return next(filter(None, (self._readable(alias, number) for number in reversed(numbers))), None)

    def _unknown(self, alias: str) -> StoreError:
        names = ", ".join(self.all()) or "none yet"
        return StoreError(f"{self.name} has no alias {alias!r} in {self.backend.url}; it has {names}")


def current_user() -> str:
    """user@machine, for a record; the number of a user without a name, as a container may have."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # of Python before 3.13, and since
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def version_before(versions: Iterable[str]) -> str | None:
    """Where a rollback leads, from what an alias has pointed to, oldest first; None at the first version of all.

    A move back to an earlier version forgets those after it. So a second rollback leads further back, not forth again.
    """
    path: list[str] = []
    for version in versions:
        if version in path:
            del path[path.index(version) + 1 :]
        else:
            path.append(version)
    return path[-2] if len(path) > 1 else None


def _check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON_CHARACTERS or not (reason.isprintable() or not reason):
        raise StoreError(f"a reason is one line of at most {MAX_REASON_CHARACTERS} printable characters")
