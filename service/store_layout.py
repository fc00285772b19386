"""The layout of a model store: in a folder, in a bucket, and in the folder that a service follows. docs/store.md.

    NAME/versions/VERSION/...           a bundle; complete once its model.json is there, which is written last
    NAME/aliases/ALIAS/0000000007.json  what the alias points to; the record with the highest number counts

Nothing is ever overwritten: a version's name is derived from its content, and an alias moves by one more record.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from service.errors import StoreError

VERSION_DIGITS = 12
MAX_RECORD_BYTES = 16 * 1024
NUMBER_DIGITS = 10  # so that names sort as numbers do
VERSION = re.compile(rf"[0-9a-f]{{{VERSION_DIGITS}}}")
SHA256 = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # of a model or an alias; never a path
RECORD = re.compile(rf"([0-9]{{{NUMBER_DIGITS}}})\.json")
NAME_HINT = "use 1 to 64 letters, digits, '.', '_' and '-', with a letter or digit at both ends"


@dataclass(frozen=True)
class ModelReference:
    """NAME@ALIAS or NAME@VERSION: one of `alias` and `version` is set."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.alias or self.version}"


@dataclass(frozen=True)
class AliasRecord:
    """One move of an alias."""

    number: int  # 1, 2, ...
    version: str  # that it points to from now on
    sha256: str  # of that version's model.json, in hex: the version's name in full
    previous: str | None  # the version before; None for the first record
    created_at: str  # ISO 8601, UTC
    created_by: str  # user@machine, or what a pipeline calls itself
    reason: str  # a line for people; may be empty

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def version_of(manifest: bytes) -> str:
    """The version of a bundle, from the bytes of its model.json, which holds the sha256 of every other file."""
    return hashlib.sha256(manifest).hexdigest()[:VERSION_DIGITS]


def check_name(name: str, what: str = "a model") -> str:
    """The name. Raises StoreError for one that is empty, too long or could be a path."""
    if not NAME.fullmatch(name):
        raise StoreError(f"{name[:80]!r} is no name of {what}; {NAME_HINT}")
    return name


def check_alias(alias: str) -> str:
    """The alias. Raises StoreError also for one that could be a version."""
    if VERSION.fullmatch(alias):
        raise StoreError(f"{alias!r} cannot be an alias: it looks like a version ({VERSION_DIGITS} hex digits)")
    return check_name(alias, "an alias")


def parse_reference(text: str) -> ModelReference:
    """NAME@ALIAS or NAME@VERSION. Raises StoreError."""
    name, at, rest = text.partition("@")
    if not at:
        raise StoreError(f"{text[:80]!r} names no version; use NAME@ALIAS or NAME@VERSION, such as {text[:60]}@prod")
    check_name(name)
    return ModelReference(name, version=rest) if VERSION.fullmatch(rest) else ModelReference(name, check_alias(rest))


def version_dir(name: str, version: str) -> str:
    """Where a version's files are, from the store's root."""
    return f"{name}/versions/{version}"


def alias_dir(name: str, alias: str) -> str:
    """Where an alias's records are, from the store's root."""
    return f"{name}/aliases/{alias}"


def record_file(number: int) -> str:
    """The file name of an alias's record."""
    return f"{number:0{NUMBER_DIGITS}d}.json"


def record_number(file_name: str) -> int | None:
    """The number in a record's file name; None for another file, such as one that is still being written."""
    match = RECORD.fullmatch(file_name)
    return int(match[1]) if match else None


def read_record(content: bytes, path: str) -> AliasRecord:
    """A record from its file's bytes. Raises StoreError that names the path."""
    try:
        values: Any = json.loads(content[: MAX_RECORD_BYTES + 1]) if len(content) <= MAX_RECORD_BYTES else None
    except ValueError:
        values = None
    if not (isinstance(values, dict) and _is_record(values)):
        raise StoreError(f"{path} is no record of an alias; the store is damaged there: roll the alias forward")
    return AliasRecord(**{field.name: values[field.name] for field in fields(AliasRecord)})


def _is_record(values: dict[str, Any]) -> bool:
    texts = [values.get(key) for key in ("version", "sha256", "created_at", "created_by", "reason")]
    if not all(isinstance(text, str) for text in texts) or type(values.get("number")) is not int:
        return False
    previous = values.get("previous", "")
    is_version = previous is None or (isinstance(previous, str) and bool(VERSION.fullmatch(previous)))
    sha256 = values["sha256"]
    is_sha256 = bool(SHA256.fullmatch(sha256)) and values["version"] == sha256[:VERSION_DIGITS]
    return is_version and is_sha256 and _is_time(values["created_at"])


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
