"""The one validator of what comes from outside: responses of endpoints, run folders, names of images.

The records (eval.samples.model, eval.plan.config) say with the types below what is valid, and pydantic checks it. What
passes is typed, finite, of bounded size and depth, and has no character that would control a terminal. pydantic takes a
quarter of a second to import, so it is imported when something is first checked.
"""

from __future__ import annotations

import functools
import os
import re
import reprlib
import secrets
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

from eval.errors import EvalError, InvalidInput

MAX_NAME_CHARS = 300  # of a target, an image, a version
MAX_SHOWN_CHARS = 200  # of a value or of another program's message, in an error
MAX_TEXT_CHARS = 20_000  # of a message, such as the end of a log
MAX_MS = 1e9  # eleven days
MAX_COUNT = 10**12
MIN_VALUE = 1e-9  # of what is not 0
MAX_ITEMS = 100  # of a list or mapping that nothing else limits

T = TypeVar("T")

_PLAIN = "plain"  # in a schema's metadata: the one that is equal for plain text and calls nothing of Python's
_EXPONENT = re.compile(rb"\d[eE]-")  # of a number that may be nearer to 0 than MIN_VALUE


def printable(text: str, keep: str = "") -> str:
    """The text with a replacement for each character that is not shown as itself: controls, bidi overrides, surrogates.

    keep: of those, what stays, such as line feeds.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "\ufffd" for c in text)


def printable_lines(text: str) -> str:
    """Printable text of several lines and tabs, for a terminal."""
    return printable(text, keep="\n\t")


# What the annotations of the records are made of. Each changes the schema that pydantic has for the type.


@dataclass(frozen=True)
class Within:
    """A number between two limits, not a string that looks like one, and finite."""

    low: float
    high: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "strict": True, "ge": self.low, "le": self.high}  # NaN is neither


class FlushToZero:
    """A number so near 0 that its reciprocal is infinite becomes 0."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        schema = handler(source)
        return core_schema.no_info_after_validator_function(self._clean, schema, metadata={_PLAIN: schema})

    def _clean(self, value: float) -> float:
        return value if abs(value) >= MIN_VALUE else 0.0


@dataclass(frozen=True)
class Characters:
    """Text, which is cut to a length and made printable."""

    max_length: int
    keep: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        schema = core_schema.str_schema(strict=True)
        plain = core_schema.str_schema(strict=True, max_length=self.max_length)
        return core_schema.no_info_after_validator_function(
            lambda t: printable(t[: self.max_length], self.keep), schema, metadata={_PLAIN: plain}
        )


