"""Open-loop sending: every request leaves at its own time, whatever has become of those before it.

One process sends a thousand a second; above that the stream is dealt out to workers, processes here or, through a
dask scheduler, on other machines. A shard is a pure function of plan and seed: every nth request of the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import dataclass

from eval.load.client import Ask, Client
from eval.samples.model import RunError, Sample

LEAD_S = 0.05  # from the decision to send a stream to its first request
SHARD_LEAD_S = 1.0  # the same where the requests travel to workers first
CROWDED = "{} requests were under way already (--in-flight)"

Keep = Callable[[Sample], None]


async def send_stream(
    client: Client, asks: Sequence[Ask], offsets_s: Sequence[float], start: float, in_flight: int, keep: Keep
) -> None:
    """Send each request at `start` (of time.perf_counter) plus its offset, and keep each sample as it finishes.

    With `in_flight` under way already the next one is not sent, and counted as such: waiting for a free place would
    let the target set the rate. Returns when all are answered or failed. An error of `keep` ends the stream.
    """
    under_way: set[asyncio.Task[None]] = set()
    try:
        async with asyncio.TaskGroup() as group:
            for ask, offset_s in zip(asks, offsets_s, strict=True):
                due = start + offset_s
                await _until(due)
                if len(under_way) >= in_flight:
                    keep(client.not_sent(ask, due, CROWDED.format(in_flight)))
                    continue
                task = group.create_task(_ask(client, ask, due, keep))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
    except* RunError as errors:
        raise errors.exceptions[0] from None


async def _ask(client: Client, ask: Ask, due: float, keep: Keep) -> None:
    sample, _ = await client.ask(ask, due)
    keep(sample)


async def _until(due: float) -> None:
    """Sleep; when the time is over already, still let the answers of the others in."""
    await asyncio.sleep(max(0.0, due - time.perf_counter()))


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
        raise RunError(f"a worker process ended in the middle of a stream: {error}") from None
    for sample in sorted((s for samples in found for s in samples), key=lambda s: s.started_s + s.latency_ms / 1000):
        keep(sample)


@contextlib.contextmanager
def open_workers(workers: int, scheduler: str | None) -> Iterator[Executor | None]:
    """What the shards are sent by: nothing for one, processes, or the workers of a dask scheduler. Raises RunError."""
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
        raise RunError("--scheduler needs dask: pip install distributed") from None
    try:
        return Scheduler(address, timeout=5)
    except (OSError, ValueError) as error:
        raise RunError(f"--scheduler {address}: no dask scheduler answers there: {error}") from None
