"""What a store holds, as its listing says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StoredFile:
    """A file in a store."""

    path: str  # from the store's root
    size_bytes: int
    modified_at: datetime  # UTC


@dataclass(frozen=True)
class Version:
    """A complete version of a model."""

    name: str  # of the model
    version: str
    pushed_at: datetime  # when it became complete, UTC
    files: Mapping[str, int]  # file name -> bytes; model.json is one

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"
