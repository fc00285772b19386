"""What the service must reach and aims at, compared with a run's measurements. Every ratio is of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scripts.benchmarks.http_messages import QUEUE_FULL
from scripts.benchmarks.serving.record import EngineSample, Record, median

HIGH_CONCURRENCY, OVERLOAD_CONCURRENCY = 64, 256  # of the goals
OURS = {"torch": "ours-torch", "onnx": "ours-onnx"}
NOT_MEASURED = "not measured"

RATIO, TIMES, ADDED_MS, SECONDS, MEGABYTES = (
    text.format for text in ("{:.3f}", "{:.2f}x", "{:+.2f} ms", "{:.2f} s", "{:.0f} MB")
)


@dataclass(frozen=True)
class Figure:
    """A measured number, and its two limits."""

    label: str  # of the goal's figures; "" for a single one
    value: float | None
    must: float
    aim: float
    text: Callable[[float], str]
    higher_is_better: bool = False

    def reaches(self, limit: float) -> bool:
        """Whether the value meets the limit; false without a value."""
        if self.value is None:
            return False
        return self.value >= limit if self.higher_is_better else self.value <= limit

    def __str__(self) -> str:
        return f"{self.label} {NOT_MEASURED if self.value is None else self.text(self.value)}".strip()


@dataclass(frozen=True)
class Goal:
    """One row of the table."""

    title: str
    must: str
    aim: str
    figures: tuple[Figure, ...]

    @property
    def reached(self) -> str:
        return "; ".join(map(str, self.figures))

    @property
    def meets_must(self) -> bool:
        return all(figure.reaches(figure.must) for figure in self.figures)

    @property
    def meets_aim(self) -> bool:
        return all(figure.reaches(figure.aim) for figure in self.figures)


def evaluate_goals(record: Record) -> list[Goal]:
    """Every goal, in the table's order."""
    return [
        Goal("torch, c=64, of the raw batch ceiling", "0.85", "0.95",
             (Figure("", fraction_of_engine_rate(record, "torch"), 0.85, 0.95, RATIO, True),)),
        Goal("onnx int8, c=64, of the raw ceiling", "0.75", "0.90",
             (Figure("", fraction_of_engine_rate(record, "onnx"), 0.75, 0.90, RATIO, True),)),
        Goal("onnx int8 over the best torch baseline, c=64", "4x", "5x",
             (Figure("", speedup_over_baseline(record), 4, 5, TIMES, True),)),
        Goal("p50 at c=1 over raw single-image time, either engine", "+1.0 ms", "+0.5 ms",
             tuple(Figure(engine, added_latency_ms(record, engine), 1.0, 0.5, ADDED_MS) for engine in OURS)),
        Goal("throughput at c=256 over c=64; errors other than 503", "0.9; none", "1.0; none",
             (*(Figure(engine, retained_rate(record, engine), 0.9, 1.0, RATIO, True) for engine in OURS),
              Figure("errors", error_count(record), 0, 0, lambda count: f"{count:.0f}" if count else "none"))),
        Goal("cold start, onnx; torch over a bare `import torch`", "0.8 s; 1.6x", "0.5 s; 1.3x",
             (Figure("onnx", record.cold_start_s(OURS["onnx"]), 0.8, 0.5, SECONDS),
              Figure("torch", start_over_import(record), 1.6, 1.3, TIMES))),
        Goal("memory under load, onnx; torch", "150 MB; 400 MB", "120 MB; 320 MB",
             (Figure("onnx", record.memory_mb(OURS["onnx"]), 150, 120, MEGABYTES),
              Figure("torch", record.memory_mb(OURS["torch"]), 400, 320, MEGABYTES))),
    ]  # fmt: skip


def missed(goals: Iterable[Goal]) -> list[Goal]:
    """The goals that do not meet their must."""
    return [goal for goal in goals if not goal.meets_must]


def fraction_of_engine_rate(record: Record, engine: str) -> float | None:
    """Throughput at 64 over the engine's alone, immediately before and after."""
    return _median_ratio(_rates_by_round(record, OURS[engine], HIGH_CONCURRENCY),
                         _engine_by_round(record, engine, lambda sample: sample.batch_rps))  # fmt: skip


def added_latency_ms(record: Record, engine: str) -> float | None:
    """p50 at a concurrency of one less one pass of one image: the median of the rounds."""
    alone = _engine_by_round(record, engine, lambda sample: sample.single_ms)
    results = record.results_by_round(OURS[engine], 1)
    return median([result.p50_ms - alone[k] for k, result in results.items() if result.p50_ms and k in alone])


def speedup_over_baseline(record: Record) -> float | None:
    """The throughput of onnx int8 over that of the torch baseline that is fastest at 64."""
    baseline = best_torch_baseline(record)
    if baseline is None:
        return None
    ours, theirs = (_rates_by_round(record, name, HIGH_CONCURRENCY) for name in (OURS["onnx"], baseline))
    return _median_ratio(ours, theirs)


def best_torch_baseline(record: Record) -> str | None:
    """The name of the torch baseline that is fastest at 64."""
    names = [server.name for server in record.servers if not server.ours and server.engine == "torch"]
    rates_rps = {name: record.rate_rps(name, HIGH_CONCURRENCY) or 0 for name in names}
    return max(rates_rps, key=lambda name: rates_rps[name]) if any(rates_rps.values()) else None


def retained_rate(record: Record, engine: str) -> float | None:
    """Throughput at 256 over that at 64."""
    return _median_ratio(*(_rates_by_round(record, OURS[engine], c) for c in (OVERLOAD_CONCURRENCY, HIGH_CONCURRENCY)))


def error_count(record: Record) -> float | None:
    """Errors of our servers at any concurrency, other than 503."""
    cells = [cell for cell in record.cells if cell.server in OURS.values()]
    if not cells:
        return None
    return float(sum(n for cell in cells for kind, n in cell.result.errors.items() if kind != QUEUE_FULL))


def start_over_import(record: Record) -> float | None:
    """The torch server's cold start over Python importing torch and nothing else."""
    start_s, import_s = record.cold_start_s(OURS["torch"]), median(record.import_torch_s)
    return start_s / import_s if start_s and import_s else None


def _rates_by_round(record: Record, server: str, concurrency: int) -> dict[int, float]:
    return {k: result.rate_rps for k, result in record.results_by_round(server, concurrency).items()}


def _engine_by_round(record: Record, engine: str, figure: Callable[[EngineSample], float]) -> dict[int, float]:
    """A figure of an engine alone, by round: the mean of before and after."""
    by_round: dict[int, list[float]] = {}
    for sample in record.engine_samples:
        if sample.engine == engine:
            by_round.setdefault(sample.round, []).append(figure(sample))
    return {k: sum(values) / len(values) for k, values in by_round.items()}


def _median_ratio(numerators: Mapping[int, float], denominators: Mapping[int, float]) -> float | None:
    """The median ratio over the rounds that have both."""
    return median([value / denominators[k] for k, value in numerators.items() if denominators.get(k)])
