"""What a run measured, as it lies in serving.json: every cell, every start, every look at a ceiling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench_serve.load import Measured, median

SCHEMA_VERSION = 1
SERVING_JSON = "serving.json"
DIGITS = 4


class RecordError(Exception):
    """A file is not what such a run writes."""


@dataclass(frozen=True)
class Cell:
    """One server under one concurrency in one round."""

    server: str
    round: int
    concurrency: int
    measured: Measured


@dataclass(frozen=True)
class Ceiling:
    """An engine alone, as it was right before or right after one visit to our server with that engine."""

    engine: str
    round: int
    at_s: float  # since the run's beginning
    single_ms: float  # median time of one picture
    batch_rps: float  # pictures a second, in the batch size that suits it


@dataclass(frozen=True)
class Weight:
    """The memory of a server's processes in millions of bytes, at the end of a window, the load still on."""

    server: str
    round: int
    concurrency: int
    pss_mb: float
    peak_rss_mb: float  # an upper bound, see tree.Memory


@dataclass(frozen=True)
class Described:
    """A server as the tables name it."""

    name: str
    title: str
    engine: str
    ours: bool
    how: str


@dataclass
class Record:
    """A run, filled while it goes on."""

    begun_at: str  # ISO 8601, UTC
    command: str
    quick: bool
    machine: dict[str, Any]
    cores: dict[str, int]  # "server", "client" -> the number of the core
    versions: dict[str, str]
    images: dict[str, Any]  # source, n, left_out
    plan: dict[str, Any]
    servers: list[Described]
    complete: bool = False
    took_s: float = 0.0
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)  # how each engine runs here, alone
    client: list[Cell] = field(default_factory=list)  # against a server that does nothing
    cells: list[Cell] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    starts_s: dict[str, list[float]] = field(default_factory=dict)  # process start to first right answer
    import_torch_s: list[float] = field(default_factory=list)  # python -c "import torch", on the server's core
    about: dict[str, dict[str, Any]] = field(default_factory=dict)  # our servers' /version
    failures: dict[str, str] = field(default_factory=dict)  # server -> why it was not measured, or not to the end

    def of(self, server: str, concurrency: int) -> list[Measured]:
        """A server's cells at one concurrency, in the order of the rounds."""
        return [c.measured for c in self.cells if (c.server, c.concurrency) == (server, concurrency)]

    def rps(self, server: str, concurrency: int) -> float | None:
        """Right answers a second: the median of the rounds."""
        return median([m.per_second for m in self.of(server, concurrency)])

    def rps_by_round(self, server: str, concurrency: int) -> dict[int, float]:
        """The same, each round by itself."""
        wanted = (server, concurrency)
        return {c.round: c.measured.per_second for c in self.cells if (c.server, c.concurrency) == wanted}

    def latency_ms(self, server: str, concurrency: int, which: str) -> float | None:
        """The median of the rounds' `p50_ms` or `p99_ms`; None when a round could not tell it."""
        found = [getattr(m, which) for m in self.of(server, concurrency)]
        return None if None in found else median(found)

    def errors(self, server: str, concurrency: int) -> dict[str, int]:
        """By kind, all rounds together."""
        total: dict[str, int] = {}
        for measured in self.of(server, concurrency):
            for kind, count in measured.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def start_s(self, server: str) -> float | None:
        """The median cold start."""
        return median(self.starts_s.get(server, []))

    def memory_mb(self, server: str) -> float | None:
        """The most that was seen under load."""
        return max((w.pss_mb for w in self.weights if w.server == server), default=None)

    def concurrencies(self) -> list[int]:
        """Those that were tried."""
        return sorted({cell.concurrency for cell in self.cells})

    def measured_servers(self) -> list[Described]:
        """Those with at least one cell."""
        names = {cell.server for cell in self.cells}
        return [server for server in self.servers if server.name in names]


def write_record(record: Record, folder: Path) -> None:
    """serving.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{SERVING_JSON}.part"
    part.write_text(json.dumps(_rounded({"schema_version": SCHEMA_VERSION, **asdict(record)}), indent=1) + "\n")
    part.replace(folder / SERVING_JSON)


def read_record(folder: Path) -> Record:
    """Raises RecordError."""
    path = folder / SERVING_JSON
    try:
        facts = json.loads(path.read_text())
        if (found := facts.pop("schema_version")) != SCHEMA_VERSION:
            raise RecordError(f"{path} has schema version {found}, not {SCHEMA_VERSION}; measure again")
        for name, made in (("servers", Described), ("ceilings", Ceiling), ("weights", Weight)):
            facts[name] = [made(**each) for each in facts[name]]
        for name in ("client", "cells"):
            facts[name] = [Cell(**{**each, "measured": Measured(**each["measured"])}) for each in facts[name]]
        return Record(**facts)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}; make bench-serve writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} lacks or garbles {error}; measure again") from None


def _rounded(value: Any) -> Any:
    """Floats to a few digits, all the way down."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
