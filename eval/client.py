"""One request, one sample: times, answer, or the kind of failure.

Nothing is retried and no redirect is followed, so that one sample is one request on the wire.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import aiohttp

from eval.answers import BadAnswer, read_answer, server_timing, shortened, status_failure
from eval.images import Picture
from eval.samples import Sample
from service import schema

MAX_ANSWER_BYTES = 1024 * 1024  # an answer of the contract has about 1 kB
KEEPALIVE_S = 55.0  # below the 60 s after which nginx and many load balancers close an idle connection

Failure = tuple[str, str]  # one of ERROR_KINDS, and the detail


@dataclass(frozen=True)
class Ask:
    """Which request of the run this is."""

    scenario: str
    phase: str
    block: int
    image: int
    picture: Picture


@dataclass
class _Outcome:
    """What has been learned of a request so far."""

    trace: dict[str, bool] = field(default_factory=lambda: {"connected": False})
    status: int | None = None
    headers: Any = field(default_factory=dict)
    body: bytes = b""
    failure: Failure | None = None


class Client:
    """One endpoint, asked over one connection that is kept open."""

    def __init__(
        self, name: str, url: str, classes: Sequence[str], timeout_s: float, origin: float, token: str | None = None
    ):
        """`origin` is the time.perf_counter() of the run's beginning; `token` is sent as a bearer token."""
        self.name = name
        self.classes = classes
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=float("inf"))  # not rounded up to 1 s
        self._origin = origin
        self._token = token

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(_note_connection)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=self._timeout,
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def ask(self, ask: Ask, due: float) -> tuple[Sample, float]:
        """Post one picture. Gives the sample and when the last byte was there, both clocks being perf_counter.

        `due` is when the schedule wanted it sent.
        """
        sent = time.perf_counter()
        outcome = await self._exchange("POST", f"{self._url}{schema.PREDICT}?probabilities=1", ask.picture)
        done = time.perf_counter()
        sample = self._judged(self._timed(ask, due, sent, done), outcome)
        return sample, done

    def unsent(self, ask: Ask, failure: Failure) -> Sample:
        """The sample of a request that was planned but not worth sending any more."""
        now = time.perf_counter()
        return replace(self._timed(ask, now, now, now), error=failure[0], detail=f"not sent: {failure[1]}")

    async def version(self) -> dict[str, Any]:
        """The answer of /version; empty when the endpoint answers something else. Raises Unreachable."""
        outcome = await self._exchange("GET", self._url + schema.VERSION)
        if outcome.failure and outcome.status is None:
            raise Unreachable(f"{outcome.failure[0]}: {self._cleaned(outcome.failure[1])}")
        try:
            answer = json.loads(outcome.body)
        except ValueError:
            return {}
        return answer if outcome.status == 200 and isinstance(answer, dict) else {}

    async def ready(self) -> bool:
        """Whether /readyz says yes."""
        return (await self._exchange("GET", self._url + schema.READYZ)).status == 200

    async def _exchange(self, method: str, url: str, picture: Picture | None = None) -> _Outcome:
        outcome = _Outcome()
        post = {"data": picture.data, "headers": {"Content-Type": picture.media_type}} if picture else {}
        try:
            async with self._session.request(
                method, url, allow_redirects=False, trace_request_ctx=outcome.trace, **post
            ) as response:
                outcome.status, outcome.headers = response.status, response.headers
                outcome.body = await _bounded_body(response)
        except BadAnswer as error:
            outcome.failure = ("bad_answer", str(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome.failure = _transport_failure(error, self._timeout.total)
        return outcome

    def _timed(self, ask: Ask, due: float, sent: float, done: float) -> Sample:
        service_ms, lateness_ms = round((done - sent) * 1000, 3), round((sent - due) * 1000, 3)
        return Sample(
            target=self.name,
            scenario=ask.scenario,
            phase=ask.phase,
            block=ask.block,
            image=ask.image,
            started_s=round(due - self._origin, 6),
            latency_ms=round(service_ms + lateness_ms, 3),
            service_ms=service_ms,
            lateness_ms=lateness_ms,
            new_connection=False,
        )

    def _judged(self, sample: Sample, outcome: _Outcome) -> Sample:
        """The sample with what the answer says."""
        label, probabilities, failure = None, None, outcome.failure
        if outcome.status is not None:
            failure = status_failure(outcome.status, outcome.headers, outcome.body) or failure
        if failure is None:
            try:
                label, probabilities = read_answer(outcome.body, self.classes)
            except BadAnswer as error:
                failure = ("bad_answer", str(error))
        headers = outcome.headers
        return replace(
            sample,
            new_connection=outcome.trace["connected"],
            status=outcome.status,
            error=failure[0] if failure else None,
            detail=self._cleaned(failure[1]) if failure else None,
            label=label,
            probabilities=probabilities,
            server_ms=server_timing(headers.get(schema.SERVER_TIMING, "")),
            answer_bytes=len(outcome.body),
            instance_id=headers.get(schema.INSTANCE_ID),
            ordinal=_whole_number(headers.get(schema.REQUEST_ORDINAL)),
            model_version=headers.get(schema.MODEL_VERSION),
        )

    def _cleaned(self, detail: str) -> str:
        """One short line, without the token should a server have sent it back."""
        return shortened(detail.replace(self._token, "***") if self._token else detail)


class Unreachable(Exception):
    """Nothing answers there; the message begins with the kind of failure."""


async def _note_connection(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx["connected"] = True


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise BadAnswer(f"a body of more than {MAX_ANSWER_BYTES // 2**20} MiB")
    return bytes(body)


def _transport_failure(error: Exception, timeout_s: float | None) -> Failure:
    """Order matters: aiohttp's errors inherit from one another and from OSError."""
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        return "timeout", f"no whole answer within {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns", text
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return "tls", text
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect", text
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL)):
        return "bad_answer", f"not HTTP: {text}"
    return "disconnected", text


def _whole_number(text: str | None) -> int | None:
    with contextlib.suppress(ValueError, TypeError):
        return int(text)  # type: ignore[arg-type]
    return None
