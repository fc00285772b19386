"""What a release has done: one line of JSON for each finished step, on the disk before the next step begins."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release.errors import ReleaseError

JOURNAL_FILE = "journal.jsonl"


@dataclass(frozen=True)
class Entry:
    """One finished step."""

    stage: str
    step: str
    at: str  # ISO 8601, UTC
    details: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        return json.dumps({"at": self.at, "stage": self.stage, "step": self.step, **self.details}) + "\n"


class Journal:
    """The file of one release. A line that a kill has cut short is dropped: its step is done again."""

    def __init__(self, folder: Path):
        self.path = folder / JOURNAL_FILE
        self.entries: list[Entry] = []
        with contextlib.suppress(FileNotFoundError):
            self._read(self.path.read_bytes())

    def _read(self, content: bytes) -> None:
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self.path, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                values = json.loads(line)
                self.entries.append(Entry(values.pop("stage"), values.pop("step"), values.pop("at"), values))
            except (ValueError, KeyError, AttributeError, TypeError):
                raise ReleaseError(f"{self.path}, line {number} is no step: start a new release") from None

    def find(self, stage: str, step: str) -> Entry | None:
        """The last of these."""
        return next((each for each in reversed(self.entries) if (each.stage, each.step) == (stage, step)), None)

    def add(self, stage: str, step: str, **details: Any) -> Entry:
        """Write that a step is finished."""
        entry = Entry(stage, step, datetime.now(UTC).isoformat(timespec="seconds"), details)
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(entry.to_line().encode())
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.path.parent)
        self.entries.append(entry)
        return entry


@contextlib.contextmanager
def only_release_of(model: str, releases: Path) -> Iterator[None]:
    """No second release of a model while the context lasts. The kernel frees it however the process ends.

    Raises ReleaseError.
    """
    releases.mkdir(parents=True, exist_ok=True)
    path = releases / f".{model}.lock"
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ReleaseError(f"another release of {model} is under way (it holds {path}): wait for its end") from None
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
