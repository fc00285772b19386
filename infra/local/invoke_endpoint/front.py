"""SageMaker's InvokeEndpoint in front of a container on this machine: what it checks, strips, limits and translates.

    POST /endpoints/NAME/invocations  ->  POST http://127.0.0.1:UPSTREAM/invocations

Query and headers go no further, but for Content-Type, Accept and X-Amzn-SageMaker-*; of the answer come back its body,
Content-Type and X-Amzn-SageMaker-Custom-Attributes. Another status than 200 becomes a ModelError.

    GET /ping  ->  GET http://127.0.0.1:UPSTREAM/ping

stands for SageMaker's own health check, whose result it tells: 200 or 503. Nothing of its body and headers comes back.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from infra.local.invoke_endpoint.limits import CONTAINER_TIMEOUT_S, PASSED_HEADERS, PASSED_PREFIX, max_body_bytes
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS, Credentials, Refusal, SignedRequest, check_signature
from service.schema import CUSTOM_ATTRIBUTES, INVOCATIONS, PING

PING_TIMEOUT_S = 2.0  # SageMaker's own
PATH = re.compile(r"/endpoints/([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})/invocations")
ACCOUNT = "000000000000"
VARIANT = "AllTraffic"
UPSTREAM_KEEPALIVE_S = 1.5
SHOWN_CHARS = 2000  # of the container's error, in a ModelError
TIMED_OUT = "Your invocation timed out while waiting for a response from container primary."
UNREACHABLE = "The container did not answer."
NO_STATUS = 0  # OriginalStatusCode of a container that has not answered


@dataclass(frozen=True)
class Front:
    """The endpoint that is invoked, and who may."""

    endpoint: str
    region: str
    upstream_port: int
    serverless: bool = False
    max_concurrency: int | None = None  # of a serverless endpoint: beyond it requests are throttled
    timeout_s: float = CONTAINER_TIMEOUT_S
    credentials: Credentials = field(default=TWIN_CREDENTIALS)

    @property
    def max_body_bytes(self) -> int:
        return max_body_bytes(serverless=self.serverless)


class InvokeEndpoint:
    """The HTTP application."""

    def __init__(self, front: Front):
        self.front = front
        self.in_flight = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=self.front.max_body_bytes)
        app.router.add_route("*", "/{path:.*}", self.answer)
        app.cleanup_ctx.append(self._session_context)
        return app

    async def _session_context(self, _: web.Application):
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=UPSTREAM_KEEPALIVE_S)
        timeout = aiohttp.ClientTimeout(total=self.front.timeout_s)
        skipped = (
            "Accept",
            "Accept-Encoding",
            "User-Agent",
            "Content-Type",
        )  # none is sent that the client has not sent
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=skipped
        ) as self.session:
            yield

    async def answer(self, request: web.Request) -> web.Response:
        """AWS's answer, or the container's."""
        request_id = str(uuid.uuid4())
        if (request.method, request.path) == ("GET", PING):
            return web.Response(status=200 if await self._is_healthy() else 503)
        match = PATH.fullmatch(request.path)
        if match is None or request.method != "POST":
            return _refused(Refusal(404, "UnknownOperationException", ""), request_id)
        too_large = _refused(_too_large(self.front, request_id), request_id)
        if (request.content_length or 0) > self.front.max_body_bytes:
            return too_large
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return too_large
        if refusal := self._refusal(request, match[1], body):
            return _refused(refusal, request_id)
        self.in_flight += 1
        try:
            return await self._forward(request, body, request_id)
        finally:
            self.in_flight -= 1

    async def _is_healthy(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=PING_TIMEOUT_S)
        try:
            async with self.session.get(self._upstream(PING), timeout=timeout) as answer:
                return answer.status == 200
        except (TimeoutError, aiohttp.ClientError):
            return False

    def _upstream(self, path: str) -> str:
        return f"http://127.0.0.1:{self.front.upstream_port}{path}"

    def _refusal(self, request: web.Request, endpoint: str, body: bytes) -> Refusal | None:
        front = self.front
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        signed = SignedRequest(request.method, request.rel_url.raw_path, request.query_string, headers, body)
        if refusal := check_signature(signed, front.credentials, front.region):
            return refusal
        if endpoint != front.endpoint:
            return Refusal(400, "ValidationError", f"Endpoint {endpoint} of account {ACCOUNT} not found.")
        if front.max_concurrency is not None and self.in_flight >= front.max_concurrency:
            return Refusal(400, "ThrottlingException", "Rate exceeded")
        return None

    async def _forward(self, request: web.Request, body: bytes, request_id: str) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if _passes(k.lower())}
        url, data = self._upstream(INVOCATIONS), io.BytesIO(body)
        try:
            async with self.session.post(url, data=data, headers=headers, allow_redirects=False) as answer:
                answered = await answer.read()
        except TimeoutError:
            return self._model_error(NO_STATUS, TIMED_OUT, request_id)
        except aiohttp.ClientError:
            return self._model_error(NO_STATUS, UNREACHABLE, request_id)
        if answer.status != 200:
            return self._model_error(answer.status, answered[:SHOWN_CHARS].decode(errors="replace"), request_id)
        passed = {name: answer.headers[name] for name in ("Content-Type", CUSTOM_ATTRIBUTES) if name in answer.headers}
        ids = {"x-Amzn-Invoked-Production-Variant": VARIANT, "x-amzn-RequestId": request_id}
        return web.Response(body=answered, headers=passed | ids)

    def _model_error(self, status: int, text: str, request_id: str) -> web.Response:
        whose = "client" if 400 <= status < 500 else "server"
        group = f"/aws/sagemaker/Endpoints/{self.front.endpoint}"
        document = {
            "ErrorCode": f"{whose.upper()}_ERROR_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:{self.front.region}:{ACCOUNT}:log-group:{group}",
            "Message": f'Received {whose} error ({status}) from primary with message "{text}". See {group} in account'
            f" {ACCOUNT} for more information.",
            "OriginalMessage": text,
            "OriginalStatusCode": status,
        }
        return _error(424, "ModelError", document, request_id)


def _passes(name: str) -> bool:
    return name in PASSED_HEADERS or name.startswith(PASSED_PREFIX)


def _too_large(front: Front, request_id: str) -> Refusal:
    if front.serverless:
        return Refusal(400, "ValidationError", f"Request {request_id} has oversize body.")
    return Refusal(413, "", f"HTTP content length exceeded {front.max_body_bytes} bytes.")


def _refused(refusal: Refusal, request_id: str) -> web.Response:
    return _error(refusal.status, refusal.kind, {"message": refusal.message}, request_id)


def _error(status: int, kind: str, document: dict[str, object], request_id: str) -> web.Response:
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": request_id}
    if kind:
        headers["x-amzn-ErrorType"] = kind
    return web.Response(status=status, body=json.dumps(document).encode(), headers=headers)
