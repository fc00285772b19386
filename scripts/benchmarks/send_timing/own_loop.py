"""Our open loop at a constant rate, as a run sends it: samples are made and written, pauses are watched.

It prints as JSON what a run records as send_delay_ms, in the order of the schedule.

    python -m scripts.benchmarks.send_timing.own_loop URL RATE DURATION_S
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time

from eval.dataset.image_set import EncodedImage
from eval.event_loop import run_with_exact_timers
from eval.load.client import Client, RequestSpec
from eval.load.load_generator import gc_disabled
from eval.load.open_loop import START_DELAY_S, run_open_loop
from eval.load.pauses import Heartbeat
from eval.mock_server.profile import CIFAR10_CLASSES
from eval.plan.config import POISSON, Config
from eval.samples.model import ImageEntry, Sample
from eval.samples.store import append_sample
from scripts.paths import EXAMPLE_IMAGE


async def send(url: str, rate_rps: float, duration_s: float) -> list[float]:
    """The send delay of each request, in milliseconds."""
    data, config = EXAMPLE_IMAGE.read_bytes(), Config()
    image = EncodedImage(ImageEntry(EXAMPLE_IMAGE.name, hashlib.sha256(data).hexdigest(), 0), data, "image/png")
    offsets_s = [number / rate_rps for number in range(round(rate_rps * duration_s))]
    requests = [RequestSpec(POISSON, "measure", 0, 0, image, number, rate_rps) for number in range(len(offsets_s))]
    delays_ms, heartbeat, run_start = [0.0] * len(offsets_s), Heartbeat(), time.perf_counter()
    client = Client("null", url, CIFAR10_CLASSES, config.timeout_s, run_start, max_connections=config.in_flight)

    def record(sample: Sample) -> None:
        append_sample(journal, heartbeat.marked(sample, run_start))
        delays_ms[sample.index_in_block] = sample.send_delay_ms or 0.0

    with tempfile.TemporaryFile("w", encoding="utf-8") as journal, gc_disabled():
        async with client, heartbeat.beating():
            start = time.perf_counter() + START_DELAY_S
            await run_open_loop(client, requests, offsets_s, start, config.in_flight, record)
    return delays_ms


if __name__ == "__main__":
    url, rate, duration = sys.argv[1:]
    json.dump(run_with_exact_timers(send(url, float(rate), float(duration))), sys.stdout)
