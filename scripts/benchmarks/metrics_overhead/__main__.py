"""What the histograms of /metrics cost: throughput and processor time with observation against those without.

    python -m scripts.benchmarks.metrics_overhead [--engine onnx] [--model DIR --image FILE] [--rounds 100] [--block 1]

One service on one core, loaded from another by a closed loop of one image, by default of the golden set. Blocks with
and without observation take turns, in random order within each round, in the same process: whatever else runs on the
machine is in both alike. It prints by how much a request takes longer with observation, over the rounds, and by how
much more processor time, which says more where others use the cores too; and last the part of the service's processor
time that its threads were seen to spend on observation, in blocks of their own as their clocks cost something too:
that needs no difference of two noisy numbers. Each has its 95% interval.

Without observation nothing is counted by image, though the service counted labels before there were histograms.
"""

from __future__ import annotations

import argparse
import math
import mmap
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from mimetypes import guess_type
from pathlib import Path

import numpy as np
import psutil
from scipy import stats

from infra.local.health import free_ports, wait_until_ready
from infra.local.process import Process
from scripts.benchmarks.http_load import ClosedLoop
from scripts.benchmarks.http_messages import HOST, Request, send_once
from scripts.benchmarks.metrics_overhead.observed_app import FILE_BYTES, OFF, ON, SPENT, SPENT_AT, TIMED, map_file
from scripts.benchmarks.serving.servers import RAW
from scripts.paths import EXAMPLE_IMAGE, MODEL_DIR, ROOT
from service.settings import ENGINES
from service.system import processor

SERVE = "from service.server import serve; serve('scripts.benchmarks.metrics_overhead.observed_app:app')"
SERVER_CORE, CLIENT_CORE = 0, 1
CONCURRENCY = 8
MODES = OFF, ON, TIMED
WARMUP_S, DRAIN_S, START_TIMEOUT_S = 3.0, 20.0, 120.0


@dataclass(frozen=True)
class Block:
    """A load with observation, or without."""

    rate_rps: float  # successes a second
    cpu_ms: float  # of the process that serves, per success
    observing_ms: float  # of these, where it was timed


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2%} ({self.low:+.2%} to {self.high:+.2%})"


def interval(values: Sequence[float]) -> Interval:
    """By Student."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    mean = float(np.mean(values))
    return Interval(mean, mean - half, mean + half)


def overhead(pairs: Sequence[tuple[float, float]]) -> Interval:
    """By how much costs with observation are above those without, pair by pair: the mean of the ratios' logarithms."""
    found = interval([math.log(with_it / without) for with_it, without in pairs])
    return Interval(*map(math.expm1, (found.mean, found.low, found.high)))


@contextmanager
def running_service(engine: str, model: Path, folder: Path) -> Iterator[tuple[int, int, mmap.mmap]]:
    """The port, the process that serves, and what the two share (observed_app.py)."""
    flag, (port,) = folder / "observe", free_ports(1)
    flag.write_bytes(bytes(FILE_BYTES))
    env = {"HOST": HOST, "PORT": str(port), "ENGINE": engine, "MODEL_DIR": str(model), "OBSERVE": str(flag)}
    process = Process(("python", "-c", SERVE), env, ROOT, [SERVER_CORE], folder / "log")
    try:
        wait_until_ready(port, [process], START_TIMEOUT_S)
        worker = max(psutil.Process(process.pid).children(), key=lambda child: child.memory_info().rss)
        yield port, worker.pid, map_file(flag)
    finally:
        process.terminate()
        process.reap()


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, to the nanosecond: Linux has a clock for each."""
    return time.clock_gettime((~pid << 3) | 2)


def measure(port: int, pid: int, shared: mmap.mmap, request: Request, window_s: float) -> Block:
    """One block."""

    def clocks() -> tuple[float, float]:
        return cpu_s(pid), SPENT.unpack_from(shared, SPENT_AT)[0] / 1e9

    at_end: list[tuple[float, float]] = []
    before = clocks()
    found = ClosedLoop(port, [request], CONCURRENCY).run(0, window_s, DRAIN_S, lambda: at_end.append(clocks()))
    if found.errors:
        raise SystemExit(f"metrics_overhead: requests failed: {found.errors}")
    if not found.succeeded:  # others had the cores all the while
        return measure(port, pid, shared, request, window_s)
    cpu_ms, observing_ms = ((b - a) / found.succeeded * 1000 for a, b in zip(before, at_end[0], strict=True))
    return Block(found.rate_rps, cpu_ms, observing_ms)


def labelled_request(port: int, image: Path) -> Request:
    """A request for the image; its label is what the service answers now."""
    request = RAW.request(image.read_bytes(), guess_type(image.name)[0] or "image/png", "")
    answer = send_once(port, request, START_TIMEOUT_S)
    if answer is None or answer.label is None:
        raise SystemExit(f"metrics_overhead: {image} was not answered with a label: {answer}")
    return replace(request, label=answer.label)


def measure_rounds(engine: str, model: Path, image: Path, rounds: int, window_s: float) -> list[tuple[Block, ...]]:
    """So many rounds of a block in each of MODES; in each round their order is another."""
    rng, found = random.Random(1), []
    with tempfile.TemporaryDirectory() as folder, running_service(engine, model, Path(folder)) as (port, pid, shared):
        request = labelled_request(port, image)
        measure(port, pid, shared, request, WARMUP_S)
        for number in range(rounds):
            blocks: dict[int, Block] = {}
            for mode in rng.sample(MODES, len(MODES)):
                shared[0] = mode
                blocks[mode] = measure(port, pid, shared, request, window_s)
            found.append(tuple(blocks[mode] for mode in MODES))
            print(f"\r{number + 1}/{rounds} rounds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def lines(found: Sequence[tuple[Block, ...]]) -> list[str]:
    """The figures as text; each round as MODES has it."""
    observing = interval([timed.observing_ms / timed.cpu_ms for _, _, timed in found])
    off_ms, on_ms, observing_ms, rate_rps = (
        float(np.median(column))
        for column in zip(
            *((off.cpu_ms, on.cpu_ms, timed.observing_ms, off.rate_rps) for off, on, timed in found), strict=True
        )
    )
    return [
        f"a request takes longer by {overhead([(1 / on.rate_rps, 1 / off.rate_rps) for off, on, _ in found])}",
        f"processor time is more by {overhead([(on.cpu_ms, off.cpu_ms) for off, on, _ in found])}",
        f"processor time spent on observation: {observing}",
        f"medians: {off_ms:.3f} ms of the processor a request without, {on_ms:.3f} with observation, of these "
        f"{observing_ms * 1000:.0f} us on it; {rate_rps:.0f} requests a second",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmarks.metrics_overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", choices=ENGINES, default="onnx")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--block", type=float, default=1.0, help="seconds of each block")
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="folder of a bundle of images")
    parser.add_argument("--image", type=Path, default=EXAMPLE_IMAGE, help="image file to send")
    options = parser.parse_args()
    os.sched_setaffinity(0, [CLIENT_CORE])
    cpu = processor()
    load = os.getloadavg()[0]
    print(f"{cpu['cpu_model']} ({cpu['cpu_generation']}); load average before: {load:.1f}", flush=True)
    print("\n".join(lines(measure_rounds(options.engine, options.model, options.image, options.rounds, options.block))))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nmetrics_overhead: stopped") from None
