"""Text is UTF-8 whatever the machine's locale is: each place that reads or writes text says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("eval", "service", "infra", "training", "store", "release", "watch", "scripts")
SOURCES = ("cloudtrial", "__main__.py", *PACKAGES)
METHODS = {"read_text", "write_text"}
OPENERS = {"open", "fdopen", "TemporaryFile", "NamedTemporaryFile", "TextIOWrapper"}
BYTES = (
    "os.open(",
    "Image.open(",
    "opener.open(",
    "self._opener.open(",
    "urlopen(",
    "tarfile.open(",
    "archive.open(",
    "ModelStore.open(",
)  # no text


def files() -> Iterator[Path]:
    for name in SOURCES:
        path = ROOT / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether the call reads or writes text in the locale's encoding."""
    given, source = keywords(call), ast.unparse(call)
    if "encoding" in given or source.startswith(BYTES):
        return False
    if {"text", "universal_newlines"} & given.keys():
        return True
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [
        value.value
        for value in (*call.args, given.get("mode"))
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and set(value.value) <= set("rwaxbt+")
    ]
    if name in OPENERS:
        binary_default = name in ("TemporaryFile", "NamedTemporaryFile")
        return not any("b" in mode for mode in modes) and not (binary_default and not modes)
    return name in METHODS


def places(source: str, name: str) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [f"{name}:{call.lineno}: {ast.unparse(call)[:80]}" for call in calls if is_text_without_encoding(call)]


def test_all_text_is_read_and_written_with_its_encoding():
    found = [
        place for path in files() for place in places(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "without"),
    [
        ("path.read_text()", True),
        ("path.write_text(x, encoding='utf-8')", False),
        ("open(p)", True),
        ("open(p, 'rb')", False),
        ("path.open('x')", True),
        ("subprocess.run(c, text=True)", True),
        ("tempfile.TemporaryFile()", False),
        ("tempfile.TemporaryFile('w')", True),
    ],
)
def test_a_place_without_an_encoding_is_found(source, without):
    assert bool(places(source, "x")) is without
