"""WSGI middleware around Flask: identity and timing headers, metrics, and cheap refusals while the queue is full."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from service import schema
from service.classifier import Classifier
from service.errors import Problem, QueueFull, Unauthorised
from service.schema import Prediction
from service.system import process_started_at
from service.web.metrics import Metrics

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]

TRACE = "classifier.trace"  # the environ key of a request's RequestTrace
PAGE = "/"
NO_STORE = "no-store"  # Cache-Control
# What the page needs; of what it does not name, default-src allows nothing.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
ROUTES = {
    *(PAGE, schema.PREDICT, schema.PREDICT_BATCH, schema.HEALTHZ, schema.READYZ),
    *(schema.VERSION, schema.METRICS, schema.OPENAPI),
}
OTHER_ROUTE = "other"
SHORT_BODY_BYTES = 64 * 1024  # a body up to this is not counted, and is read before a refusal
UNDECLARED_BYTES = 2**20  # what a body of undeclared length counts as; few are longer
MAX_RESERVED_BYTES = 64 * 1024 * 1024  # long bodies in memory at once, each held up to three times
DETAIL_CHARACTERS = 500  # of a problem; some details quote what the client sent

encode_json = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps would make one per response


@dataclass(slots=True)
class RequestTrace:
    """The figures of a request in progress."""

    started_at: float  # time.perf_counter()
    ordinal: int | None = None  # its number among the accepted prediction requests
    timing: str = ""  # the Server-Timing header without its total
    status: str = ""  # of the response, three digits
    seconds: float = 0.0  # from request to response
    class_ids: Sequence[int] = ()  # predicted for its images
    queue_seconds: float = 0.0
    works: bool = False  # whether it is one of the WEB_THREADS that work
    reserved_bytes: int = 0  # of a long body, until the request ends


class ServiceState:
    """What the middleware and the views share: the model, this process's identity, the metrics."""

    def __init__(self, classifier: Classifier, log: logging.Logger, web_threads: int):
        self.classifier = classifier
        self.model = classifier.info.to_json()
        self.instance_id = secrets.token_hex(6)
        self.started_at = datetime.fromtimestamp(process_started_at(), UTC).isoformat(timespec="milliseconds")
        self.metrics = Metrics(classifier.info, classifier.classes, classifier.queue_depth)
        classifier.watch(self.metrics.ran)
        self.accepted = 0
        self._reserved_bytes = 0
        self._counting = threading.Lock()
        self._free_threads = threading.Semaphore(web_threads)
        self._log = log

    def accept(self, environ: Environ) -> None:
        """Number a prediction request whose body has come, once fewer than WEB_THREADS requests work."""
        self._free_threads.acquire()
        environ[TRACE].works = True
        with self._counting:
            self.accepted += 1
            environ[TRACE].ordinal = self.accepted

    def reserve_body(self, environ: Environ, size: int | None) -> None:
        """Reserve memory for a body by its declared size. Raises QueueFull when long bodies use all of it."""
        size = UNDECLARED_BYTES if size is None else size
        if size <= SHORT_BODY_BYTES:
            return
        with self._counting:
            if self._reserved_bytes and self._reserved_bytes + size > MAX_RESERVED_BYTES:
                used = f"long bodies take {self._reserved_bytes / 2**20:.0f} MiB"
                raise QueueFull(f"{used} of {MAX_RESERVED_BYTES // 2**20} MiB; try again in 1 s", 1)
            self._reserved_bytes += size
            environ[TRACE].reserved_bytes = size

    def release(self, trace: RequestTrace) -> None:
        """Return what the request has reserved, at its end."""
        if trace.works:
            self._free_threads.release()
        if trace.reserved_bytes:
            with self._counting:
                self._reserved_bytes -= trace.reserved_bytes

    def classify(self, environ: Environ, images: Sequence[np.ndarray], started_at: float) -> list[Prediction]:
        """Returns one prediction per image; started_at: when decoding started. Raises QueueFull."""
        decoded = time.perf_counter()
        predictions, timings = self.classifier.classify(images)
        parts = ((decoded - started_at) * 1000, timings.queue_ms, timings.inference_ms)
        trace: RequestTrace = environ[TRACE]
        trace.timing = "decode;dur={:.3f}, queue;dur={:.3f}, inference;dur={:.3f}, ".format(*parts)
        trace.class_ids, trace.queue_seconds = [p.class_id for p in predictions], timings.queue_ms / 1000
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
        self, flask: Callable[[Environ, StartResponse], Iterable[bytes]], state: ServiceState, *, guarded: bool
    ):
        self._flask = flask
        self._state = state
        self._guarded = guarded  # then the views must check the token first
        self._fixed = [
            (schema.INSTANCE_ID, state.instance_id),
            (schema.INSTANCE_STARTED, state.started_at),
            (schema.MODEL_VERSION, state.classifier.info.version),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Content-Security-Policy", CONTENT_POLICY),
        ]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._must_refuse(environ):
            return self._refuse(environ, start_response)
        trace = environ[TRACE] = RequestTrace(time.perf_counter())
        state = self._state

        def add_headers(status: str, headers: Headers, *more: Any) -> Any:
            trace.status, trace.seconds = status[:3], time.perf_counter() - trace.started_at
            ordinal = state.accepted if trace.ordinal is None else trace.ordinal
            headers.append((schema.SERVER_TIMING, f"{trace.timing}total;dur={trace.seconds * 1000:.3f}"))
            headers.append((schema.REQUEST_ORDINAL, str(ordinal)))
            headers.extend(self._fixed)
            return start_response(status, headers, *more)

        state.metrics.in_flight.inc()
        try:
            return self._flask(environ, add_headers)
        finally:
            self._count(environ)

    def _count(self, environ: Environ) -> None:
        trace: RequestTrace = environ[TRACE]
        state, path = self._state, environ.get("PATH_INFO", "")
        state.metrics.in_flight.dec()
        state.release(trace)
        if trace.class_ids:
            state.metrics.predicted(trace.class_ids, trace.queue_seconds)
        if trace.status:
            state.metrics.request(path if path in ROUTES else OTHER_ROUTE, trace.status, trace.seconds)

    def _must_refuse(self, environ: Environ) -> bool:
        """Whether this is a program's short prediction request while the queue is full."""
        length = environ.get("CONTENT_LENGTH", "")
        return (
            not self._state.classifier.has_room()
            and not self._guarded
            and environ["REQUEST_METHOD"] == "POST"
            and environ.get("PATH_INFO") == schema.PREDICT
            and length.isdecimal()
            and int(length) <= SHORT_BODY_BYTES
            and "text/" not in environ.get("HTTP_ACCEPT", "")
        )

    def _refuse(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """Returns 503 without Flask: under overload most responses are this one, and the network needs the CPU."""
        with suppress(Exception):  # an incomplete body
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        state = self._state
        document, headers = state.problem_response(state.classifier.queue_full())
        body = json_line(document)
        headers += [("Content-Type", schema.PROBLEM_TYPE), ("Content-Length", str(len(body)))]
        headers += [("Cache-Control", NO_STORE), ("Vary", "Accept")]
        headers += [(schema.SERVER_TIMING, "total;dur=0.000"), (schema.REQUEST_ORDINAL, str(state.accepted))]
        start_response("503 SERVICE UNAVAILABLE", headers + self._fixed)
        state.metrics.request(schema.PREDICT, "503", 0.0)
        return [body]


def problem_document(problem: Problem) -> tuple[dict[str, Any], Headers]:
    """Returns the problem's document and its headers."""
    document = problem.to_json()
    document["detail"] = document["detail"][:DETAIL_CHARACTERS]
    headers: Headers = []
    if isinstance(problem, QueueFull):
        headers.append(("Retry-After", str(problem.retry_after_s)))
    if isinstance(problem, Unauthorised):
        headers.append(("WWW-Authenticate", "Bearer"))
    return document, headers


def json_line(document: Any) -> bytes:
    """A JSON body."""
    return encode_json(document).encode() + b"\n"
