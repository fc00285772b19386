"""A stream sent by several processes, here or through a dask scheduler on other machines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import dataclass

from eval.errors import EvalError
from eval.load.client import Ask, Client
from eval.load.open_loop import Keep, send_stream
from eval.samples.model import Sample

SHARD_LEAD_S = 1.0  # the same where the requests travel to workers first


@dataclass(frozen=True)
class Shard:
    """One worker's part of a stream, with all that it needs."""

    name: str
    url: str
    classes: tuple[str, ...]
    timeout_s: float
    token: str | None
    fresh: bool
    keepalive_s: float
    in_flight: int
    asks: tuple[Ask, ...]
    offsets_s: tuple[float, ...]
    start_unix_s: float  # of the stream, by the wall clock, which the machines share
    origin_unix_s: float  # of the run


def send_shard(shard: Shard) -> list[Sample]:
    """Send a shard from this process. Gives its samples in the order in which they finished."""
    return asyncio.run(_send_shard(shard))


async def _send_shard(shard: Shard) -> list[Sample]:
    ahead_s = time.perf_counter() - time.time()
    samples: list[Sample] = []
    client = Client(
        shard.name, shard.url, shard.classes, shard.timeout_s, shard.origin_unix_s + ahead_s, shard.token,
        connections=shard.in_flight, fresh=shard.fresh, keepalive_s=shard.keepalive_s,
    )  # fmt: skip
    gc.disable()
    try:
        async with client:
            start = shard.start_unix_s + ahead_s
            await send_stream(client, shard.asks, shard.offsets_s, start, shard.in_flight, samples.append)
    finally:
        gc.enable()
    return samples


def deal(shard: Shard, workers: int) -> list[Shard]:
    """The stream dealt out like cards: each worker gets every nth request, and its share of those under way."""
    share = max(1, shard.in_flight // workers)
    return [
        Shard(
            **vars(shard)
            | {"asks": shard.asks[i::workers], "offsets_s": shard.offsets_s[i::workers], "in_flight": share}
        )
        for i in range(workers)
    ]


async def send_sharded(executor: Executor, shard: Shard, workers: int, keep: Keep) -> None:
    """Send a stream from workers and keep the samples, merged by the time at which they finished."""
    parts = [asyncio.wrap_future(executor.submit(send_shard, part)) for part in deal(shard, workers)]
    try:
        found = await asyncio.gather(*parts)
    except BrokenExecutor as error:
        raise EvalError(f"a worker process ended in the middle of a stream: {error}") from None
    for sample in sorted((s for samples in found for s in samples), key=lambda s: s.started_s + s.latency_ms / 1000):
        keep(sample)


@contextlib.contextmanager
def open_workers(workers: int, scheduler: str | None) -> Iterator[Executor | None]:
    """What the shards are sent by: nothing for one, processes, or the workers of a dask scheduler. Raises EvalError."""
    if scheduler is not None:
        with _dask_client(scheduler) as client:
            yield client.get_executor()
    elif workers > 1:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as executor:
            yield executor
    else:
        yield None


def _dask_client(address: str):  # distributed is optional, and so is its type
    try:
        from distributed import Client as Scheduler  # type: ignore[reportMissingImports]  # optional
    except ImportError:
        raise EvalError("--scheduler needs dask: pip install distributed") from None
    try:
        return Scheduler(address, timeout=5)
    except (OSError, ValueError) as error:
        raise EvalError(f"--scheduler {address}: no dask scheduler answers there: {error}") from None
