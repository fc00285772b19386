"""Timings as ratios within one run: machines differ and drift, ratios hold.

    make bench

- request: the median time of POST /predict against one forward pass of the same engine in this process,
  on as many cores, alternating so that both see the same machine;
- start: spawn to /readyz against a bare `python -c "import torch"`;
- demo: the wall time of a small comparison against the time its requests took.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import torch

from eval.samples.store import read_samples
from infra.local.running.starter import available_cores, cores_for
from infra.local.running.twin import Twin
from infra.local.twins import local_twins
from infra.targets import AWS_SAGEMAKER
from scripts.paths import EXAMPLE_IMAGE, MODEL_DIR, ROOT
from service.engines.torch_engine import TorchEngine
from service.images.preprocess import decode_image
from service.model import load_bundle
from service.schema import PREDICT

REQUESTS = 200
STARTS = 3
DEMO_IMAGES = 40


def elapsed_ms(action: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    action()
    return (time.perf_counter() - started_at) * 1000


def request_sender(twin: Twin, body: bytes) -> Callable[[], None]:
    """A function that posts the image once, on a connection that stays open."""
    connection = http.client.HTTPConnection(urlsplit(twin.url).netloc)

    def post() -> None:
        connection.request("POST", PREDICT, body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"bench: {twin.name} failed with status {response.status}")

    return post


def bench_requests(twins: list[Twin]) -> None:
    body = EXAMPLE_IMAGE.read_bytes()
    bundle = load_bundle(MODEL_DIR)
    engine, image = TorchEngine(bundle), decode_image(body, bundle)[None]
    print("request: median of POST /predict over one forward pass")
    for twin in twins:
        os.sched_setaffinity(0, cores_for(twin.target, available_cores()))
        torch.set_num_threads(twin.cpus)
        post = request_sender(twin, body)
        for _ in range(20):
            engine.probabilities(image)
            post()
        pairs = [(elapsed_ms(post), elapsed_ms(lambda: engine.probabilities(image))) for _ in range(REQUESTS)]
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        request_ms, forward_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"  {twin.name:13} {request_ms / forward_ms:5.2f}  ({request_ms:.1f} ms over {forward_ms:.1f} ms)")


def bench_starts(twins: list[Twin]) -> None:
    command = [sys.executable, "-c", "import torch"]
    bare_ms = statistics.median(elapsed_ms(lambda: subprocess.run(command, check=True)) for _ in range(STARTS))
    print("start: spawn to /readyz over a bare import of torch")
    for twin in twins:
        print(f"  {twin.name:13} {twin.startup_ms / bare_ms:5.2f}  ({twin.startup_ms:.0f} ms over {bare_ms:.0f} ms)")


def bench_demo() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "eval", "run", "--local", "--images", "golden"]
        command += ["--limit", str(DEMO_IMAGES), "--out", str(out)]
        wall_s = elapsed_ms(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)) / 1000
        busy_s = sum(sample.latency_ms for sample in read_samples(out)) / 1000
        complete = json.loads((out / "report.json").read_text(encoding="utf-8"))["run"]["complete"]
    print(f"demo: wall time over the time its requests took, {DEMO_IMAGES} images, complete: {complete}")
    print(f"  {wall_s / busy_s:5.2f}  ({wall_s:.1f} s over {busy_s:.1f} s; the rest: starting the twins, the report)")


def main() -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("bench: needs Linux, to give both sides the same cores")
    with local_twins(on_event=lambda text: None) as twins:
        for name, reason in twins.failures.items():
            print(f"bench: {name} did not start: {reason}", file=sys.stderr)
        bench_requests([twin for twin in twins.running if twin.target is not AWS_SAGEMAKER])  # without its front
        bench_starts(twins.running)
    bench_demo()


if __name__ == "__main__":
    main()
