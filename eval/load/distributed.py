"""Sends an open loop from several processes, here or through a dask scheduler on other machines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import dataclass

from eval.adapters.adapter import Adapter
from eval.errors import EvalError
from eval.event_loop import run_with_exact_timers
from eval.load.client import Client, RequestSpec
from eval.load.open_loop import SampleSink, run_open_loop
from eval.samples.model import Sample
from eval.targets.access import Access
from eval.targets.sagemaker.signer import Signer
from eval.targets.tokens import Scrubber, Token

SHARD_START_DELAY_S = 1.0  # from the decision to the first request: shards travel to the workers first


@dataclass(frozen=True)
class Shard:
    """One worker's part of an open loop, with everything that it needs."""

    target_name: str
    url: str
    classes: tuple[str, ...]
    timeout_s: float
    token: Token | None
    scrub: Scrubber
    no_connection_reuse: bool
    keepalive_s: float
    max_in_flight: int
    requests: tuple[RequestSpec, ...]
    offsets_s: tuple[float, ...]
    start_unix_s: float  # of the open loop, by the wall clock, which the machines share
    run_start_unix_s: float  # of the run
    adapter: Adapter | None = None
    access: Access | None = None
    signer: Signer | None = None


def run_shard(shard: Shard) -> list[Sample]:
    """Send a shard from this process. Returns its samples in the order in which they finished."""
    return run_with_exact_timers(_run_shard(shard))


async def _run_shard(shard: Shard) -> list[Sample]:
    clock_offset_s = time.perf_counter() - time.time()
    samples: list[Sample] = []
    client = Client(
        shard.target_name, shard.url, shard.classes, shard.timeout_s, shard.run_start_unix_s + clock_offset_s,
        shard.token,
        scrub=shard.scrub, max_connections=shard.max_in_flight, no_connection_reuse=shard.no_connection_reuse,
        keepalive_s=shard.keepalive_s, adapter=shard.adapter, access=shard.access, signer=shard.signer,
    )  # fmt: skip
    gc.disable()
    try:
        async with client:
            start = shard.start_unix_s + clock_offset_s
            await run_open_loop(client, shard.requests, shard.offsets_s, start, shard.max_in_flight, samples.append)
    finally:
        gc.enable()
    return samples


def split(shard: Shard, worker_count: int) -> list[Shard]:
    """Split round-robin: each worker gets every nth request and its part of the requests in flight."""
    in_flight_per_worker = max(1, shard.max_in_flight // worker_count)
    return [
        Shard(
            **vars(shard)
            | {
                "requests": shard.requests[i::worker_count],
                "offsets_s": shard.offsets_s[i::worker_count],
                "max_in_flight": in_flight_per_worker,
            }
        )
        for i in range(worker_count)
    ]


async def run_distributed(executor: Executor, shard: Shard, worker_count: int, record: SampleSink) -> None:
    """Send an open loop from workers and record the samples, in the order in which they finished."""
    futures = [asyncio.wrap_future(executor.submit(run_shard, part_shard)) for part_shard in split(shard, worker_count)]
    try:
        results = await asyncio.gather(*futures)
    except BrokenExecutor as error:
        raise EvalError(f"a worker process ended in the middle of an open loop: {error}") from None
    for sample in sorted(
        (s for samples in results for s in samples), key=lambda s: s.scheduled_s + s.latency_ms / 1000
    ):
        record(sample)


@contextlib.contextmanager
def open_executor(worker_count: int, scheduler: str | None) -> Iterator[Executor | None]:
    """The executor of the shards: None for one worker, processes, or dask's workers. Raises EvalError."""
    if scheduler is not None:
        with _connect_dask(scheduler) as client:
            yield client.get_executor()
    elif worker_count > 1:
        with ProcessPoolExecutor(worker_count, mp_context=multiprocessing.get_context("spawn")) as executor:
            yield executor
    else:
        yield None


def _connect_dask(address: str):  # distributed is optional, and so is its type
    try:
        from distributed import Client as DaskClient  # type: ignore[reportMissingImports]  # optional
    except ImportError:
        raise EvalError("--scheduler needs dask: pip install distributed") from None
    try:
        return DaskClient(address, timeout=5)
    except (OSError, ValueError) as error:
        raise EvalError(f"--scheduler {address}: no dask scheduler responds there: {error}") from None
