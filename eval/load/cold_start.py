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
from eval.load.client import Ask, Client
from eval.samples.model import CREATE, PROCESS, READY, Sample

if TYPE_CHECKING:
    pass
from eval.errors import RestartFailed
from eval.targets.restart import Forcing

READY_POLL_S = 0.02  # between two questions whether it is ready


async def force(forcing: Forcing, client: Client, ask: Ask) -> tuple[Sample, float]:
    """Start it anew and ask it once. Gives what Client.ask gives; a failed start gives a request that was not sent.

    `started_s` and the latency count from the first yes of /readyz, or where that is not asked from the end of the
    command. startup_ms: "ready" (start command to that yes), "create" (start command to the end of a right-shaped
    answer), "process" (start command to the beginning of the process that loads the model, good to 20 ms), and the
    phases that /version tells, if it is the same instance that tells them.
    """
    planned = time.perf_counter()
    try:
        began = await forcing.restart()
        if forcing.ready_timeout_s is not None:
            await _until_ready(forcing, client, forcing.ready_timeout_s)
    except RestartFailed as error:
        return client.not_sent(ask, planned, str(error)), time.perf_counter()
    ready = time.perf_counter()
    began_unix = time.time() - (ready - began)
    sample, done = await client.ask(ask, ready)
    startup: dict[str, float] = {}
    if sample.error is None:
        startup[CREATE] = _ms(done - began)
        if forcing.ready_timeout_s is not None:
            startup[READY] = _ms(ready - began)
        startup |= await phases_of(client, sample, began_unix if forcing.same_clock else None)
    return replace(sample, startup_ms=startup), done


async def phases_of(client: Client, sample: Sample, began_unix: float | None = None) -> dict[str, float]:
    """The phases of the instance that gave an answer, as /version has them; nothing when another one tells its own.

    began_unix: when the start command was given, by the wall clock of the instance's machine.
    """
    try:
        version = await client.version()
    except Unreachable:
        return {}
    told = version.get("startup_ms")
    if not sample.instance_id or version.get("instance_id") != sample.instance_id or not isinstance(told, dict):
        return {}
    phases = {str(name): float(ms) for name, ms in told.items() if type(ms) in (int, float)}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if began_unix is not None:
            phases[PROCESS] = _ms(datetime.fromisoformat(version["started_at"]).timestamp() - began_unix)
    return phases


async def _until_ready(forcing: Forcing, client: Client, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not await client.ready():
                if why := forcing.ended():
                    raise RestartFailed(why)
                await asyncio.sleep(READY_POLL_S)
    except TimeoutError:
        raise RestartFailed(f"was not ready within {timeout_s:.0f} s of its start") from None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
