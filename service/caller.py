"""Whoever waits for an answer, as those see it who work on it."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import ClientGone


@dataclass(slots=True)
class Caller:
    """The client of one request. The server sets `gone`; whoever works for it looks, and stops."""

    gone: bool = False  # whether its connection has ended

    def check(self) -> None:
        """Raise ClientGone when nobody waits any more."""
        if self.gone:
            raise ClientGone("the client has disconnected; nothing is left to do")
