"""What the run and its worker processes tell each other, each message with its length before it.

To a worker: a Shard, Start, Stop or Cancel; the end of the connection is the end of the worker. From a worker: Ready,
Planned, each Sample as soon as it is made, Paused, Done, Cancelled, or Failed.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from dataclasses import dataclass
from typing import Any

from eval.load.pauses import ClientPause

LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Start:
    """Send the shard from then on, by time.perf_counter(), which the processes of one machine share."""

    at: float


@dataclass(frozen=True)
class Stop:
    """Send no more of the shard; what is in flight is waited for."""


@dataclass(frozen=True)
class Cancel:
    """Send no more of the shard, and wait for nothing."""


@dataclass(frozen=True)
class Ready:
    """All is imported."""


@dataclass(frozen=True)
class Planned:
    """The shard is there, and its target's session is open."""


@dataclass(frozen=True)
class Paused:
    """The worker stood still."""

    pause: ClientPause


@dataclass(frozen=True)
class Done:
    """Every request of the shard has its sample, or was not sent."""


@dataclass(frozen=True)
class Cancelled:
    """Nothing of a shard is sent any more."""


@dataclass(frozen=True)
class Failed:
    """An error that ended the shard, in one line without tokens."""

    text: str


def pack(message: Any) -> bytes:
    """The bytes of a message."""
    data = pickle.dumps(message)
    return LENGTH.pack(len(data)) + data


async def receive(reader: asyncio.StreamReader) -> Any | None:
    """The next message; None when the other process has ended. Both are of this program, so pickle is safe."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
