"""An engine alone, without HTTP, decoding or queue: the ceiling of any server around it.

python -m scripts.benchmarks.serving.engine_throughput ENGINE IMAGES...

runs as a process of its own, pinned to the server's core. It reads the images, prints one line of JSON about itself
(labels, margins, batch), then measures for each line SECONDS on standard input and prints a line of figures. Between
two lines it sleeps.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from infra.local.process import bare_environment
from scripts.benchmarks.serving.process_tree import pinned
from scripts.paths import ROOT

BATCHES = (4, 8, 16, 32, 64)
BATCH_TRIAL_S = 0.4  # of each batch size
WARMUP_CALLS = 3


class EngineError(Exception):
    """The engine cannot be run here."""


class EngineProcess:
    """An engine in a process of its own, asleep between two measurements. Raises EngineError."""

    def __init__(self, engine: str, images: Sequence[Path], cpu: int):
        module = "scripts.benchmarks.serving.engine_throughput"
        self._process = subprocess.Popen(
            pinned(cpu, sys.executable, "-m", module, engine, *map(str, images)),
            cwd=ROOT,
            env=bare_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            encoding="utf-8",
        )
        try:
            self.info: dict[str, Any] = self._read_line()
        except BaseException:
            self.close()
            raise

    def measure(self, seconds: float) -> dict[str, float]:
        """single_ms and batch_rps, as in record.EngineSample: half of the time for each. Raises EngineError."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._read_line()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()

    def _read_line(self) -> dict[str, Any]:
        assert self._process.stdout and self._process.stderr
        if line := self._process.stdout.readline():
            return json.loads(line)
        errors = self._process.stderr.read().strip().splitlines() or [f"its process ended with {self._process.wait()}"]
        raise EngineError(errors[-1].rpartition("Error: ")[2])


def main(engine_name: str, paths: Sequence[str]) -> None:
    from service.engines import engine_class
    from service.images.preprocess import decode_image
    from service.model import load_for_engine
    from service.settings import Settings

    make_engine = engine_class(engine_name)
    bundle = load_for_engine(Settings.model_dir, engine_name)
    engine = make_engine(bundle)
    images = np.stack([decode_image(Path(path).read_bytes(), bundle) for path in paths])
    rows = np.concatenate([engine.probabilities(part) for part in np.array_split(images, -(-len(images) // 50))])
    ordered = np.sort(rows, axis=1)

    def batch_of(size: int) -> Callable[[], object]:
        batch = np.resize(images, (size, *images.shape[1:]))
        return lambda: engine.probabilities(batch)

    rates = {size: size / statistics.median(timed(batch_of(size), BATCH_TRIAL_S)) for size in BATCHES}
    best = max(rates, key=lambda size: rates[size])
    info = {
        "labels": [bundle.classes[int(row.argmax())] for row in rows],
        "margins": [round(float(row[-1] - row[-2]), 4) for row in ordered],
        "batch": best,
        "batch_rps_by_size": {size: round(rate, 1) for size, rate in rates.items()},
        "version": bundle.version(bundle.engine(engine_name).file),
        "libraries": engine.libraries,
        "details": getattr(engine, "details", {}),
    }
    print(json.dumps(info), flush=True)
    for line in sys.stdin:
        half_s = float(line) / 2
        single_ms = statistics.median(timed(batch_of(1), half_s)) * 1000
        calls_s = timed(batch_of(best), half_s)
        print(json.dumps({"single_ms": single_ms, "batch_rps": best * len(calls_s) / sum(calls_s)}), flush=True)


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """The duration of each call that starts within the time, after a few as warm-up."""
    for _ in range(WARMUP_CALLS):
        call()
    times_s = []
    end = time.perf_counter() + seconds
    while not times_s or time.perf_counter() < end:
        started_at = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - started_at)
    return times_s


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
