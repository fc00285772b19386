"""Twenty switches between two models under load: answers lost, latency against the steady one, memory afterwards.

    python -m scripts.benchmarks.model_switch [--engine torch] [--switches 20] [--requests 2000] [--rate 50]

The service follows a store's folder, in which an alias moves between two versions of the shipped network. A block of
requests without a switch and one with a switch at its start take turns, so that whatever else runs on the machine is in
both latencies alike; latency counts from the scheduled send. Memory is the worker's, before and after, each time after
requests and one more load.
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

NAME, ALIAS, MANAGE_TOKEN = "resnet18-cifar10", "prod", "only-of-this-run"
CALLERS = 8
SWITCH_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """A response, or the error in its place."""

    due_s: float  # its scheduled send, from the start of the load
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
    with ready_service(folder / "log", MANAGE_TOKEN=MANAGE_TOKEN, **settings) as server:
        yield server, store, versions


def measure(folder: Path, engine: str, switches: int, requests: int, rate_rps: float) -> SwitchResult:
    """The figures of so many switches and requests."""
    with following_service(folder, engine) as (server, store, versions), ThreadPoolExecutor(1) as pool:
        (worker,) = psutil.Process(server.process.pid).children()
        send(server.port, 200, rate_rps)
        seconds = [switch(server, store, versions[index % 2]) for index in (1, 2)]
        send(server.port, requests // 4, rate_rps)
        settled = at_rest(server, worker)
        switched = server.get(schema.VERSION).json["switches"]
        load = pool.submit(send, server.port, 2 * requests, rate_rps)
        started_at, seconds, block_s = time.perf_counter(), [], requests / rate_rps / switches
        for index in range(1, switches + 1):
            time.sleep(max(0.0, started_at + (2 * index - 1) * block_s - time.perf_counter()))
            seconds.append(switch(server, store, versions[index % 2]))
        answers = load.result()
        steady, switching = ([each for each in answers if int(each.due_s / block_s) % 2 == odd] for odd in (0, 1))
        send(server.port, requests // 4, rate_rps)
        counted = server.get(schema.VERSION).json["switches"] - switched
        after = at_rest(server, worker)
    (memory_before, threads_before), (memory_after, threads_after) = settled, after
    memory_mib, threads = (memory_before, memory_after), (threads_before, threads_after)
    return SwitchResult(steady, switching, counted, seconds, memory_mib, threads)


def at_rest(server: Server, worker: psutil.Process) -> tuple[float, int]:
    """MiB and threads after one more load, whose answer comes once the model before is freed."""
    authorised = {"Authorization": f"Bearer {MANAGE_TOKEN}"}
    reply = server.ask("POST", f"{schema.V2_REPOSITORY}/models/{NAME}/load", b"", authorised)
    if reply.status != 200:
        raise RuntimeError(f"the model could not be loaded again: {reply.json['detail']}")
    return worker.memory_info().rss / 2**20, worker.num_threads()


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
            answers.append(ask(connection, body, index / rate_rps, due_at))
        connection.close()
        return answers

    with ThreadPoolExecutor(CALLERS) as pool:
        return [answer for answers in pool.map(caller, range(CALLERS)) for answer in answers]


def ask(connection: http.client.HTTPConnection, body: bytes, due_s: float, due_at: float) -> Answer:
    try:
        connection.request("POST", schema.PREDICT, body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        content = response.read()
    except OSError:
        connection.close()
        return Answer(due_s, (time.perf_counter() - due_at) * 1000, 0, None, None)
    latency_ms = (time.perf_counter() - due_at) * 1000
    version = json.loads(content)["model"]["version"] if response.status == 200 else None
    return Answer(due_s, latency_ms, response.status, response.headers[schema.MODEL_VERSION], version)


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
