"""Reads a Heroku Procfile: the web line, with the variables that Heroku would set."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import takewhile

from infra.errors import PlatformFileError
from infra.local.process_spec import ProcessSpec

PROCESS_LINE = re.compile(r"^(?P<name>[A-Za-z0-9_-]+):\s*(?P<command>\S.*)$")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
SHELL_CHARACTERS = "|&;<>()`*?"  # Heroku runs the line in bash; these need one


def read_procfile(text: str, config: Mapping[str, str]) -> ProcessSpec:
    """The command of the web process, and its environment: what an `env NAME=VALUE...` before the command sets as well.

    Raises PlatformFileError on anything but plain words and set variables.
    """
    for line in filter(None, map(str.strip, text.splitlines())):
        match = PROCESS_LINE.match(line)
        if match is None:
            raise PlatformFileError(f"Procfile: {line!r} is not of the form `name: command`")
        if match["name"] == "web":
            words = _words(match["command"], config)
            settings = list(takewhile(lambda word: "=" in word, words[1:])) if words[0] == "env" else []
            own = dict(word.split("=", 1) for word in settings)
            return ProcessSpec(words[len(settings) + 1 :] if settings else words, {**config, **own})
    raise PlatformFileError("Procfile: no `web:` line, so nothing would answer on $PORT")


def _words(command: str, config: Mapping[str, str]) -> tuple[str, ...]:
    if unsupported := sorted(set(command) & set(SHELL_CHARACTERS)):
        raise PlatformFileError(
            f"Procfile: {command!r} needs a shell ({' '.join(unsupported)}); a twin runs plain words only"
        )

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in config:
            raise PlatformFileError(f"Procfile: ${name} in {command!r} is not set; a dyno has {sorted(config)}")
        return config[name]

    expanded = VARIABLE.sub(value, command)
    if "$" in expanded:
        raise PlatformFileError(f"Procfile: {command!r} uses more of the shell than $NAME and ${{NAME}}")
    return tuple(shlex.split(expanded))
