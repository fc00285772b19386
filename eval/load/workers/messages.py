"""What the run and its workers tell each other over a worker's stdin and stdout.

To a worker: a Setup, Shard, AskTime, Start, Stop, Cancel or Alive, pickled, with its length before it; the end of the
stream is the end of the worker. From a worker, a line each: the name of the message and its values as JSON. These are
checked, for a machine may have been taken over: nothing that it says runs code here, or becomes another run's sample.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import struct
from dataclasses import dataclass
from typing import Annotated, Any

from eval.errors import InvalidInput
from eval.load.pauses import CAUSES
from eval.samples.model import Cores, Processor, Sample
from eval.samples.store import MAX_SAMPLE_BYTES, sample_json
from eval.validation import Keys, Name, NameByName, OneOf, Text, Within, parse_json, validate, validate_plain_line

LENGTH = struct.Struct(">Q")
MAX_LINE_BYTES = MAX_SAMPLE_BYTES + 100
ClockTime = Annotated[float, Within(-1e9, 1e9)]  # of time.perf_counter()
Duration = Annotated[float, Within(0, 1e9)]


@dataclass(frozen=True)
class Setup:
    """What holds for all of a run. Times are of the run's time.perf_counter()."""

    run_start: float
    max_stall_s: float  # what is no pause yet
    max_silence_s: float | None  # after which the run has gone; None: the stream surely ends with it


@dataclass(frozen=True)
class AskTime:
    """Say what time it is, at once."""


@dataclass(frozen=True)
class Start:
    """Send the shard from then on, by the run's clock, which the worker's is ahead of by the offset."""

    at: float
    offset_s: float


@dataclass(frozen=True)
class Stop:
    """Send no more of the shard; what is in flight is waited for."""


@dataclass(frozen=True)
class Cancel:
    """Send no more of the shard, and wait for nothing."""


@dataclass(frozen=True)
class Alive:
    """The run goes on."""


@dataclass(frozen=True)
class Ready:
    """All is imported. What the run compares with its own, and records."""

    code_sha256: Name
    versions: NameByName  # of Python and the libraries that a sender imports
    cores: Cores
    processor: Annotated[dict[str, Any], Keys(Processor)]
    boot_id: Name  # one for each machine and its start; empty where the system has none


@dataclass(frozen=True)
class Planned:
    """The shard is there, and its target's session is open."""


@dataclass(frozen=True)
class Time:
    """What time it is by the worker's clock."""

    now: ClockTime


@dataclass(frozen=True)
class Paused:
    """The worker stood still, by the run's clock."""

    start: ClockTime
    end: ClockTime
    duration_s: Duration
    cause: Annotated[str, OneOf(CAUSES)]


@dataclass(frozen=True)
class Done:
    """Every request of the shard has its sample, or was not sent."""


@dataclass(frozen=True)
class Cancelled:
    """Nothing of a shard is sent any more."""


@dataclass(frozen=True)
class Failed:
    """An error that ended the shard, in one line without tokens."""

    text: Text


FROM_WORKER = {kind.__name__: kind for kind in (Ready, Planned, Time, Paused, Sample, Done, Cancelled, Failed)}


def pack(message: Any) -> bytes:
    """The bytes of a message to a worker."""
    data = pickle.dumps(message)
    return LENGTH.pack(len(data)) + data


async def receive(reader: asyncio.StreamReader) -> Any | None:
    """The run's next message, by a worker; None when the run has ended. The code is the run's, so pickle is safe."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def to_line(message: Any) -> bytes:
    """The line of a worker's message."""
    text = sample_json(message) if isinstance(message, Sample) else json.dumps(dataclasses.asdict(message))
    return f"{type(message).__name__} {text}\n".encode()


def from_line(line: bytes) -> Any:
    """A worker's message. Raises InvalidInput."""
    name, _, data = line.rstrip(b"\n").partition(b" ")
    kind = FROM_WORKER.get(name.decode(errors="replace"))
    if kind is None or not line.endswith(b"\n"):
        raise InvalidInput("it is no message of a worker")
    sample = validate_plain_line(Sample, data) if kind is Sample else None
    return sample or validate(kind, parse_json(data))


async def read_line(reader: asyncio.StreamReader) -> bytes | None:
    """A worker's next whole line; None at the end of its stream. Raises InvalidInput for one that is too long."""
    try:
        line = await reader.readline()
        return line if line.endswith(b"\n") else None
    except ConnectionError:
        return None
    except ValueError:
        raise InvalidInput(f"it has a line of more than {MAX_LINE_BYTES // 1024} KiB") from None
