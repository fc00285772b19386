"""The connection of a request's client, as those see it who work on the request."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import ClientDisconnected


@dataclass(slots=True)
class ClientConnection:
    """The server sets `closed`; whoever works on the request looks, and stops."""

    closed: bool = False

    def check(self) -> None:
        """Raise ClientDisconnected when nobody waits for an answer any more."""
        if self.closed:
            raise ClientDisconnected("the client has disconnected; nothing is left to do")
