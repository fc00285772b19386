"""Open loop: each request is sent at its scheduled time, whether or not earlier ones have finished.

One process sends about a thousand requests per second; above that eval/load/distributed.py splits them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from eval.errors import EvalError
from eval.load.client import Client, RequestSpec
from eval.samples.model import Sample

START_DELAY_S = 0.05  # from the decision to the first request
DROPPED = "{} requests were in flight already (--in-flight)"

SampleSink = Callable[[Sample], None]


async def run_open_loop(
    client: Client,
    requests: Sequence[RequestSpec],
    offsets_s: Sequence[float],
    start: float,
    max_in_flight: int,
    record: SampleSink,
) -> None:
    """Send each request at `start` (of time.perf_counter()) plus its offset, and record each sample as it finishes.

    With `max_in_flight` requests in flight the next one is dropped and counted as such: waiting would let the target
    set the rate. Returns when all have succeeded or failed. An error of `record` ends the open loop.
    """
    in_flight: set[asyncio.Task[None]] = set()
    try:
        async with asyncio.TaskGroup() as task_group:
            for request, offset_s in zip(requests, offsets_s, strict=True):
                scheduled_at = start + offset_s
                await _sleep_until(scheduled_at)
                if len(in_flight) >= max_in_flight:
                    record(client.dropped(request, scheduled_at, DROPPED.format(max_in_flight)))
                    continue
                task = task_group.create_task(_send_one(client, request, scheduled_at, record))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)
    except* EvalError as errors:
        raise errors.exceptions[0] from None


async def _send_one(client: Client, request: RequestSpec, scheduled_at: float, record: SampleSink) -> None:
    sample, _ = await client.send(request, scheduled_at)
    record(sample)


async def _sleep_until(scheduled_at: float) -> None:
    """Sleep, or at least yield to the event loop, so that responses are processed."""
    await asyncio.sleep(max(0.0, scheduled_at - time.perf_counter()))
