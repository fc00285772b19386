"""InvokeEndpoint on this machine, a container behind it that does as it is told, and AWS's own client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from aiohttp import web
from botocore.config import Config

from infra.local.invoke_endpoint.front import Front, InvokeEndpoint
from infra.local.invoke_endpoint.process import ENDPOINT, REGION
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS

AWS_VARIABLES = {
    "AWS_ACCESS_KEY_ID": TWIN_CREDENTIALS.access_key_id,
    "AWS_SECRET_ACCESS_KEY": TWIN_CREDENTIALS.secret_access_key,
}


@dataclass
class Container:
    """A container that answers `answer` at /invocations, and keeps what came."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    port: int = 0
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def invocations(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        return await self.answer(request)

    async def ping(self, _: web.Request) -> web.Response:
        return web.Response(text="healthy")


@contextlib.contextmanager
def running_app(app: web.Application) -> Iterator[str]:
    """The application, served from a thread of its own. Yields its address."""
    loop, runner = asyncio.new_event_loop(), web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    url = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def running_container(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Iterator[Container]:
    container, app = Container(answer), web.Application(client_max_size=32 * 2**20)
    app.router.add_post("/invocations", container.invocations)
    app.router.add_get("/ping", container.ping)
    with running_app(app) as url:
        container.port = urlsplit(url).port or 0
        yield container


@contextlib.contextmanager
def running_front(upstream_port: int, **changes: Any) -> Iterator[str]:
    """InvokeEndpoint in front of a container. Yields its address, that of no endpoint yet."""
    with running_app(InvokeEndpoint(Front(ENDPOINT, REGION, upstream_port, **changes)).app()) as url:
        yield url


def aws_client(url: str, secret: str = TWIN_CREDENTIALS.secret_access_key, **changes: Any) -> Any:
    """AWS's own client, whose type is made at run time."""
    arguments = {
        "region_name": REGION,
        "endpoint_url": url,
        "aws_access_key_id": TWIN_CREDENTIALS.access_key_id,
        "aws_secret_access_key": secret,
        "config": Config(retries={"total_max_attempts": 1}),
    }
    return botocore.session.get_session().create_client("sagemaker-runtime", **(arguments | changes))


def set_aws_variables(monkeypatch: Any, **changes: str) -> None:
    """The environment with the twin's credentials and nothing else of AWS; an empty value is a variable not set."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nothing = {name: os.devnull for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    for name, value in (AWS_VARIABLES | nothing | {"AWS_EC2_METADATA_DISABLED": "true"} | changes).items():
        if value:
            monkeypatch.setenv(name, value)
