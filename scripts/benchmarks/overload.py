"""Ten times the service's maximum load for a minute: goodput, latency and recovery.

    python -m scripts.benchmarks.overload [--engine onnx] [--times 10] [--seconds 60]

The service runs on one core as a dyno starts it, the client on another. First a closed loop of 64 finds the largest
goodput. Then an open loop sends a multiple of that rate, with a client timeout of 10 s. A 503 is not retried. The load
that was really offered is reported, as one core of Python sends at most some 10,000 requests a second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from infra.local.health import free_ports
from scripts.benchmarks.http_load import ClosedLoop, OpenLoop
from scripts.benchmarks.http_messages import Request, send_once
from scripts.benchmarks.serving.process_tree import ProcessTree, running
from scripts.benchmarks.serving.servers import BASELINES_PYTHON, RAW, SERVERS, Workspace
from scripts.paths import EXAMPLE_IMAGE
from service.settings import ENGINES, Settings

SERVER_CORE, CLIENT_CORE = 0, 1
CONCURRENCY, WARMUP_S, CALIBRATION_S = 64, 2.0, 8.0
RECOVERY_LIMIT_S = 10.0


def recovery_s(port: int, request: Request) -> float:
    """From now until a prediction succeeds, at most RECOVERY_LIMIT_S."""
    started_at = time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_at) < RECOVERY_LIMIT_S:
        with suppress(TimeoutError):
            response = send_once(port, request, RECOVERY_LIMIT_S)
            if response and response.fault(request) is None:
                return time.perf_counter() - started_at
    return elapsed_s


def measure(tree: ProcessTree, port: int, request: Request, times: float, seconds: float) -> list[str]:
    """Lines with the largest goodput, and the goodput under that many times the load."""
    best = ClosedLoop(port, [request], CONCURRENCY).run(WARMUP_S, CALIBRATION_S, 0)
    before_mb, load = tree.pss_mb(), OpenLoop(port, request)
    overloaded = load.run(best.rate_rps * times, seconds)
    back_s = recovery_s(port, request)
    offered_rps = (overloaded.succeeded + sum(overloaded.errors.values())) / overloaded.window_s
    full_queue_ms = (Settings.max_queue + Settings.batch_max) / best.rate_rps * 1000
    return [
        f"{best.rate_rps:.0f}/s at a concurrency of {CONCURRENCY}, p99 {_ms(best.p99_ms)}",
        f"offered: {offered_rps / best.rate_rps:.1f} times that for {overloaded.window_s:.0f} s, "
        f"at most {load.max_send_delay_s:.3f} s late",
        f"goodput: {overloaded.rate_rps / best.rate_rps:.2f} of it, {overloaded.rate_rps:.0f}/s; "
        f"the others: {overloaded.errors}",
        f"p50 {_ms(overloaded.p50_ms)}, p99 {_ms(overloaded.p99_ms)}; a full queue takes {full_queue_ms:.0f} ms",
        f"memory: {before_mb:.0f} MB before, {tree.pss_mb():.0f} MB after",
        f"recovery: {back_s * 1000:.0f} ms from the last request to one that succeeds",
    ]


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--engine", choices=ENGINES, default="onnx")
    parser.add_argument("--times", type=float, default=10, help="offered load, over the largest goodput")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    server, request = (
        SERVERS[f"ours-{options.engine}"],
        RAW.request(EXAMPLE_IMAGE.read_bytes(), "image/png", "airplane"),
    )
    (port,) = free_ports(1)
    os.sched_setaffinity(0, [CLIENT_CORE])
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), BASELINES_PYTHON)
        with running(server.start(workspace, port), [SERVER_CORE], Path(folder) / "log") as tree:
            tree.first_response_s(port, request)
            lines = measure(tree, port, request, options.times, options.seconds)
    print("\n".join((f"{server.title}:", *lines)))


if __name__ == "__main__":
    main()
