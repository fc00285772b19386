"""Restarts an endpoint and sends a request as soon as its platform would let one through.

A twin has no platform in front, so the harness polls /readyz, as the platforms' startup probes do, and sends the image
when it succeeds. X-Request-Ordinal does not count such a GET. Where a platform starts an instance because of a request,
/readyz would be that request: there the image itself is sent.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime

from eval.errors import RestartFailed, Unreachable
from eval.load.client import Client, RequestSpec
from eval.samples.model import PROCESS_START, TIME_TO_FIRST_PREDICTION, TIME_TO_READY, Sample
from eval.targets.restart import RestartMethod
from eval.validation import MAX_MS

READY_POLL_INTERVAL_S = 0.02


async def measure_cold_start(restart_method: RestartMethod, client: Client, request: RequestSpec) -> Sample:
    """Restart the endpoint and send one request. A failed restart gives a dropped request.

    It is sent when /readyz succeeds, or, if that is not polled, at the end of the command. Phases in startup_ms, each
    from the start command: TIME_TO_READY, TIME_TO_FIRST_PREDICTION (the end of a valid response) and PROCESS_START (the
    start of the process that loads the model, within 20 ms); and those of /version if it is the same instance.
    """
    try:
        restart_at = await restart_method.restart()
        if restart_method.ready_timeout_s is not None:
            await _wait_until_ready(restart_method, client, restart_method.ready_timeout_s)
    except RestartFailed as error:
        return client.dropped(request, str(error))
    ready_at = time.perf_counter()
    restart_unix_s = time.time() - (ready_at - restart_at)
    sample, finished_at = await client.send(request)
    startup_ms: dict[str, float] = {}
    if sample.error is None:
        startup_ms[TIME_TO_FIRST_PREDICTION] = _to_ms(finished_at - restart_at)
        if restart_method.ready_timeout_s is not None:
            startup_ms[TIME_TO_READY] = _to_ms(ready_at - restart_at)
        startup_ms |= await startup_phases(client, sample, restart_unix_s if restart_method.shares_clock else None)
    return replace(sample, startup_ms=startup_ms)


async def startup_phases(client: Client, sample: Sample, restart_unix_s: float | None = None) -> dict[str, float]:
    """The startup phases of the instance that responded, from /version; empty if another instance responds there, or
    there is no /version, as behind SageMaker.

    restart_unix_s: the time of the start command, by the wall clock of the instance's machine.
    """
    if client.signer:
        return {}
    try:
        version = await client.fetch_version()
    except Unreachable:
        return {}
    phases_ms = version.get("startup_ms")
    if not sample.instance_id or version.get("instance_id") != sample.instance_id or not phases_ms:
        return {}
    if restart_unix_s is not None and (started_at := version.get("started_at")):
        process_ms = _to_ms(datetime.fromisoformat(started_at).timestamp() - restart_unix_s)
        if abs(process_ms) <= MAX_MS:
            return phases_ms | {PROCESS_START: process_ms}
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
