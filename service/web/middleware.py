"""WSGI middleware around Flask: identity and timing headers, metrics, and the refusal while the queue is full."""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from service import schema
from service.classifier import Classifier
from service.errors import Problem, QueueFull, ServiceUnavailable, TooLarge, Unauthorised
from service.feedback.recorder import FeedbackRecorder
from service.lifecycle.served_model import CurrentModel, ServedModel
from service.schema import Prediction
from service.settings import Settings
from service.system import process_started_at
from service.web.cors import cors_headers
from service.web.metrics import Metrics

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]

# Keys of a request's environ
TRACE = "classifier.trace"  # its RequestTrace
# Of those, set by service/web/asgi.py
CLIENT_CONNECTION = "classifier.client_connection"  # set once the whole body is in memory that is accounted for
RECEIVED_AT = "classifier.received_at"  # when that was, time.perf_counter()
PROBLEM = "classifier.problem"  # why the body was not read: the answer
DELAY_S = "classifier.delay_s"  # set for it: for how long the answer is held back

MULTIPART = "multipart/form-data"
PAGE = "/"
NO_STORE = "no-store"  # Cache-Control
# What the page needs; of what it does not name, default-src allows nothing.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
ROUTES = {
    *(PAGE, schema.PREDICT, schema.PREDICT_BATCH, schema.HEALTHZ, schema.READYZ),
    *(schema.VERSION, schema.METRICS, schema.OPENAPI, schema.PING, schema.INVOCATIONS, schema.FEEDBACK),
}
OTHER_ROUTE = "other"
SHORT_BODY_BYTES = 64 * 1024  # a body up to this is not counted, and is read before a refusal
UNDECLARED_BYTES = 2**20  # what a body of undeclared length counts as; few are longer
MAX_RESERVED_BYTES = 64 * 1024 * 1024  # long bodies in memory at once, each held up to three times
DRAIN_BYTES = 64 * 1024 * 1024  # of a refused body that are still read, so that its sender receives the response
DRAIN_TIMEOUT_S = 20.0
DETAIL_CHARACTERS = 500  # of a problem; some details quote what the client sent

encode_json = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps would make one per response


@dataclass(slots=True)
class RequestTrace:
    """The figures of a request in progress."""

    started_at: float  # time.perf_counter()
    model: ServedModel  # the one that answers it, whatever is switched meanwhile
    ordinal: int | None = None  # its number among the accepted prediction requests
    timing: str = ""  # the Server-Timing header without its total
    status: str = ""  # of the response, three digits
    seconds: float = 0.0  # from request to response
    inputs: Sequence[np.ndarray] = ()  # images or rows that were answered, until they are counted
    predictions: Sequence[Prediction] = ()  # for them
    files: Sequence[bytes] = ()  # its images as they were sent, where KEEP_IMAGES wants them
    queue_seconds: float = 0.0
    reserved_bytes: int = 0  # of a long body, until the request ends
    route: str = ""  # with names in its path, as its rule; empty: the path itself


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    status: int
    headers: Headers
    body: bytes


