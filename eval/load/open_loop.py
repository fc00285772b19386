"""Open loop: each request is sent at its scheduled time, whether or not earlier ones have finished.

One process sends about a thousand requests per second; above that eval/load/workers/ splits them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf

from eval.errors import EvalError
from eval.load.client import Client, FinishedRequest, RequestSpec
from eval.samples.model import Sample

START_DELAY_S = 0.05  # from the decision to the first request
TASK_LEAD_S = 0.005  # a request's task starts so long before its scheduled time
WAKE_EARLY_S = 0.0012  # and ends its sleep so long before it: a sleeping process wakes up to a millisecond late
RECORD_S = 0.002  # a pause has to be so long for a sample to be made in it: that takes 0.2 to 0.6 ms
MAX_UNRECORDED = 64  # at rates without pauses
MISSED_AFTER_S = 0.1  # by which a request has to be late before it is looked whether this process stood still
DROPPED = "{} requests were in flight already (--in-flight)"

SampleSink = Callable[[Sample], None]


async def run_open_loop(
    client: Client,
    requests: Sequence[RequestSpec],
    offsets_s: Sequence[float],
    start: float,
    max_in_flight: int,
    record: SampleSink,
    missed: Callable[[float], bool] = lambda scheduled_at: False,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Send each request at `start` (of time.perf_counter()) plus its offset, and record each sample after it finishes.

    Making and recording a sample takes longer than sending a request, so it is done in pauses: with nothing in flight,
    whose answer it would delay, and no request due.
    With `max_in_flight` requests in flight the next one is dropped and counted as such: waiting would let the target
    set the rate. Returns when all have succeeded or failed. An error of `record` ends the open loop.
    `missed`: whether a scheduled time fell into a pause of this process. Such a request is neither sent nor recorded:
    all of them at once would be a burst. `stopped`: whether no more requests are to be sent.
    """
    in_flight = 0
    next_due = start
    unrecorded: deque[FinishedRequest] = deque()

    def is_pause() -> bool:
        return in_flight == 0 and next_due - time.perf_counter() > RECORD_S

    async def send_one(request: RequestSpec, scheduled_at: float, next_scheduled_at: float) -> None:
        nonlocal in_flight, next_due
        prepared = client.prepare(request)
        await sleep_until(scheduled_at)
        if stopped():
            return
        next_due = next_scheduled_at
        if time.perf_counter() - scheduled_at > MISSED_AFTER_S and missed(scheduled_at):
            return
        if in_flight >= max_in_flight:
            record(client.dropped(request, DROPPED.format(max_in_flight), scheduled_at))
            return
        in_flight += 1
        unrecorded.append(await client.send_request(request, scheduled_at, prepared))
        in_flight -= 1
        while unrecorded and (is_pause() or len(unrecorded) > MAX_UNRECORDED):
            record(client.to_sample(unrecorded.popleft()))

    try:
        try:
            async with asyncio.TaskGroup() as task_group:
                for request, (offset_s, next_offset_s) in zip(requests, pairwise([*offsets_s, inf]), strict=True):
                    await asyncio.sleep(max(0.0, start + offset_s - TASK_LEAD_S - time.perf_counter()))
                    if stopped():
                        break
                    task_group.create_task(send_one(request, start + offset_s, start + next_offset_s))
        finally:
            _record_all(unrecorded, lambda finished: record(client.to_sample(finished)))
    except* EvalError as errors:
        raise errors.exceptions[0] from None


def _record_all(unrecorded: deque[FinishedRequest], record: Callable[[FinishedRequest], None]) -> None:
    """Every one, though recording may raise EvalError at a cost limit; then that is raised."""
    errors = []
    while unrecorded:
        try:
            record(unrecorded.popleft())
        except EvalError as error:
            errors.append(error)
    if errors:
        raise errors[0]


async def sleep_until(scheduled_at: float) -> None:
    """Return at the scheduled time, never before it. From shortly before it this yields to other tasks, and no more."""
    await asyncio.sleep(max(0.0, scheduled_at - WAKE_EARLY_S - time.perf_counter()))
    while time.perf_counter() < scheduled_at:
        await asyncio.sleep(0)
