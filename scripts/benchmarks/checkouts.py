"""The service of this checkout beside that of others, in one run: before and after a change.

    python -m scripts.benchmarks.checkouts [--engines onnx,torch] [--rounds 3] NAME=TREE[,VARIABLE=VALUE...] ...

    git worktree add /tmp/before main
    python -m scripts.benchmarks.checkouts before=/tmp/before after=.

Each is started as `python -m service.server`, kept to one core, and loaded from another by a closed loop of one golden
image. Every round visits all of them in a new random order. It prints a table of medians over the rounds: for each
concurrency the successes a second and the processor time of each, and the latency at a concurrency of one.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from infra.local.health import free_ports, wait_until_ready
from infra.local.process import Process
from scripts.benchmarks.http_load import ClosedLoop, LoadResult
from scripts.benchmarks.http_messages import HOST, Request
from scripts.benchmarks.serving.servers import RAW
from scripts.paths import EXAMPLE_IMAGE
from service.system import processor

COMMAND = ("python", "-m", "service.server")
SERVER_CORE, CLIENT_CORE = 0, 1
CONCURRENCY = (1, 16, 64, 256)
WARMUP_S, DRAIN_S, START_TIMEOUT_S = 1.0, 20.0, 120.0


@dataclass(frozen=True)
class Variant:
    """One checkout, and its environment variables."""

    name: str
    tree: Path
    env: Mapping[str, str]


def variant(text: str) -> Variant:
    """`NAME=TREE,VARIABLE=VALUE` as typed."""
    name, _, rest = text.partition("=")
    tree, *settings = rest.split(",")
    if not (Path(tree) / "service" / "server.py").is_file():
        raise argparse.ArgumentTypeError(f"{tree!r} has no service/server.py; name the root of a checkout")
    return Variant(name, Path(tree).resolve(), dict(setting.split("=", 1) for setting in settings))


@dataclass(frozen=True)
class Cell:
    """One variant at one concurrency, in one round."""

    load: LoadResult
    cpu_ms: float  # of all its processes, per success: less sensitive to other load than the rate


def measure(each: Variant, engine: str, request: Request, window_s: float, folder: Path) -> tuple[float, list[Cell]]:
    """The variant's peak memory in MiB, and a cell for each concurrency."""
    (port,) = free_ports(1)
    env = {"HOST": HOST, "PORT": str(port), "ENGINE": engine, **each.env}
    process = Process(COMMAND, env, each.tree, [SERVER_CORE], folder / f"{each.name}.log")
    try:
        wait_until_ready(port, [process], START_TIMEOUT_S)
        cells = []
        for concurrency in CONCURRENCY:
            ClosedLoop(port, [request], concurrency).run(0, WARMUP_S, DRAIN_S)
            clock = [cpu_s(process.pid)]
            measured = ClosedLoop(port, [request], concurrency).run(
                0, window_s, DRAIN_S, partial(read_clock, clock, process.pid)
            )
            cells.append(Cell(measured, (clock[1] - clock[0]) / max(1, measured.succeeded) * 1000))
        return process.peak_memory_mib(), cells
    finally:
        process.terminate()
        process.reap()


def cpu_s(pid: int) -> float:
    """Processor time used by a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def read_clock(clock: list[float], pid: int) -> None:
    clock.append(cpu_s(pid))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmarks.checkouts", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("variants", nargs="+", type=variant, metavar="NAME=TREE[,VARIABLE=VALUE...]")
    parser.add_argument("--engines", default="onnx,torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=float, default=4.0, help="seconds measured at each concurrency")
    options = parser.parse_args()
    request = RAW.request(EXAMPLE_IMAGE.read_bytes(), "image/png", "airplane")
    rng = random.Random(1)
    os.sched_setaffinity(0, [CLIENT_CORE])
    cpu = processor()
    print(f"{cpu['cpu_model']} ({cpu['cpu_generation']}), {', '.join(cpu['instruction_sets'] or ())}", flush=True)
    columns = ["engine", "variant", *(f"c={c}, 1/s" for c in CONCURRENCY), *(f"c={c}, CPU ms" for c in CONCURRENCY)]
    columns += ["c=1, p50 ms", "peak MiB"]
    print(f"| {' | '.join(columns)} |\n|---|---|{'--:|' * (len(columns) - 2)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="checkouts-") as folder:
        for engine in options.engines.split(","):
            measured = defaultdict(list)
            for _ in range(options.rounds):
                for each in rng.sample(options.variants, len(options.variants)):
                    measured[each.name].append(measure(each, engine, request, options.window, Path(folder)))
            for name, rounds in measured.items():
                cells = list(zip(*(cells for _, cells in rounds), strict=True))
                figures = [f"{statistics.median(cell.load.rate_rps for cell in column):.1f}" for column in cells]
                figures += [f"{statistics.median(cell.cpu_ms for cell in column):.2f}" for column in cells]
                figures += [f"{statistics.median(cell.load.p50_ms or 0 for cell in cells[0]):.2f}"]
                figures += [f"{max(memory_mib for memory_mib, _ in rounds):.0f}"]
                errors = sum(sum(cell.load.errors.values()) for column in cells for cell in column)
                print(f"| {engine} | {name} | {' | '.join(figures)} |" + f" {errors} errors" * bool(errors), flush=True)


if __name__ == "__main__":
    main()
