"""Reads a Dockerfile as far as a process without a container can follow it: ENV and CMD, and that COPY finds its files.

The last stage, or the one that is named, is followed down through the stages that it builds on; a build argument may
say which one that is.
RUN, USER and EXPOSE say how the image is made; they are known and change nothing here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.errors import PlatformFileError
from infra.local.process_spec import ProcessSpec

IGNORED_INSTRUCTIONS = {"RUN", "USER", "EXPOSE", "WORKDIR"}
FROM = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Stage:
    """What a stage and its bases have set so far."""

    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()  # what follows each COPY


def read_dockerfile(
    text: str, context: Path, config: Mapping[str, str], build_args: Mapping[str, str] | None = None, target: str = ""
) -> ProcessSpec:
    """The image's command and environment, overridden by the platform's.

    `build_args` are those of `docker build --build-arg`, `target` that of `--target`. Raises PlatformFileError on what
    it cannot follow.
    """
    stage = _follow(text, build_args or {}, target)
    for copy in stage.copies:
        _check_copy(copy, context)
    if not stage.command:
        raise PlatformFileError("Dockerfile: no CMD, so there is nothing to start")
    return ProcessSpec(stage.command, {**stage.env, **config})


def _follow(text: str, build_args: Mapping[str, str], target: str) -> Stage:
    args: dict[str, str] = {}  # those before the first FROM, which any FROM may use
    stages: dict[str, Stage] = {}
    name, stage = "", None
    for instruction, rest in instructions(text):
        match instruction:
            case "FROM":
                base, name = _from(rest, {arg: build_args.get(arg, default) for arg, default in args.items()})
                stage = stages.get(base, Stage())
            case "ARG" if stage is None:
                args |= _assignments(rest, "ARG")
            case "ARG":
                pass
            case _ if stage is None:
                raise PlatformFileError(f"Dockerfile: {instruction} {rest}: only ARG may stand before the first FROM")
            case "ENV":
                stage = replace(stage, env={**stage.env, **_assignments(rest, "ENV")})
            case "COPY":
                stage = replace(stage, copies=(*stage.copies, rest))
            case "CMD":
                stage = replace(stage, command=_exec_form(rest))
            case _ if instruction not in IGNORED_INSTRUCTIONS:
                raise PlatformFileError(f"Dockerfile: {instruction} is not known here: {instruction} {rest}")
        if stage is not None and name:
            stages[name] = stage
    if stage is None:
        raise PlatformFileError("Dockerfile: no FROM, so there is no image")
    if target and target not in stages:
        raise PlatformFileError(f"Dockerfile: no stage is called {target!r}, only {', '.join(stages)}")
    return stages[target] if target else stage


def _from(rest: str, args: Mapping[str, str]) -> tuple[str, str]:
    """A stage's base, and its own name or ""."""

    def value(match: re.Match[str]) -> str:
        if (name := match[1] or match[2]) not in args:
            raise PlatformFileError(f"Dockerfile: FROM {rest}: no ARG {name}=... stands before the first FROM")
        return args[name]

    match = FROM.fullmatch(rest)
    if match is None:
        raise PlatformFileError(f"Dockerfile: FROM {rest}: only `FROM image` and `FROM image AS name` are followed")
    return VARIABLE.sub(value, match["base"]), match["name"] or ""


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
        raise PlatformFileError(f"Dockerfile: nothing follows the last backslash: {joined.strip()!r}")


def _assignments(rest: str, instruction: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in shlex.split(rest)]
    if "$" in rest or not all(equals for _, equals, _ in pairs):
        raise PlatformFileError(f"Dockerfile: {instruction} {rest}: only NAME=value without variables is followed")
    return {name: value for name, _, value in pairs}


def _check_copy(rest: str, context: Path) -> None:
    *sources, _ = shlex.split(rest)
    for source in sources:
        if source.startswith("--") or "*" in source:
            raise PlatformFileError(f"Dockerfile: COPY {rest}: only plain names are followed")
        if not (context / source).exists():
            raise PlatformFileError(f"Dockerfile: COPY {rest}: there is no {source} in what is shipped")


def _exec_form(rest: str) -> tuple[str, ...]:
    try:
        words = json.loads(rest)
    except json.JSONDecodeError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise PlatformFileError(
            f'Dockerfile: CMD {rest}: write it as ["program", "argument"], so that it gets the signals'
        )
    return tuple(words)
