"""Reads a systemd unit as far as a process without systemd can follow it: ExecStart, Environment, WorkingDirectory.

What the unit says about users, restarts and hardening is known by name and changes nothing here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from infra.errors import PlatformFileError

IGNORED_SETTINGS = re.compile(
    r"Description|After|Wants|WantedBy|Type|NotifyAccess|User|Group|Restart\w*|KillMode|Timeout\w+Sec|UMask|\w+Max"
    r"|CapabilityBoundingSet|IPAddress\w+|LockPersonality|NoNewPrivileges|Private\w+|Protect\w+|RemoveIPC|Restrict\w+|SystemCall\w+"
    r"|MemoryDenyWriteExecute|StateDirectory"
)
# What the VM's boot writes: the stack's settings. Whoever starts a twin sets the same variables.
VM_ENV_FILES = ("/etc/classifier.env", "-/etc/classifier-token.env")
SECTIONS = {"Unit", "Service", "Install"}
VARIABLE = re.compile(r"\$\{(\w+)\}")
INTERVAL = re.compile(r"^OnUnitActiveSec=(\d+)s$", re.MULTILINE)


@dataclass(frozen=True)
class Unit:
    """The part of a unit that says what runs."""

    exec_start: tuple[str, ...]
    env: dict[str, str]
    working_directory: str


def read_unit(text: str, settings: Mapping[str, str] | None = None) -> Unit:
    """The unit's process. Raises PlatformFileError on settings, specifiers and prefixes that are not followed.

    settings: what the unit's environment file holds, for the ${NAME}s of its command.
    """
    exec_start: list[str] = []
    working_directory: list[str] = []
    env: dict[str, str] = {}
    for key, value in _settings(text):
        match key:
            case "ExecStart":
                exec_start.append(value)
            case "WorkingDirectory":
                working_directory.append(value)
            case "Environment":
                env |= _assignments(value)
            case "EnvironmentFile" if value in VM_ENV_FILES:
                pass
            case _ if not IGNORED_SETTINGS.fullmatch(key):
                raise PlatformFileError(f"unit: {key}= is not known here: {key}={value}")
    if len(exec_start) != 1 or len(working_directory) != 1:
        raise PlatformFileError("unit: exactly one ExecStart= and one WorkingDirectory= are followed")
    return Unit(_command(exec_start[0], env | dict(settings or {})), env, working_directory[0])


def read_interval_s(text: str) -> float:
    """How often a timer starts its unit again. Raises PlatformFileError."""
    if match := INTERVAL.search(text):
        return float(match[1])
    raise PlatformFileError("timer: OnUnitActiveSec= in whole seconds, such as 30s, is followed, and is not there")


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in map(str.strip, text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if line.strip("[]") not in SECTIONS:
                raise PlatformFileError(f"unit: section {line} is not known here, only {sorted(SECTIONS)}")
            continue
        key, equals, value = line.partition("=")
        if not equals or line.endswith("\\"):
            raise PlatformFileError(f"unit: {line!r} is not one whole `Key=value` line")
        yield key.strip(), value.strip()


def _assignments(value: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in shlex.split(value)]
    if "%" in value or not all(equals for _, equals, _ in pairs):
        raise PlatformFileError(f"unit: Environment={value}: only NAME=value without % specifiers is followed")
    return {name: text for name, _, text in pairs}


def _command(value: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    if not value.startswith("/"):
        raise PlatformFileError(f"unit: ExecStart={value}: must be an absolute path, without prefixes such as - or @")
    if unset := [name for name in VARIABLE.findall(value) if name not in variables]:
        raise PlatformFileError(f"unit: ExecStart={value}: ${{{unset[0]}}} is not set")
    if "%" in value or "$" in VARIABLE.sub("", value):
        raise PlatformFileError(f"unit: ExecStart={value}: % specifiers and $ variables but ${{NAME}} are not followed")
    return tuple(VARIABLE.sub(lambda match: variables[match[1]], word) for word in shlex.split(value))