class BodyBudget:
    """How much memory long bodies take, all together."""

    def __init__(self) -> None:
        self.taken_bytes = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Raises QueueFull when long bodies use all of it. One alone always finds enough."""
        with self._lock:
            if self.taken_bytes and self.taken_bytes + size > MAX_RESERVED_BYTES:
                used = f"long bodies take {self.taken_bytes / 2**20:.0f} MiB"
                raise QueueFull(f"{used} of {MAX_RESERVED_BYTES // 2**20} MiB; try again in 1 s", 1)
            self.taken_bytes += size

    def give_back(self, size: int) -> None:
        if size:
            with self._lock:
                self.taken_bytes -= size


class ServiceState:
    """What the middleware and the views share: the model, this process's identity, the metrics."""

    def __init__(self, model: ServedModel, settings: Settings, log: logging.Logger):
        self.current = CurrentModel(model)
        self.switches = 0  # of the model, since the start
        self.startup_ms = model.classifier.startup_ms
        self.instance_id = secrets.token_hex(6)
        self.started_at = datetime.fromtimestamp(process_started_at(), UTC).isoformat(timespec="milliseconds")
        self.bodies = BodyBudget()
        self.metrics = Metrics(self.instance_id, lambda: self.classifier.queue_depth(), lambda: self.bodies.taken_bytes)
        self.metrics.serves(model.classifier.info, model.monitor)
        model.classifier.watch(self.metrics.ran)
        self.feedback = FeedbackRecorder(self.instance_id, self.metrics.registry, settings)
        self.accepted = 0
        self._counting = threading.Lock()
        self._log = log

    @property
    def classifier(self) -> Classifier:
        """That of the present model, for what concerns no request that holds a model already."""
        return self.current.model.classifier

    def switched(self, model: ServedModel) -> ServedModel:
        """Serve this model from now on, and count that. Returns the one before."""
        model.classifier.watch(self.metrics.ran)
        before = self.current.swap(model)
        self.metrics.serves(model.classifier.info, model.monitor)
        self.switches += 1
        self.metrics.switched.inc()
        return before

    @contextmanager
    def without_model(self, environ: Environ) -> Iterator[None]:
        """For what replaces the model: the request holds none meanwhile, and the present one afterwards."""
        trace = trace_of(environ)
        self.current.give_back(trace.model)
        try:
            yield
        finally:
            trace.model = self.current.take()

    def accept(self, environ: Environ) -> None:
        """Number a prediction request whose body has come."""
        with self._counting:
            self.accepted += 1
            environ[TRACE].ordinal = self.accepted

    def reserve_body(self, environ: Environ, size: int | None) -> None:
        """Reserve memory for a body that is not read yet, by its declared size. Raises QueueFull."""
        size = UNDECLARED_BYTES if size is None else size
        if CLIENT_CONNECTION not in environ and size > SHORT_BODY_BYTES:
            self.bodies.take(size)
            environ[TRACE].reserved_bytes = size

    def classify(self, environ: Environ, images: Sequence[np.ndarray], started_at: float) -> list[Prediction]:
        """One prediction per image; started_at: when decoding started. Raises QueueFull or ClientDisconnected."""
        decoded, trace = time.perf_counter(), trace_of(environ)
        predictions, timings = trace.model.classifier.classify(images, environ.get(CLIENT_CONNECTION))
        parts = ((decoded - started_at) * 1000, timings.queue_ms, timings.inference_ms)
        trace.timing = "decode;dur={:.3f}, queue;dur={:.3f}, inference;dur={:.3f}, ".format(*parts)
        trace.inputs, trace.predictions, trace.queue_seconds = images, predictions, timings.queue_ms / 1000
        return predictions

    def problem_response(self, problem: Problem) -> tuple[dict[str, Any], Headers]:
        """Count a problem. Returns its document and its headers."""
        self.metrics.error(problem.title)
        return problem_document(problem)

    def failure(self, environ: Environ, error: Exception) -> Problem:
        """The problem for an unexpected exception, which is logged with its traceback."""
        self._log.error("%s %s failed", environ["REQUEST_METHOD"], environ.get("PATH_INFO"), exc_info=error)
        return Problem(f"the service failed; its log says why (instance {self.instance_id})")


