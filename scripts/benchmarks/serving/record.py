"""What a run measured, as it is kept in serving.json: every cell, every cold start, every measurement of an engine."""

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
    """A file is not what such a run writes."""


@dataclass(frozen=True)
class Cell:
    """One server under one concurrency in one round."""

    server: str
    round: int
    concurrency: int
    result: LoadResult


@dataclass(frozen=True)
class EngineSample:
    """An engine alone, as it was right before or right after one visit to our server with that engine."""

    engine: str
    round: int
    time_s: float  # since the run started
    single_ms: float  # median time of one image
    batch_rps: float  # images a second, in the batch size that suits it


@dataclass(frozen=True)
class MemorySample:
    """The memory of a server's processes at the end of a window, the load still on."""

    server: str
    round: int
    concurrency: int
    pss_mb: float  # proportional set size in millions of bytes: pages that several processes share count in parts


@dataclass(frozen=True)
class ServerInfo:
    """A server as the tables name it."""

    name: str
    title: str
    engine: str
    ours: bool
    description: str


@dataclass
class Record:
    """A run, filled while it goes on."""

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
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)  # how each engine runs here, alone
    client: list[Cell] = field(default_factory=list)  # against a server that does nothing
    cells: list[Cell] = field(default_factory=list)
    engine_samples: list[EngineSample] = field(default_factory=list)
    memory_samples: list[MemorySample] = field(default_factory=list)
    cold_starts_s: dict[str, list[float]] = field(default_factory=dict)  # process start to first correct response
    import_torch_s: list[float] = field(default_factory=list)  # python -c "import torch", on the server's core
    reported_versions: dict[str, dict[str, Any]] = field(default_factory=dict)  # our servers' /version
    failures: dict[str, str] = field(default_factory=dict)  # server -> why it was not measured, or not to the end

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
        """The median of the rounds' `p50_ms` or `p99_ms`; None when a round could not tell it."""
        values = [getattr(result, quantile) for result in self.results(server, concurrency)]
        return None if None in values else median(values)

    def errors(self, server: str, concurrency: int) -> dict[str, int]:
        """By kind, all rounds together."""
        total: dict[str, int] = {}
        for result in self.results(server, concurrency):
            for kind, count in result.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def cold_start_s(self, server: str) -> float | None:
        """The median cold start."""
        return median(self.cold_starts_s.get(server, []))

    def memory_mb(self, server: str) -> float | None:
        """The most that was seen under load."""
        return max((sample.pss_mb for sample in self.memory_samples if sample.server == server), default=None)

    def concurrencies(self) -> list[int]:
        """Those that were tried."""
        return sorted({cell.concurrency for cell in self.cells})

    def measured_servers(self) -> list[ServerInfo]:
        """Those with at least one cell."""
        names = {cell.server for cell in self.cells}
        return [server for server in self.servers if server.name in names]


def median(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return statistics.median(values) if values else None


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
        content = json.loads(path.read_text())
        if (version := content.pop("schema_version")) == 1:
            content = _from_version_1(content)
        elif version != SCHEMA_VERSION:
            raise RecordError(f"{path} has schema version {version}, not {SCHEMA_VERSION}; measure again")
        for name, record_class in (
            ("servers", ServerInfo),
            ("engine_samples", EngineSample),
            ("memory_samples", MemorySample),
        ):
            content[name] = [record_class(**item) for item in content[name]]
        for name in ("client", "cells"):
            content[name] = [Cell(**{**item, "result": LoadResult(**item["result"])}) for item in content[name]]
        return Record(**content)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}; make bench-serve writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} lacks or garbles {error}; measure again") from None


def _from_version_1(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {RENAMED_IN_2.get(k, k): _from_version_1(item) for k, item in value.items() if k != "peak_rss_mb"}
    return [_from_version_1(item) for item in value] if isinstance(value, list) else value


def _rounded(value: Any) -> Any:
    """Floats to a few digits, all the way down."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
