"""Sends an open loop through a dask scheduler, whose workers are on other machines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor

from eval.errors import EvalError
from eval.event_loop import run_with_exact_timers
from eval.load.open_loop import SampleSink, run_open_loop
from eval.load.workers.shard import Shard, split
from eval.samples.model import Sample

SHARD_START_DELAY_S = 1.0  # from the decision to the first request: shards travel to the workers first


def run_shard(shard: Shard, start_unix_s: float, run_start_unix_s: float) -> list[Sample]:
    """Send a shard from this process. Returns its samples in the order in which they finished.

    The starts of the open loop and of the run are by the wall clock, which the machines share.
    """
    return run_with_exact_timers(_run_shard(shard, start_unix_s, run_start_unix_s))


async def _run_shard(shard: Shard, start_unix_s: float, run_start_unix_s: float) -> list[Sample]:
    clock_offset_s = time.perf_counter() - time.time()
    samples: list[Sample] = []
    gc.disable()
    try:
        async with shard.client(run_start_unix_s + clock_offset_s) as client:
            start = start_unix_s + clock_offset_s
            await run_open_loop(client, shard.requests, shard.offsets_s, start, shard.max_in_flight, samples.append)
    finally:
        gc.enable()
    return samples


async def run_distributed(
    executor: Executor, shard: Shard, worker_count: int, run_start: float, record: SampleSink
) -> None:
    """Send an open loop from workers and record the samples, in the order in which they finished.

    run_start: of time.perf_counter().
    """
    now_unix_s = time.time()
    starts = now_unix_s + SHARD_START_DELAY_S, now_unix_s - (time.perf_counter() - run_start)
    futures = [asyncio.wrap_future(executor.submit(run_shard, part, *starts)) for part in split(shard, worker_count)]
    try:
        results = await asyncio.gather(*futures)
    except BrokenExecutor as error:
        raise EvalError(f"a worker process ended in the middle of an open loop: {error}") from None
    for sample in sorted(
        (s for samples in results for s in samples), key=lambda s: s.scheduled_s + s.latency_ms / 1000
    ):
        record(sample)


@contextlib.contextmanager
def open_executor(scheduler: str | None) -> Iterator[Executor | None]:
    """The executor of the shards, dask's; None without a scheduler. Raises EvalError."""
    if scheduler is None:
        yield None
        return
    with _connect_dask(scheduler) as client:
        yield client.get_executor()


def _connect_dask(address: str):  # distributed is optional, and so is its type
    try:
        from distributed import Client as DaskClient  # type: ignore[reportMissingImports]  # optional
    except ImportError:
        raise EvalError("--scheduler needs dask: pip install distributed") from None
    try:
        return DaskClient(address, timeout=5)
    except (OSError, ValueError) as error:
        raise EvalError(f"--scheduler {address}: no dask scheduler responds there: {error}") from None
