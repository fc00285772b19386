"""What the service must reach and aims at, held against what a run measured. Every ratio is of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scripts.bench_serve.load import median
from scripts.bench_serve.record import Ceiling, Record
from scripts.bench_serve.wire import BUSY

BUSY_C, CROWDED_C = 64, 256  # concurrencies that the targets name
OURS = {"torch": "ours-torch", "onnx": "ours-onnx"}
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """One number, and the two that it is held against."""

    label: str  # which of the row's it is; "" when there is one only
    value: float | None
    must: float
    aim: float
    text: Callable[[float], str]
    more_is_better: bool = False

    def reaches(self, limit: float) -> bool:
        """Never true of what was not measured."""
        if self.value is None:
            return False
        return self.value >= limit if self.more_is_better else self.value <= limit

    @property
    def said(self) -> str:
        shown = NOT_MEASURED if self.value is None else self.text(self.value)
        return f"{self.label} {shown}".strip()


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    must: str
    aim: str
    figures: tuple[Figure, ...]

    @property
    def reached(self) -> str:
        return "; ".join(figure.said for figure in self.figures)

    @property
    def meets_must(self) -> bool:
        return all(figure.reaches(figure.must) for figure in self.figures)

    @property
    def meets_aim(self) -> bool:
        return all(figure.reaches(figure.aim) for figure in self.figures)


def targets(record: Record) -> list[Row]:
    """The table, in its order."""
    return [
        Row("torch, c=64, of the raw batch ceiling", "0.85", "0.95",
            (Figure("", of_ceiling(record, "torch"), 0.85, 0.95, _ratio, True),)),
        Row("onnx int8, c=64, of the raw ceiling", "0.75", "0.90",
            (Figure("", of_ceiling(record, "onnx"), 0.75, 0.90, _ratio, True),)),
        Row("onnx int8 over the best torch peer, c=64", "4x", "5x",
            (Figure("", over_best_peer(record), 4, 5, _times, True),)),
        Row("p50 at c=1 over raw single-image time, either engine", "+1.0 ms", "+0.5 ms",
            tuple(Figure(engine, over_single_ms(record, engine), 1.0, 0.5, _more_ms) for engine in OURS)),
        Row("throughput at c=256 over c=64; errors other than 503", "0.9; none", "1.0; none",
            (*(Figure(engine, kept(record, engine), 0.9, 1.0, _ratio, True) for engine in OURS),
             Figure("errors", own_errors(record), 0, 0, _count))),
        Row("cold start, onnx; torch over a bare `import torch`", "0.8 s; 1.6x", "0.5 s; 1.3x",
            (Figure("onnx", record.start_s(OURS["onnx"]), 0.8, 0.5, _seconds),
             Figure("torch", over_import(record), 1.6, 1.3, _times))),
        Row("memory under load, onnx; torch", "150 MB; 400 MB", "120 MB; 320 MB",
            (Figure("onnx", record.memory_mb(OURS["onnx"]), 150, 120, _mb),
             Figure("torch", record.memory_mb(OURS["torch"]), 400, 320, _mb))),
    ]  # fmt: skip


def of_ceiling(record: Record, engine: str) -> float | None:
    """Throughput at 64 over what the engine alone does right before and after; the median of the rounds."""
    alone = by_round(record, engine, lambda ceiling: ceiling.batch_rps)
    served = record.rps_by_round(OURS[engine], BUSY_C)
    return median([rps / alone[k] for k, rps in served.items() if k in alone])


def over_single_ms(record: Record, engine: str) -> float | None:
    """The same of what a lone request takes, less one pass of one picture."""
    alone = by_round(record, engine, lambda ceiling: ceiling.single_ms)
    cells = [c for c in record.cells if (c.server, c.concurrency) == (OURS[engine], 1)]
    return median([c.measured.p50_ms - alone[c.round] for c in cells if c.measured.p50_ms and c.round in alone])


def over_best_peer(record: Record) -> float | None:
    """Onnx int8 over the peer with torch that is fastest at 64: the median of the rounds that have both."""
    best = best_torch_peer(record)
    if best is None:
        return None
    theirs, ours = record.rps_by_round(best, BUSY_C), record.rps_by_round(OURS["onnx"], BUSY_C)
    return median([rps / theirs[k] for k, rps in ours.items() if theirs.get(k)])


def best_torch_peer(record: Record) -> str | None:
    """Its name."""
    rps = {s.name: record.rps(s.name, BUSY_C) or 0 for s in record.servers if not s.ours and s.engine == "torch"}
    return max(rps, key=lambda name: rps[name]) if any(rps.values()) else None


def kept(record: Record, engine: str) -> float | None:
    """Throughput at 256 over that at 64."""
    crowded, busy = (record.rps_by_round(OURS[engine], c) for c in (CROWDED_C, BUSY_C))
    return median([rps / busy[k] for k, rps in crowded.items() if busy.get(k)])


def own_errors(record: Record) -> float | None:
    """Of our servers, at any concurrency, 503 aside."""
    cells = [cell for cell in record.cells if cell.server in OURS.values()]
    if not cells:
        return None
    return float(sum(n for cell in cells for kind, n in cell.measured.errors.items() if kind != BUSY))


def over_import(record: Record) -> float | None:
    """The torch server's cold start over Python importing torch and nothing else."""
    start_s, bare_s = record.start_s(OURS["torch"]), median(record.import_torch_s)
    return start_s / bare_s if start_s and bare_s else None


def by_round(record: Record, engine: str, figure: Callable[[Ceiling], float]) -> dict[int, float]:
    """Of an engine alone: the mean of right before and right after, by round."""
    found: dict[int, list[float]] = {}
    for ceiling in record.ceilings:
        if ceiling.engine == engine:
            found.setdefault(ceiling.round, []).append(figure(ceiling))
    return {k: sum(values) / len(values) for k, values in found.items()}


def missed(rows: Iterable[Row]) -> list[Row]:
    """Those that do not reach what they must."""
    return [row for row in rows if not row.meets_must]


def _ratio(value: float) -> str:
    return f"{value:.3f}"


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _more_ms(value: float) -> str:
    return f"{value:+.2f} ms"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _mb(value: float) -> str:
    return f"{value:.0f} MB"


def _count(value: float) -> str:
    return f"{value:.0f}" if value else "none"
