"""Open-loop sending: every request leaves at its own time, whatever has become of those before it.

One process sends a thousand a second; above that the stream is dealt out to workers, processes here or, through a
dask scheduler, on other machines. A shard is a pure function of plan and seed: every nth request of the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from eval.errors import EvalError
from eval.load.client import Ask, Client
from eval.samples.model import Sample

LEAD_S = 0.05  # from the decision to send a stream to its first request
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
    except* EvalError as errors:
        raise errors.exceptions[0] from None


async def _ask(client: Client, ask: Ask, due: float, keep: Keep) -> None:
    sample, _ = await client.ask(ask, due)
    keep(sample)


async def _until(due: float) -> None:
    """Sleep; when the time is over already, still let the answers of the others in."""
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
