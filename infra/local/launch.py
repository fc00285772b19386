"""What a platform's own file says to run: the one record that its readers return, and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class TwinError(Exception):
    """A twin cannot be started.

    TwinError
     |- FileError    a platform's file says something that its reader does not understand
     '- StartError   the process ended, or was not ready in time
         '- PortTaken    another program was faster; worth another try
    """


class FileError(TwinError):
    """Names the file, the line and what is read instead."""


class StartError(TwinError):
    """Carries the last lines of the process's log."""


class PortTaken(StartError):
    """The port was free when it was chosen, and is not any more."""


@dataclass(frozen=True)
class Launch:
    """One process, as its platform would start it in the root of what is shipped."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  # on top of the bare environment
