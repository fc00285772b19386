"""Making an endpoint start anew, and asking it at the first moment at which its platform would let a request through.

A twin has no platform in front, so the harness plays that part: it asks /readyz, as the platforms' startup probes do,
and sends the picture at the first yes. Such a GET is no prediction; X-Request-Ordinal does not count it. Where the
platform starts an instance because of a request, /readyz would be that request: there the picture itself is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from eval.errors import Unreachable
from eval.load.client import Client, RequestSpec
from eval.samples.model import PROCESS_START, TIME_TO_FIRST_PREDICTION, TIME_TO_READY, Sample

if TYPE_CHECKING:
    pass
from eval.errors import RestartFailed
from eval.targets.restart import RestartMethod

READY_POLL_INTERVAL_S = 0.02  # between two questions whether it is ready


async def measure_cold_start(
    restart_method: RestartMethod, client: Client, request: RequestSpec
) -> tuple[Sample, float]:
    """Start it anew and ask it once. Gives what Client.ask gives; a failed start gives a request that was not sent.

    `started_s` and the latency count from the first yes of /readyz, or where that is not asked from the end of the
    command. startup_ms: "ready" (start command to that yes), "create" (start command to the end of a right-shaped
    answer), "process" (start command to the beginning of the process that loads the model, good to 20 ms), and the
    phases that /version tells, if it is the same instance that tells them.
    """
    scheduled_at = time.perf_counter()
    try:
        restart_at = await restart_method.restart()
        if restart_method.ready_timeout_s is not None:
            await _wait_until_ready(restart_method, client, restart_method.ready_timeout_s)
    except RestartFailed as error:
        return client.dropped(request, scheduled_at, str(error)), time.perf_counter()
    ready_at = time.perf_counter()
    restart_unix_s = time.time() - (ready_at - restart_at)
    sample, finished_at = await client.send(request, ready_at)
    startup_ms: dict[str, float] = {}
    if sample.error is None:
        startup_ms[TIME_TO_FIRST_PREDICTION] = _to_ms(finished_at - restart_at)
        if restart_method.ready_timeout_s is not None:
            startup_ms[TIME_TO_READY] = _to_ms(ready_at - restart_at)
        startup_ms |= await startup_phases(client, sample, restart_unix_s if restart_method.shares_clock else None)
    return replace(sample, startup_ms=startup_ms), finished_at


async def startup_phases(client: Client, sample: Sample, restart_unix_s: float | None = None) -> dict[str, float]:
    """The phases of the instance that gave an answer, as /version has them; nothing when another one tells its own.

    began_unix: when the start command was given, by the wall clock of the instance's machine.
    """
    try:
        version = await client.fetch_version()
    except Unreachable:
        return {}
    reported = version.get("startup_ms")
    if not sample.instance_id or version.get("instance_id") != sample.instance_id or not isinstance(reported, dict):
        return {}
    phases_ms = {str(name): float(ms) for name, ms in reported.items() if type(ms) in (int, float)}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if restart_unix_s is not None:
            phases_ms[PROCESS_START] = _to_ms(
                datetime.fromisoformat(version["started_at"]).timestamp() - restart_unix_s
            )
    return phases_ms


async def _wait_until_ready(restart_method: RestartMethod, client: Client, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not await client.is_ready():
                if reason := restart_method.failure_reason():
                    raise RestartFailed(reason)
                await asyncio.sleep(READY_POLL_INTERVAL_S)
    except TimeoutError:
        raise RestartFailed(f"was not ready within {timeout_s:.0f} s of its start") from None


def _to_ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
