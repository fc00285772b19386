"""Twenty switches between two models under load: answers lost, latency against the steady one, memory afterwards.

    python -m scripts.benchmarks.model_switch [--engine torch] [--switches 20] [--requests 2000] [--rate 50]

The service follows a store's folder, in which an alias moves between two versions of the shipped network. Half of the
steady requests come before the switches and half after them, so that both latencies are of one run; latency counts from
the scheduled send. Memory is the worker's after each half, before which a pair of switches warmed it up. What else runs
on the machine is in both latencies, and costs the switches more: they need a core.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from scripts.paths import EXAMPLE_IMAGE, ROOT
from service import schema
from service.settings import ENGINES
from tests.helpers.model_stores import add_version, perturbed_copy, point
from tests.helpers.running_service import Server, ready_service

NAME, ALIAS = "resnet18-cifar10", "prod"
CALLERS = 8
SWITCH_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """A response, or the error in its place."""

    latency_ms: float  # from the scheduled send
    status: int  # 0: none came
    header: str | None  # X-Model-Version
    body_version: str | None  # of the JSON


@dataclass(frozen=True)
class SwitchResult:
    """Of one run."""

    steady: list[Answer]
    switching: list[Answer]
    switches: int  # as /version counts them
    seconds: list[float]  # from the alias's move to /version's new number
    memory_mib: tuple[float, float]  # before and after
    threads: tuple[int, int]


def p99_ms(answers: list[Answer]) -> float:
    return float(np.percentile([answer.latency_ms for answer in answers], 99))


@contextmanager
def following_service(folder: Path, engine: str) -> Iterator[tuple[Server, Path, list[str]]]:
    """The service, its store, and two versions there: the first is served."""
    store, shipped = folder / "store", ROOT / "models" / NAME
    other = perturbed_copy(shipped, folder / "other", seed=1, engine=engine)
    versions = [add_version(store, NAME, bundle) for bundle in (shipped, other)]
    point(store, NAME, ALIAS, versions[0])
    settings = {"ENGINE": engine, "MODEL_STORE": str(store), "MODEL": f"{NAME}@{ALIAS}", "MODEL_POLL_S": "0.05"}
    with ready_service(folder / "log", **settings) as server:
        yield server, store, versions


def measure(folder: Path, engine: str, switches: int, requests: int, rate_rps: float) -> SwitchResult:
    """The figures of so many switches and requests."""
    with following_service(folder, engine) as (server, store, versions), ThreadPoolExecutor(1) as pool:
        (worker,) = psutil.Process(server.process.pid).children()
        send(server.port, 200, rate_rps)
        seconds = [switch(server, store, versions[index % 2]) for index in (1, 2)]
        steady = send(server.port, requests // 2, rate_rps)
        settled = worker.memory_info().rss / 2**20, worker.num_threads()
        load = pool.submit(send, server.port, requests, rate_rps)
        started_at, seconds = time.perf_counter(), []
        for index in range(1, switches + 1):
            wait_s = started_at + (index - 0.5) * requests / rate_rps / switches - time.perf_counter()
            time.sleep(max(0.0, wait_s))  # spreads them over the load
            seconds.append(switch(server, store, versions[index % 2]))
        switching = load.result()
        steady += send(server.port, requests - requests // 2, rate_rps)
        after = worker.memory_info().rss / 2**20, worker.num_threads()
        counted = server.get(schema.VERSION).json["switches"] - 2
    return SwitchResult(steady, switching, counted, seconds, *zip(settled, after, strict=True))  # type: ignore[arg-type]


def switch(server: Server, store: Path, version: str) -> float:
    """Move the alias, and wait until the service has followed. Returns the seconds that took."""
    started_at, number = time.perf_counter(), point(store, NAME, ALIAS, version)
    while server.get(schema.VERSION).json["store"]["number"] != number:
        if time.perf_counter() - started_at > SWITCH_TIMEOUT_S:
            raise TimeoutError(f"{version} is not served after {SWITCH_TIMEOUT_S:g} s; the log: {server.log}")
        time.sleep(0.01)
    return time.perf_counter() - started_at


def send(port: int, requests: int, rate_rps: float) -> list[Answer]:
    """Send so many images at a fixed rate, over CALLERS connections that stay open."""
    body, started_at = EXAMPLE_IMAGE.read_bytes(), time.perf_counter()

    def caller(first: int) -> list[Answer]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        answers = []
        for index in range(first, requests, CALLERS):
            due_at = started_at + index / rate_rps
            time.sleep(max(0.0, due_at - time.perf_counter()))
            answers.append(ask(connection, body, due_at))
        connection.close()
        return answers

    with ThreadPoolExecutor(CALLERS) as pool:
        return [answer for answers in pool.map(caller, range(CALLERS)) for answer in answers]


def ask(connection: http.client.HTTPConnection, body: bytes, due_at: float) -> Answer:
    try:
        connection.request("POST", schema.PREDICT, body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        content = response.read()
    except OSError:
        connection.close()
        return Answer((time.perf_counter() - due_at) * 1000, 0, None, None)
    latency_ms = (time.perf_counter() - due_at) * 1000
    version = json.loads(content)["model"]["version"] if response.status == 200 else None
    return Answer(latency_ms, response.status, response.headers[schema.MODEL_VERSION], version)


def lines(result: SwitchResult) -> list[str]:
    """The figures as text."""
    lost = sum(answer.status != 200 for answer in result.switching)
    mixed = sum(answer.header != answer.body_version for answer in result.switching)
    steady_ms, switching_ms = p99_ms(result.steady), p99_ms(result.switching)
    before_mib, after_mib = result.memory_mib
    return [
        f"{result.switches} switches, each in {np.median(result.seconds):.2f} s (median), in {len(result.switching)} "
        f"requests: {lost} lost, {mixed} with another version in the header than in the body",
        f"p99: {steady_ms:.1f} ms steady, {switching_ms:.1f} ms during the switches, "
        f"{switching_ms / steady_ms:.2f} times that",
        f"memory: {before_mib:.1f} MiB before, {after_mib:.1f} MiB after; threads: {result.threads}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="onnx")
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.engine, args.switches, args.requests, args.rate)
    print("\n".join(lines(result)))


if __name__ == "__main__":
    main()
