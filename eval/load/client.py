"""One request, one sample: times, answer, or the kind of failure.

Nothing is retried and no redirect is followed, so that one sample is one request on the wire.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from eval.dataset.images import Picture
from eval.errors import InvalidResponse, Unreachable
from eval.load.connection_timing import Opening, connector, tracing
from eval.load.responses import read_answer, refuse_encoding, server_timing, shortened, status_failure
from eval.load.transport_errors import transport_failure
from eval.samples.model import Sample
from eval.targets.endpoints import KEEPALIVE_S
from service import schema

MAX_ANSWER_BYTES = 1024 * 1024  # an answer of the contract has about 1 kB

Failure = tuple[str, str]  # one of ERROR_KINDS, and the detail


@dataclass(frozen=True)
class Ask:
    """Which request of the run this is."""

    scenario: str
    phase: str
    block: int
    image: int
    picture: Picture | None  # None: a no-op, which asks whether the service is ready
    place: int = 0
    rate_rps: float | None = None
    gap_s: float | None = None


@dataclass
class _Outcome:
    """What has been learned of a request so far."""

    opening: Opening = field(default_factory=Opening)
    first_byte: float | None = None  # when the answer's head was there
    status: int | None = None
    headers: Any = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)  # as much of it as came
    failure: Failure | None = None


class Client:
    """One endpoint, asked over connections that are kept open, or with `fresh` over a new one every time."""

    def __init__(
        self,
        name: str,
        url: str,
        classes: Sequence[str],
        timeout_s: float,
        origin: float,
        token: str | None = None,
        *,
        connections: int = 1,
        fresh: bool = False,
        keepalive_s: float = KEEPALIVE_S,
    ):
        """`origin` is the time.perf_counter() of the run's beginning; `token` is sent as a bearer token."""
        self.name = name
        self.classes = classes
        self._url = url
        self._predict = URL(f"{url}{schema.PREDICT}?probabilities=1")
        self._readyz = URL(url + schema.READYZ)
        self._connections = connections
        self._fresh = fresh
        self._keepalive_s = keepalive_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=float("inf"))  # not rounded up to 1 s
        self._origin = origin
        self._token = token

    async def __aenter__(self) -> Self:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self._session = aiohttp.ClientSession(
            connector=connector(self._connections, fresh=self._fresh, keepalive_s=self._keepalive_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=self._timeout,
            trace_configs=[tracing()],
            auto_decompress=False,
        )
        self._session._retry_connection = False  # a GET on a connection just closed would be sent twice
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def ask(self, ask: Ask, due: float) -> tuple[Sample, float]:
        """Post one picture. Gives the sample and when the last byte was there, both clocks being perf_counter.

        `due` is when the schedule wanted it sent.
        """
        sent = time.perf_counter()
        if ask.picture is None:
            outcome = await self._exchange("GET", self._readyz)
        else:
            outcome = await self._exchange("POST", self._predict, ask.picture)
        done = time.perf_counter()
        return self._sample(ask, due, sent, done, outcome), done

    def not_sent(self, ask: Ask, due: float, why: str) -> Sample:
        """The sample of a request that was planned and never sent."""
        now = time.perf_counter()
        return self._sample(ask, due, now, now, _Outcome(failure=("not_sent", why)))

    async def version(self) -> dict[str, Any]:
        """The answer of /version; empty when the endpoint answers something else. Raises Unreachable."""
        outcome = await self._exchange("GET", URL(self._url + schema.VERSION))
        if outcome.failure and outcome.status is None:
            raise Unreachable(f"{outcome.failure[0]}: {self._cleaned(outcome.failure[1])}")
        try:
            answer = json.loads(outcome.body)
        except ValueError:
            return {}
        return answer if outcome.status == 200 and isinstance(answer, dict) else {}

    async def ready(self) -> bool:
        """Whether /readyz says yes."""
        return (await self._exchange("GET", self._readyz)).status == 200

    async def _exchange(self, method: str, url: URL, picture: Picture | None = None) -> _Outcome:
        outcome = _Outcome()
        post = {"data": picture.data, "headers": {"Content-Type": picture.media_type}} if picture else {}
        try:
            async with self._session.request(
                method, url, allow_redirects=False, trace_request_ctx=outcome.opening, **post
            ) as response:
                outcome.first_byte = time.perf_counter()
                outcome.status, outcome.headers = response.status, response.headers
                await _read_body(response, outcome.body)
        except InvalidResponse as error:
            outcome.failure = ("bad_answer", str(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind, detail = transport_failure(error, outcome.opening, self._timeout.total)
            came = f", {len(outcome.body)} bytes of it came" if outcome.status and kind == "timeout" else ""
            outcome.failure = (kind, detail + came)
        return outcome

    def _sample(self, ask: Ask, due: float, sent: float, done: float, outcome: _Outcome) -> Sample:
        """What was measured, and what the answer says."""
        label, probabilities, failure = self._judged(ask, outcome)
        service_ms, lateness_ms = round((done - sent) * 1000, 3), round((sent - due) * 1000, 3)
        headers, first_byte = outcome.headers, outcome.first_byte
        return Sample(
            target=self.name,
            scenario=ask.scenario,
            phase=ask.phase,
            block=ask.block,
            place=ask.place,
            image=ask.image,
            started_s=round(due - self._origin, 6),
            latency_ms=round(service_ms + lateness_ms, 3),
            service_ms=service_ms,
            lateness_ms=lateness_ms,
            first_byte_ms=None if first_byte is None else round((first_byte - sent) * 1000, 3),
            network_ms=outcome.opening.network_ms(),
            new_connection=outcome.opening.began is not None,
            rate_rps=ask.rate_rps,
            gap_s=ask.gap_s,
            status=outcome.status,
            error=failure[0] if failure else None,
            detail=self._cleaned(failure[1]) if failure else None,
            label=label,
            probabilities=probabilities,
            server_ms=server_timing(headers.get(schema.SERVER_TIMING, "")),
            answer_bytes=len(outcome.body),
            instance_id=self._said(headers.get(schema.INSTANCE_ID)),
            ordinal=_whole_number(headers.get(schema.REQUEST_ORDINAL)),
            model_version=self._said(headers.get(schema.MODEL_VERSION)),
        )

    def _judged(self, ask: Ask, outcome: _Outcome) -> tuple[int | None, tuple[float, ...] | None, Failure | None]:
        """Label, probabilities and failure."""
        failure = outcome.failure
        if outcome.status is not None:
            failure = status_failure(outcome.status, outcome.headers, outcome.body) or failure
        if failure or ask.picture is None:
            return None, None, failure
        try:
            refuse_encoding(outcome.headers)
            return *read_answer(outcome.body, self.classes), None
        except InvalidResponse as error:
            return None, None, ("bad_answer", str(error))

    def _cleaned(self, detail: str) -> str:
        """One short line, without the token should a server have sent it back."""
        return shortened(detail.replace(self._token, "***") if self._token else detail)

    def _said(self, header: str | None) -> str | None:
        return header and self._cleaned(header)


async def _read_body(response: aiohttp.ClientResponse, body: bytearray) -> None:
    """Append what comes to `body`, and leave when it is more than an answer can have. Raises InvalidResponse."""
    if (announced := response.content_length or 0) > MAX_ANSWER_BYTES:
        response.close()
        raise InvalidResponse(f"a body of {announced} bytes, more than {MAX_ANSWER_BYTES // 2**20} MiB")
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            del body[MAX_ANSWER_BYTES:]
            response.close()
            raise InvalidResponse(f"a body of more than {MAX_ANSWER_BYTES // 2**20} MiB")


def _whole_number(text: str | None) -> int | None:
    with contextlib.suppress(ValueError, TypeError):
        return int(text)  # type: ignore[arg-type]  # None is a TypeError
    return None
