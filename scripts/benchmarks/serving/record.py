"""The record of a run, as in serving.json: every cell, every cold start, every measurement of an engine."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmarks.http_load import LoadResult

# 2: the keys of RENAMED_IN_2, and no peak_rss_mb
SCHEMA_VERSION = 2
RENAMED_IN_2 = {
    "about": "reported_versions",
    "answered": "succeeded",
    "at_s": "time_s",
    "begun_at": "started_at",
    "ceilings": "engine_samples",
    "how": "description",
    "measured": "result",
    "starts_s": "cold_starts_s",
    "took_s": "duration_s",
    "weights": "memory_samples",
}
SERVING_JSON = "serving.json"
DIGITS = 4


class RecordError(Exception):
    """A file is not a record of a run."""


@dataclass(frozen=True)
class Cell:
    """One server under one concurrency in one round."""

    server: str
    round: int
    concurrency: int
    result: LoadResult


@dataclass(frozen=True)
class EngineSample:
    """An engine alone, immediately before or after a visit to our server with that engine."""

    engine: str
    round: int
    time_s: float  # since the run started
    single_ms: float  # median time of one image
    batch_rps: float  # images a second, in its fastest batch size


@dataclass(frozen=True)
class MemorySample:
    """The memory of a server's processes at the end of a window, still under load."""

    server: str
    round: int
    concurrency: int
    pss_mb: float  # proportional set size, in millions of bytes


@dataclass(frozen=True)
class ServerInfo:
    """A server as named in the tables."""

    name: str
    title: str
    engine: str
    ours: bool
    description: str


@dataclass
class Record:
    """A run, filled while it is measured."""

    started_at: str  # ISO 8601, UTC
    command: str
    quick: bool
    machine: dict[str, Any]
    cores: dict[str, int]  # "server", "client" -> the number of the core
    versions: dict[str, str]
    images: dict[str, Any]  # source, n, left_out
    plan: dict[str, Any]
    servers: list[ServerInfo]
    complete: bool = False
    duration_s: float = 0.0
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)  # engine -> EngineProcess.info
    client: list[Cell] = field(default_factory=list)  # against the null server
    cells: list[Cell] = field(default_factory=list)
    engine_samples: list[EngineSample] = field(default_factory=list)
    memory_samples: list[MemorySample] = field(default_factory=list)
    cold_starts_s: dict[str, list[float]] = field(default_factory=dict)  # process start to first correct response
    import_torch_s: list[float] = field(default_factory=list)  # python -c "import torch", on the server's core
    reported_versions: dict[str, dict[str, Any]] = field(default_factory=dict)  # our servers' /version
    failures: dict[str, str] = field(default_factory=dict)  # server -> why it was not measured in full

    def results_by_round(self, server: str, concurrency: int) -> dict[int, LoadResult]:
        """A server's results at one concurrency."""
        return {c.round: c.result for c in self.cells if (c.server, c.concurrency) == (server, concurrency)}

    def results(self, server: str, concurrency: int) -> list[LoadResult]:
        """The same, in the order of the rounds."""
        return list(self.results_by_round(server, concurrency).values())

    def rate_rps(self, server: str, concurrency: int) -> float | None:
        """Correct responses a second: the median of the rounds."""
        return median([result.rate_rps for result in self.results(server, concurrency)])

    def latency_ms(self, server: str, concurrency: int, quantile: str) -> float | None:
        """The median of the rounds' `p50_ms` or `p99_ms`; None if a round has none."""
        values = [getattr(result, quantile) for result in self.results(server, concurrency)]
        return None if None in values else median(values)

    def errors(self, server: str, concurrency: int) -> dict[str, int]:
        """Counts by kind, over all rounds."""
        total: dict[str, int] = {}
        for result in self.results(server, concurrency):
            for kind, count in result.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def cold_start_s(self, server: str) -> float | None:
        """The median cold start."""
        return median(self.cold_starts_s.get(server, []))

    def memory_mb(self, server: str) -> float | None:
        """The peak under load."""
        return max((sample.pss_mb for sample in self.memory_samples if sample.server == server), default=None)

    def concurrencies(self) -> list[int]:
        """All that were measured."""
        return sorted({cell.concurrency for cell in self.cells})

    def measured_servers(self) -> list[ServerInfo]:
        """The servers with at least one cell."""
        names = {cell.server for cell in self.cells}
        return [server for server in self.servers if server.name in names]


def median(values: Sequence[float]) -> float | None:
    """None without values."""
    return statistics.median(values) if values else None


def write_record(record: Record, folder: Path) -> None:
    """Write serving.json atomically, its floats rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{SERVING_JSON}.part"
    text = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(record)})
    content = json.loads(text, parse_float=lambda number: round(float(number), DIGITS))
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / SERVING_JSON)


def read_record(folder: Path) -> Record:
    """The record of serving.json. Raises RecordError."""
    path = folder / SERVING_JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (version := content.pop("schema_version")) == 1:
            content = _from_version_1(content)
        elif version != SCHEMA_VERSION:
            raise RecordError(f"{path} has schema version {version}, not {SCHEMA_VERSION}; measure again")
        records = {"servers": ServerInfo, "engine_samples": EngineSample, "memory_samples": MemorySample}
        records |= {"client": _cell, "cells": _cell}
        return Record(**content | {name: [make(**item) for item in content[name]] for name, make in records.items()})
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}; make bench-serve writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} lacks or garbles {error}; measure again") from None


def _cell(result: dict[str, Any], **identity: Any) -> Cell:
    return Cell(**identity, result=LoadResult(**result))


def _from_version_1(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {RENAMED_IN_2.get(k, k): _from_version_1(item) for k, item in value.items() if k != "peak_rss_mb"}
    return [_from_version_1(item) for item in value] if isinstance(value, list) else value