@dataclass(frozen=True)
class OneOf:
    """One of these strings."""

    choices: Collection[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.literal_schema(list(self.choices))


@dataclass(frozen=True)
class AtMost:
    """A list or mapping of at most so many items. It is left at its first fault: there may be millions."""

    max_items: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        schema = handler(source)
        if schema["type"] in ("list", "tuple"):
            return {**schema, "max_length": self.max_items, "fail_fast": True}
        plain = {**schema, "max_length": self.max_items}
        return core_schema.no_info_before_validator_function(self._check_size, schema, metadata={_PLAIN: plain})

    def _check_size(self, value: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > self.max_items:
            raise ValueError(f"it has {len(value)} keys, more than {self.max_items}")
        return value


@dataclass(frozen=True)
class Keys:
    """A mapping of which these keys are known, each with its type. Any may be null or missing; others are left out.

    pass_over: a value of another type is left out, too, as of a record that a stranger wrote.
    """

    types: Mapping[str, Any]
    pass_over: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        values = {key: core_schema.nullable_schema(handler.generate_schema(kind)) for key, kind in self.types.items()}
        if self.pass_over:
            values = {key: core_schema.with_default_schema(value, on_error="omit") for key, value in values.items()}
        fields = {key: core_schema.typed_dict_field(value, required=False) for key, value in values.items()}
        return core_schema.typed_dict_schema(fields)

    def __hash__(self) -> int:
        return id(self)


class IsTimestamp:
    """A time in ISO 8601, of this era."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, text: str) -> str:
        if not 1970 <= datetime.fromisoformat(text).year < 2200:  # raises ValueError itself
            raise ValueError("it is not a time of this era")
        return text


Name = Annotated[str, Characters(MAX_NAME_CHARS)]
Text = Annotated[str, Characters(MAX_TEXT_CHARS)]
Lines = Annotated[str, Characters(MAX_TEXT_CHARS, keep="\n\t")]
Timestamp = Annotated[Name, IsTimestamp()]
Count = Annotated[int, Within(0, MAX_COUNT)]
Integer = Annotated[int, Within(-MAX_COUNT, MAX_COUNT)]
Milliseconds = Annotated[float, Within(0, MAX_MS), FlushToZero()]
SignedMilliseconds = Annotated[float, Within(-MAX_MS, MAX_MS), FlushToZero()]
Positive = Annotated[float, Within(1e-6, 1e9)]
Probability = Annotated[float, Within(0, 1)]
Durations = Annotated[dict[Name, Milliseconds], AtMost(MAX_ITEMS)]
SignedDurations = Annotated[dict[Name, SignedMilliseconds], AtMost(MAX_ITEMS)]
Names = Annotated[list[Name], AtMost(MAX_ITEMS)]
NameByName = Annotated[dict[Name, Name], AtMost(MAX_ITEMS)]


def validate(kind: type[T], data: object) -> T:
    """The data as a record or another type. Raises InvalidInput, which says where it is not."""
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        raise InvalidInput(_describe(error)) from None


def validate_plain_line(kind: type[T], line: bytes) -> T | None:
    """A record of one line of JSON, ten times as fast as `validate`; None where only that can tell.

    That is so for whatever is not plain: a text that must be made printable or cut, a number so small that it becomes
    0, an unknown key, and any fault.
    """
    from pydantic import ValidationError

    if not line.isascii() or b"\\" in line or b"\x7f" in line or b"0.00000000" in line:
        return None
    if (b"e-" in line or b"E-" in line) and _EXPONENT.search(line):
        return None
    try:
        return _plain_validator(kind).validate_json(line)
    except ValidationError:
        return None


def parse_json(data: bytes | bytearray | str, *, allow_nan: bool = False) -> Any:
    """What a JSON text holds. Raises InvalidInput, as also for one that is nested hundreds deep.

    allow_nan: NaN and Infinity are numbers, as Python's json writes them.
    """
    from pydantic_core import from_json

    try:
        return from_json(data, allow_inf_nan=allow_nan)
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from None


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@functools.cache
def _plain_validator(kind: Any) -> Any:
    from pydantic_core import SchemaValidator

    return SchemaValidator(_plain_schema(_adapter(kind).core_schema) | {"config": {"extra_fields_behavior": "forbid"}})


def _plain_schema(schema: Any) -> Any:
    """The schema with each part in its plain form."""
    if isinstance(schema, list):
        return [_plain_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if plain := (schema.get("metadata") or {}).get(_PLAIN):
        return _plain_schema(plain)
    return {key: _plain_schema(part) for key, part in schema.items()}


def _describe(error: Any) -> str:
    """Key, value and what is wrong with it, for the first of the faults."""
    fault = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, fault["loc"])) or "it"
    message = fault["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if fault["type"] == "missing":
        return printable(f"{key[:MAX_NAME_CHARS]} is missing")
    return printable(f"{key[:MAX_NAME_CHARS]} is {reprlib.repr(fault['input'])}: {message[:MAX_NAME_CHARS]}")


def open_file(path: Path) -> IO[bytes]:
    """Open a regular file for reading. Raises OSError, and EvalError for a folder, a pipe or a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would wait for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise EvalError(f"{path} is not a file but a folder, a pipe or a device: remove it, or name another folder")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, max_bytes: int) -> bytes:
    """The contents of a regular file. Raises OSError, and EvalError if it is larger than `max_bytes`."""
    with open_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise EvalError(f"{path} is larger than {max_bytes // 2**20} MiB: it is not what it is named for")
    return data


def write_file(path: Path, text: str) -> None:
    """Write a file, or replace the one of that name. A link of that name is replaced, too, and never followed.

    Raises OSError. A reader sees the old file or the whole new one.
    """
    write_files(path.parent, {path.name: text})


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """The same for files that belong together: none is replaced unless all could be written."""
    temp_paths = {name: folder / f".{name}.{secrets.token_hex(4)}" for name in texts}
    try:
        for name, text in texts.items():
            with temp_paths[name].open("x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        for name, temp_path in temp_paths.items():
            os.replace(temp_path, folder / name)
    finally:
        for temp_path in temp_paths.values():
            temp_path.unlink(missing_ok=True)


def no_follow(path: str, flags: int) -> int:
    """An opener for open(): a link is an OSError, and a pipe does not wait for its reader."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
