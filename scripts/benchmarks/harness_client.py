"""The rate and send delay of one process of the harness, and whether its memory stays flat.

    make bench            30 s at 1,000 requests a second, and 30 s at 100
    python -m scripts.benchmarks.harness_client --requests 1000000

The harness runs as in any run (schedule, client, samples on disk) against the mock endpoint (eval/mock_server/) on this
machine. The send delay is the time from the scheduled send to the actual one.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from eval.dataset.images import load_images
from eval.plan.config import Config
from eval.progress import Reporter
from eval.run.runner import RunOptions, execute_run, new_run
from eval.samples.store import read_samples
from eval.targets.endpoints import Endpoint, TargetSet
from scripts.paths import ROOT

RATE_RPS = 1000.0
WARMUP = 500
SAMPLE_EVERY_S = 1.0


class MemorySampler(threading.Thread):
    """Samples this process's resident memory once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.resident_mib: list[float] = []

    def run(self) -> None:
        process = psutil.Process()
        while not self.ended.wait(SAMPLE_EVERY_S):
            self.resident_mib.append(process.memory_info().rss / 2**20)

    def growth_mib(self) -> float:
        """From the median of the second tenth, when all modules are loaded, to that of the last."""
        tenth = max(1, len(self.resident_mib) // 10)
        return float(np.median(self.resident_mib[-tenth:]) - np.median(self.resident_mib[tenth : 2 * tenth]))


def bench(requests: int, rate_rps: float) -> None:
    """Send a stream to the mock endpoint and print the client's figures."""
    images = load_images("golden", None, 0, lambda _: None)
    config = Config(
        scenarios=("poisson",),
        warmup=WARMUP,
        baseline_rtt=0,
        rate_rps=rate_rps,
        duration_s=requests / rate_rps,
        in_flight=1000,
    )
    command = [sys.executable, "-m", "eval.mock_server"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as mock,
    ):
        assert mock.stdout
        fleet = TargetSet((Endpoint("mock", None, mock.stdout.readline().strip()),), {})
        memory = MemorySampler()
        memory.start()
        cpu_s, started_at = time.process_time(), time.perf_counter()
        run = new_run("bench", fleet, images, config, RunOptions())
        execute_run(Path(folder), run, fleet, images, config, RunOptions(), Reporter(Console(file=io.StringIO())))
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - started_at
        memory.ended.set()
        mock.terminate()
        samples = [s for s in read_samples(Path(folder)) if s.phase == "measure" and s.target == "mock"]
    send_delays_ms = np.array([s.send_delay_ms for s in samples])
    failed = sum(s.error is not None for s in samples)
    streamed_s = max(s.scheduled_s for s in samples) - min(s.scheduled_s for s in samples)
    p50, p99 = np.quantile(send_delays_ms, [0.5, 0.99])
    rate = f"{len(samples) / streamed_s:,.0f} a second sent, {failed} failed"
    print(
        f"client: one process, {len(samples):,} requests to the mock endpoint on {os.cpu_count()} cores shared with it"
    )
    print(f"  {rate}; send delay p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"  {cpu_s / len(samples) * 1e6:.0f} us of CPU a request ({cpu_s / wall_s:.0%} of a core)")
    print(f"  memory {memory.resident_mib[-1]:.0f} MiB, {memory.growth_mib():+.1f} MiB, second tenth to last")


def main() -> None:
    parser = argparse.ArgumentParser(description="The rate and send delay of one process of the harness.")
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--rate", type=float, default=RATE_RPS, help="requests a second (default: 1000)")
    arguments = parser.parse_args()
    bench(arguments.requests, arguments.rate)


if __name__ == "__main__":
    main()
