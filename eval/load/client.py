"""Sends one request and makes its sample: times, response, or the kind of failure.

It retries nothing and follows no redirect, so that one sample is one request on the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from eval.adapters.adapter import Adapter, RequestForm
from eval.dataset.image_set import EncodedImage
from eval.errors import EndpointError, InvalidResponse, Unreachable
from eval.load import invocations
from eval.load.connection_timing import ConnectionTimings, create_connector, create_trace_config
from eval.load.responses import (
    check_encoding,
    classify_status,
    parse_count,
    parse_prediction,
    parse_server_timing,
    parse_version,
    to_short_line,
)
from eval.load.transport_errors import classify_transport_error
from eval.samples.model import Sample
from eval.targets.access import KEEPALIVE_S, Access, proxy_of
from eval.targets.sagemaker.signer import Signer
from eval.targets.tokens import Scrubber, Token
from eval.validation import parse_json
from service import schema

MAX_RESPONSE_BYTES = 1024 * 1024  # a valid response has about 1 kB
ACCESS_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

Failure = tuple[str, str]  # one of ERROR_KINDS, and the detail


@dataclass(frozen=True)
class RequestSpec:
    """One request of the schedule."""

    scenario: str
    phase: str
    block_number: int
    image_index: int
    image: EncodedImage | None  # None: a no-op, GET /readyz
    index_in_block: int = 0
    rate_rps: float | None = None
    gap_s: float | None = None


@dataclass
class Exchange:
    """What has been observed of a request so far."""

    connection: ConnectionTimings = field(default_factory=ConnectionTimings)
    first_byte_at: float | None = None  # when the response headers arrived
    status: int | None = None
    headers: Any = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)  # as much of it as arrived
    failure: Failure | None = None


@dataclass(frozen=True)
class PreparedRequest:
    """A POST with all that it needs."""

    url: URL
    headers: Mapping[str, str]
    body: bytes
    failure: Failure | None = None  # why it can't be sent


@dataclass(frozen=True)
class FinishedRequest:
    """A request that was sent, and what came of it. All times are of time.perf_counter()."""

    request: RequestSpec
    scheduled_at: float | None  # of an open loop
    sent_at: float
    finished_at: float
    exchange: Exchange


class Client:
    """Sends requests to one endpoint, over keep-alive connections or a new one for each request."""

    def __init__(
        self,
        name: str,
        url: str,
        classes: Sequence[str],
        timeout_s: float,
        run_start: float,
        token: Token | None = None,
        *,
        scrub: Scrubber | None = None,
        max_connections: int = 1,
        no_connection_reuse: bool = False,
        keepalive_s: float = KEEPALIVE_S,
        adapter: Adapter | None = None,
        access: Access | None = None,
        signer: Signer | None = None,
    ):
        """run_start: the time.perf_counter() of the start of the run, which may be set anew between two requests.

        scrub: masks the tokens of all its targets. url may end with the path of predictions. adapter: of an endpoint
        with another wire format than the service's.
        signer: of an endpoint of SageMaker, whose url is that of its invocations.
        """
        self.name = name
        self.classes = classes
        self.url = url
        self.adapter = adapter
        self._base_url = url.rstrip("/").removesuffix(schema.PREDICT)
        self._access = access or Access()
        self._predict_url = URL(f"{self._base_url}{schema.PREDICT}?probabilities=1").update_query(self._access.query)
        self._readyz_url = URL(self._base_url + schema.READYZ)
        self.signer = signer
        if signer:
            self._predict_url = URL(url)
            self._readyz_url = self._predict_url.with_path(schema.PING)  # a round trip that invokes nothing
        self._proxy = self._access.proxy or proxy_of(url)
        self._max_connections = max_connections
        self._no_connection_reuse = no_connection_reuse
        self._keepalive_s = keepalive_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=float("inf"))  # not rounded up to 1 s
        self.run_start = run_start
        self._own_headers = {**(token.headers() if token else {}), **self._access.headers}
        self._scrub = scrub or Scrubber([*([token] if token else []), *self._access.secrets])

    async def __aenter__(self) -> Self:
        parse_json("{}")  # imports pydantic now, and not while a request is due
        if self.signer:
            with contextlib.suppress(EndpointError):
                self.signer.sign(self.url, {}, b"")  # the same with botocore
        self._session = aiohttp.ClientSession(
            connector=create_connector(
                self._max_connections,
                no_connection_reuse=self._no_connection_reuse,
                keepalive_s=self._keepalive_s,
                access=self._access,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=self._timeout,
            trace_configs=[create_trace_config()],
            auto_decompress=False,
        )
        self._session._retry_connection = False  # a GET on a connection just closed would be sent twice
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def send(self, request: RequestSpec, scheduled_at: float | None = None) -> tuple[Sample, float]:
        """Send one request. Returns its sample and when it finished. All times are of time.perf_counter().

        scheduled_at: of an open loop, the scheduled send time, from which latency counts (no coordinated omission). In
        a closed loop it counts from the send.
        """
        finished = await self.send_request(request, scheduled_at)
        return self.to_sample(finished), finished.finished_at

    def prepare(self, request: RequestSpec) -> PreparedRequest | None:
        """What takes so long that it is better done before the request is due: its signature. None without one."""
        return self._to_post(request.image) if self.signer and request.image is not None else None

    async def send_request(
        self, request: RequestSpec, scheduled_at: float | None = None, prepared: PreparedRequest | None = None
    ) -> FinishedRequest:
        """Send one request as `send` does. Its sample can be made later: that takes longer than the sending.

        prepared: by `prepare`, within five minutes, for which a signature is valid.
        """
        if prepared is None and request.image is not None:
            prepared = self._to_post(request.image)
        sent_at = time.perf_counter()
        if prepared is None:
            exchange = await self._send_http("GET", self._readyz_url)
        else:
            exchange = await self._post(prepared)
        return FinishedRequest(request, scheduled_at, sent_at, time.perf_counter(), exchange)

    async def post(self, form: RequestForm, image: EncodedImage) -> Exchange:
        """Send an image in that form, and return what came, without tokens."""
        return self._scrubbed(await self._post(self._signed(*self._encoded(form, image))))

    def use_credentials(self, signer: Signer | None, scrub: Scrubber) -> None:
        """Sign as this signer does now: one in a worker process cannot renew itself."""
        self.signer, self._scrub = signer, scrub

    async def renew_credentials(self) -> None:
        """Let a signer ask for new credentials now, and not while requests are due. It says itself when it can't."""
        if self.signer and self.signer.is_due:
            with contextlib.suppress(EndpointError):
                await asyncio.to_thread(self.signer.renew)

    async def _post(self, prepared: PreparedRequest) -> Exchange:
        if prepared.failure:
            return Exchange(failure=prepared.failure)
        return await self._send_http("POST", prepared.url, prepared.headers, prepared.body)

    def _to_post(self, image: EncodedImage) -> PreparedRequest:
        if self.adapter:
            return self._signed(*self._encoded(self.adapter.request, image))
        headers = {"Content-Type": image.media_type, **self._own_headers}
        if self.signer:
            return self._signed(
                self._predict_url, invocations.ASK_PROBABILITIES | headers, image.data, image.entry.sha256
            )
        return PreparedRequest(self._predict_url, headers, image.data)

    def _signed(self, url: URL, headers: Mapping[str, str], body: bytes, sha256: str | None = None) -> PreparedRequest:
        """The request, signed where the endpoint wants that."""
        if self.signer is None:
            return PreparedRequest(url, headers, body)
        if len(body) > self.signer.max_body_bytes:
            text = f"the request has {len(body):,} bytes, and the endpoint takes {self.signer.max_body_bytes:,}"
            return PreparedRequest(url, {}, b"", ("dropped", text))
        try:
            return PreparedRequest(url, self.signer.sign(str(url), headers, body, sha256), body)
        except EndpointError as error:
            return PreparedRequest(url, {}, b"", ("dropped", str(error)))

    def _encoded(self, form: RequestForm, image: EncodedImage) -> tuple[URL, Mapping[str, str], bytes]:
        """Address, headers and body of a request. Of bytes alone, a content type may be set by name."""
        body, content_type = form.encode(image)
        query = {**form.query, **self._access.query}
        url = URL((self.url.rstrip("/") if form.path else self.url) + form.path)
        headers = CIMultiDict({"Content-Type": content_type})
        headers.update(self._own_headers)
        headers.update(form.headers)
        if form.body != "raw":
            headers["Content-Type"] = content_type
        return url.update_query(query) if query else url, headers, body

    def dropped(self, request: RequestSpec, reason: str, scheduled_at: float | None = None) -> Sample:
        """The sample of a request that is not sent."""
        now = time.perf_counter()
        exchange = Exchange(failure=("dropped", reason))
        return self.to_sample(FinishedRequest(request, scheduled_at, now, now, exchange))

    async def fetch_version(self, image: EncodedImage = invocations.PROBE) -> dict[str, Any]:
        """The response of /version, as far as it is understood; empty if that is not 200, or is no JSON.

        Token, headers and query are sent only to an endpoint that has refused to tell without. Raises Unreachable.
        image: invoked with it, an endpoint of SageMaker tells a part of that; for it has no /version.
        """
        if self.signer:
            return await self._version_by_invocation(image)
        url = URL(self._base_url + schema.VERSION)
        exchange = await self._send_http("GET", url)
        if exchange.status in ACCESS_REFUSED and (self._own_headers or self._access.query):
            exchange = await self._send_http("GET", url.update_query(self._access.query), self._own_headers)
        if exchange.failure and exchange.status is None:
            raise Unreachable(f"{exchange.failure[0]}: {self._redacted(exchange.failure[1])}")
        if exchange.status != 200 or exchange.failure:
            return {}
        return parse_version(self._scrubbed(exchange).body)

    async def _version_by_invocation(self, image: EncodedImage) -> dict[str, Any]:
        exchange = self._scrubbed(await self._post(self._to_post(image)))
        failure = self.failure_of_status(exchange) or exchange.failure
        if failure and (exchange.status is None or invocations.is_refused_by_aws(exchange.status, exchange.headers)):
            raise Unreachable(f"{failure[0]}: {self._redacted(failure[1])}")
        return {} if failure else invocations.version_of(exchange.headers, exchange.body)

    def failure_of_status(self, exchange: Exchange) -> Failure | None:
        """Kind and detail of a response that is not 200; None for 200, and without a response."""
        if exchange.status is None:
            return None
        response = exchange.status, exchange.headers, exchange.body
        return (self.signer and invocations.classify_invocation(*response)) or classify_status(*response)

    async def is_ready(self) -> bool:
        """Whether /readyz succeeds; of an endpoint with another wire format, whether anything is answered; of one of
        SageMaker, whether that is no error of a server."""
        status = (await self._send_http("GET", self._readyz_url)).status
        if self.signer:
            return status is not None and status < 500
        return status == 200 or (self.adapter is not None and status is not None)

    async def _send_http(
        self, method: str, url: URL, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Exchange:
        exchange = Exchange()
        try:
            async with self._session.request(
                method,
                url,
                allow_redirects=False,
                trace_request_ctx=exchange.connection,
                headers=headers,
                data=body,
                proxy=self._proxy,
            ) as response:
                exchange.first_byte_at = time.perf_counter()
                exchange.status, exchange.headers = response.status, response.headers
                await _read_body(response, exchange.body)
        except InvalidResponse as error:
            exchange.failure = ("invalid_response", str(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind, detail = classify_transport_error(error, exchange.connection, self._timeout.total)
            partial_body = (
                f", {len(exchange.body)} bytes of it arrived" if exchange.status and kind == "timeout" else ""
            )
            exchange.failure = (kind, detail + partial_body)
        return exchange

    def to_sample(self, finished: FinishedRequest) -> Sample:
        """The measurements and the response as a sample."""
        request, scheduled_at, sent_at = finished.request, finished.scheduled_at, finished.sent_at
        response_bytes, exchange = len(finished.exchange.body), self._scrubbed(finished.exchange)
        label, probabilities, failure = self._classify(request, exchange)
        service_time_ms = round((finished.finished_at - sent_at) * 1000, 3)
        send_delay_ms = None if scheduled_at is None else round((sent_at - scheduled_at) * 1000, 3)
        headers = invocations.with_attributes(exchange.headers) if self.signer else exchange.headers
        first_byte_at = exchange.first_byte_at
        return Sample(
            target=self.name,
            scenario=request.scenario,
            phase=request.phase,
            block=request.block_number,
            index_in_block=request.index_in_block,
            image_index=request.image_index,
            scheduled_s=round((sent_at if scheduled_at is None else scheduled_at) - self.run_start, 6),
            latency_ms=round(service_time_ms + (send_delay_ms or 0.0), 3),
            service_time_ms=service_time_ms,
            send_delay_ms=send_delay_ms,
            time_to_first_byte_ms=None if first_byte_at is None else round((first_byte_at - sent_at) * 1000, 3),
            connection_ms=exchange.connection.phases_ms(),
            new_connection=exchange.connection.start is not None,
            rate_rps=request.rate_rps,
            idle_gap_s=request.gap_s,
            status=exchange.status,
            error=failure[0] if failure else None,
            detail=self._redacted(failure[1]) if failure else None,
            predicted_class=label,
            probabilities=probabilities,
            server_timing_ms=parse_server_timing(headers.get(schema.SERVER_TIMING, "")),
            response_bytes=response_bytes,
            instance_id=_header_text(headers.get(schema.INSTANCE_ID)),
            instance_request_number=parse_count(headers.get(schema.REQUEST_ORDINAL)),
            model_version=_header_text(headers.get(schema.MODEL_VERSION)),
        )

    def _classify(
        self, request: RequestSpec, exchange: Exchange
    ) -> tuple[int | None, tuple[float, ...] | None, Failure | None]:
        """Predicted class, probabilities and failure."""
        failure = exchange.failure
        if request.image is None and (self.adapter or self.signer) and exchange.status is not None:
            return None, None, None  # a round trip, whatever the status
        failure = self.failure_of_status(exchange) or failure
        if failure or request.image is None:
            return None, None, failure
        try:
            check_encoding(exchange.headers)
            if self.adapter:
                answer = self.adapter.answer.read(exchange.body, self.classes)
                return answer.class_id, answer.probabilities, None
            return *parse_prediction(exchange.body, self.classes), None
        except InvalidResponse as error:
            return None, None, ("invalid_response", str(error))

    def _scrubbed(self, exchange: Exchange) -> Exchange:
        """The exchange without tokens: before anything of it is shortened, which could leave a part of one."""
        if not self._scrub:
            return exchange
        headers = CIMultiDict((name, self._scrub(value)) for name, value in exchange.headers.items())
        body = bytearray(self._scrub(exchange.body.decode(errors="surrogateescape")), "utf-8", "surrogateescape")
        return replace(exchange, headers=headers, body=body)

    def _redacted(self, detail: str) -> str:
        """One short line without tokens."""
        return to_short_line(self._scrub(detail))


def _header_text(header: str | None) -> str | None:
    return header and to_short_line(header)


async def _read_body(response: aiohttp.ClientResponse, body: bytearray) -> None:
    """Append the response to `body`. Raises InvalidResponse if it is larger than a valid one can be."""
    if (content_length := response.content_length or 0) > MAX_RESPONSE_BYTES:
        response.close()
        raise InvalidResponse(f"a body of {content_length} bytes, more than {MAX_RESPONSE_BYTES // 2**20} MiB")
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            del body[MAX_RESPONSE_BYTES:]
            response.close()
            raise InvalidResponse(f"a body of more than {MAX_RESPONSE_BYTES // 2**20} MiB")