class RequestMiddleware:
    """The WSGI application that servers call, in front of the application `flask`."""

    def __init__(
        self,
        flask: Callable[[Environ, StartResponse], Iterable[bytes]],
        state: ServiceState,
        *,
        token: str | None,
        manage_token: str | None = None,
        allowed_origins: tuple[str, ...] = (),
    ):
        self.state = state
        self._flask = flask
        self._token = token  # that predictions need
        self._manage_token = manage_token  # that changes of the model need; without it, these do not exist
        self._allowed_origins = allowed_origins
        self._fixed = [
            (schema.INSTANCE_ID, state.instance_id),
            (schema.INSTANCE_STARTED, state.started_at),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Content-Security-Policy", CONTENT_POLICY),
        ]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        state = self.state
        started_at = environ.get(RECEIVED_AT) or time.perf_counter()
        trace = environ[TRACE] = RequestTrace(started_at, state.current.take())

        def add_headers(status: str, headers: Headers, *more: Any) -> Any:
            trace.status, trace.seconds = status[:3], time.perf_counter() - trace.started_at
            ordinal = state.accepted if trace.ordinal is None else trace.ordinal
            headers.append((schema.SERVER_TIMING, f"{trace.timing}total;dur={trace.seconds * 1000:.3f}"))
            headers.append((schema.REQUEST_ORDINAL, str(ordinal)))
            headers.append(trace.model.header)
            headers.extend(self._fixed)
            headers.extend(cors_headers(environ, self._allowed_origins))
            if environ["PATH_INFO"] == schema.INVOCATIONS:
                headers.append((schema.CUSTOM_ATTRIBUTES, schema.custom_attributes(headers)))
            return start_response(status, headers, *more)

        state.metrics.in_flight.inc()
        try:
            return self._flask(environ, add_headers)
        finally:
            self._count(environ)
            state.current.give_back(trace.model)

    def _count(self, environ: Environ) -> None:
        trace = trace_of(environ)
        state, path = self.state, environ.get("PATH_INFO", "")
        state.metrics.in_flight.dec()
        state.bodies.give_back(trace.reserved_bytes)
        if trace.predictions:
            state.metrics.queued(trace.queue_seconds)
            if trace.status == "200":  # of rows too far out there may be no answer, though there were predictions
                trace.model.monitor.observe(trace.inputs, trace.predictions)
                if trace.ordinal:
                    state.feedback.remember(trace.ordinal, trace.model.classifier, trace.predictions, trace.files)
            trace.inputs = trace.predictions = trace.files = ()  # a server may hold the environ for longer
        if trace.status:
            route = trace.route or (path if path in ROUTES else OTHER_ROUTE)
            state.metrics.request(route, trace.status, trace.seconds)

    def refuses_head(self, environ: Environ) -> bool:
        """Whether the views refuse a POST whatever its body holds: too long, or without the token."""
        if int(environ.get("CONTENT_LENGTH", 0)) > schema.MAX_BODY_BYTES:
            return True
        given, wanted = bearer_token(environ), self._token
        if self._manage_token and environ["PATH_INFO"].startswith(f"{schema.V2_REPOSITORY}/"):
            wanted = self._manage_token
        if wanted is None or (given is None and environ.get("CONTENT_TYPE", "").lower().startswith(MULTIPART)):
            return False
        return not same_token(given or "", wanted)

    def is_full(self) -> bool:
        """Whether every prediction is refused; where a token is wanted, the views check that first."""
        return self._token is None and not self.state.classifier.has_room()

    def refusal(self) -> Response:
        """The 503 of a full queue, counted."""
        state = self.state
        document, headers = state.problem_response(state.classifier.queue_full())
        body = json_line(document)
        headers += [("Content-Type", schema.PROBLEM_TYPE), ("Content-Length", str(len(body)))]
        headers += [("Cache-Control", NO_STORE), ("Vary", "Accept, Sec-Fetch-Mode")]
        headers += [(schema.SERVER_TIMING, "total;dur=0.000"), (schema.REQUEST_ORDINAL, str(state.accepted))]
        headers.append(state.current.model.header)
        state.metrics.request(schema.PREDICT, "503", 0.0)
        return Response(503, headers + self._fixed, body)


def trace_of(environ: Environ) -> RequestTrace:
    """The trace of a request that the middleware has begun."""
    return environ[TRACE]


def bearer_token(environ: Environ) -> str | None:
    """The token of the Authorization header: None where there is none, as in one that is a proxy's own (Basic)."""
    scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def same_token(given: str, wanted: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def too_large(size: int | None = None) -> TooLarge:
    found = "the body goes on after its limit" if size is None else f"the body has {size} bytes"
    return TooLarge(f"{found}; send at most {schema.MAX_BODY_BYTES // 2**20} MiB, so scale the image down")


def problem_document(problem: Problem) -> tuple[dict[str, Any], Headers]:
    """Returns the problem's document and its headers."""
    document = problem.to_json()
    document["detail"] = document["detail"][:DETAIL_CHARACTERS]
    headers: Headers = []
    if isinstance(problem, (QueueFull, ServiceUnavailable)):
        headers.append(("Retry-After", str(problem.retry_after_s)))
    if isinstance(problem, Unauthorised):
        headers.append(("WWW-Authenticate", "Bearer"))
    return document, headers


def json_line(document: Any) -> bytes:
    """A JSON body."""
    return encode_json(document).encode() + b"\n"
