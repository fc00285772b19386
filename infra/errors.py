"""Every exception of infra/. A message is one line: what is wrong, which value, what to do.

InfraError
 |- StackError           the stack's name belongs to no target
 |- StackFileError       Pulumi.<stack>.yaml cannot be read
 |- ConfigError          a setting of the stack that its program refuses
 |   '- TokenInClear         a token that a stack without HTTPS would take
 |- ModelError           a model that models/ does not have, or an engine that the model does not have
 |- UserDataError        user data that EC2, bash or systemd would refuse
 |- NotMeasured          why the size of the installed libraries is not known
 |- ProbeError           a search for leftovers could not look somewhere
 |- LogsError            a stack's log cannot be read from here
 '- TwinError            a local twin cannot be started, or does not work
     |- PlatformFileError    a platform's file has something that its reader does not follow
     '- StartError           the process ended, or was not ready in time; carries its log's last lines
         '- PortInUse            another program took the port first; worth another attempt
"""

from __future__ import annotations


class InfraError(Exception):
    """The root of them all. `pulumi up` prints one as a single line and creates nothing."""


class StackError(InfraError):
    """A stack name that belongs to no target."""


class StackFileError(InfraError):
    """A stack file that cannot be read."""


class ConfigError(InfraError):
    """A setting of the stack that makes no sense."""


class TokenInClear(ConfigError):
    """A token that everyone on its way could read."""

    def __init__(self) -> None:
        super().__init__(
            "cloudtrial:apiToken would travel in clear: set cloudtrial:domain and cloudtrial:certificateEmail for"
            " HTTPS, or accept it with pulumi config set cloudtrial:allowTokenOverHttp true"
        )


class ModelError(InfraError):
    """A model that is not in models/, or an engine that it does not have."""


class UserDataError(InfraError):
    """User data that EC2, bash or systemd would refuse."""


class NotMeasured(InfraError):
    """Why the installed size is not known, as a clause."""


class ProbeError(InfraError):
    """A probe for leftovers failed: why, and what to do."""


class LogsError(InfraError):
    """A log that cannot be read: what is missing, and how to get it."""


class TwinError(InfraError):
    """A local twin cannot be started, or does not work."""


class PlatformFileError(TwinError):
    """Names the file, the line and what is read instead."""


class StartError(TwinError):
    """The process ended, or was not ready in time."""


class PortInUse(StartError):
    """The port was free when it was chosen, and is not any more."""
