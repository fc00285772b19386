"""Reads a Dockerfile as far as a process without a container can follow it: ENV and CMD, and that COPY finds its files.

RUN, USER and EXPOSE say how the image is made; they are known and change nothing here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.local.launch import FileError, Launch

WITHOUT_EFFECT = {"ARG", "RUN", "USER", "EXPOSE", "WORKDIR"}


def read_dockerfile(text: str, context: Path, config: Mapping[str, str]) -> Launch:
    """The image's command and environment, overridden by the platform's. Raises FileError on what it cannot follow."""
    env: dict[str, str] = {}
    command: tuple[str, ...] = ()
    stages = 0
    for instruction, rest in instructions(text):
        match instruction:
            case "FROM":
                stages += 1
            case "ENV":
                env |= _assignments(rest)
            case "COPY":
                _check_copy(rest, context)
            case "CMD":
                command = _exec_form(rest)
            case _ if instruction not in WITHOUT_EFFECT:
                raise FileError(f"Dockerfile: {instruction} is not known here: {instruction} {rest}")
    if stages != 1:
        raise FileError(f"Dockerfile: {stages} FROM lines; a twin follows exactly one stage")
    if not command:
        raise FileError("Dockerfile: no CMD, so there is nothing to start")
    return Launch(command, env | dict(config))


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(INSTRUCTION, rest) for every instruction, with continued lines joined and comments dropped."""
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if line.rstrip().endswith("\\"):
            joined += line.rstrip()[:-1] + " "
            continue
        name, _, rest = (joined + line).strip().partition(" ")
        yield name.upper(), rest.strip()
        joined = ""
    if joined:
        raise FileError(f"Dockerfile: nothing follows the last backslash: {joined.strip()!r}")


def _assignments(rest: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in shlex.split(rest)]
    if "$" in rest or not all(equals for _, equals, _ in pairs):
        raise FileError(f"Dockerfile: ENV {rest}: only NAME=value without variables is followed")
    return {name: value for name, _, value in pairs}


def _check_copy(rest: str, context: Path) -> None:
    *sources, _ = shlex.split(rest)
    for source in sources:
        if source.startswith("--") or "*" in source:
            raise FileError(f"Dockerfile: COPY {rest}: only plain names are followed")
        if not (context / source).exists():
            raise FileError(f"Dockerfile: COPY {rest}: there is no {source} in what is shipped")


def _exec_form(rest: str) -> tuple[str, ...]:
    try:
        words = json.loads(rest)
    except json.JSONDecodeError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FileError(f'Dockerfile: CMD {rest}: write it as ["program", "argument"], so that it gets the signals')
    return tuple(words)
