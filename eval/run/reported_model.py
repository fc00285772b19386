"""Which model of models/ the targets serve, as their /version reports it: it decides the images and the classes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from eval.errors import ImagesError, Unreachable
from eval.load.client import Client
from eval.targets.endpoints import Endpoint
from eval.targets.tokens import Scrubber
from infra.models import model_names

VERSION_TIMEOUT_S = 30.0  # a service may have to start first


def reported_model(endpoints: Sequence[Endpoint], scrub: Scrubber) -> str | None:
    """The one model that the endpoints report; None if none of them reports a model of models/.

    Raises ImagesError if they report several: the same requests cannot be sent to all.
    """
    names = asyncio.run(_fetch_names(endpoints, scrub))
    reported = {endpoint.name: name for endpoint, name in zip(endpoints, names, strict=True) if name in model_names()}
    if len(set(reported.values())) > 1:
        listed = ", ".join(f"{endpoint} {model}" for endpoint, model in reported.items())
        raise ImagesError(f"the targets serve different models ({listed}): measure each in a run of its own")
    return next(iter(reported.values()), None)


async def _fetch_names(endpoints: Sequence[Endpoint], scrub: Scrubber) -> list[str | None]:
    return await asyncio.gather(*(_fetch_name(endpoint, scrub) for endpoint in endpoints))


async def _fetch_name(endpoint: Endpoint, scrub: Scrubber) -> str | None:
    async with Client(
        endpoint.name,
        endpoint.url,
        (),
        VERSION_TIMEOUT_S,
        time.perf_counter(),
        endpoint.token,
        scrub=scrub,
        access=endpoint.access,
        signer=endpoint.signer,
    ) as client:
        try:
            version = await client.fetch_version()
        except Unreachable:  # the run itself says why
            return None
    return (version.get("model") or {}).get("name")
