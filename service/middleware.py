"""WSGI, around Flask: identity, timings and counts on every answer, and quick refusals while the queue is full."""

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
from service.metrics import Metrics
from service.schema import Busy, Prediction, Problem, Unauthorised
from service.system import process_started_at

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]

TRACE = "classifier.trace"  # where a request's Trace lies in its environ
PAGE = "/"
ROUTES = {
    *(PAGE, schema.PREDICT, schema.PREDICT_BATCH, schema.HEALTHZ, schema.READYZ),
    *(schema.VERSION, schema.METRICS, schema.OPENAPI),
}
OTHER_ROUTE = "other"
SHORT_BODY_BYTES = 64 * 1024  # of a body that is not counted, and is read before it is refused
UNDECLARED_BYTES = 2**20  # that a body of undeclared length is counted as; few are longer
HELD_BYTES = 64 * 1024 * 1024  # of long bodies that may be in memory at once, each up to three times over
DETAIL_CHARACTERS = 500  # of a problem; some quote what the client sent

encode_json = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps would make one for each answer


@dataclass(slots=True)
class Trace:
    """What is known of a request that is being answered."""

    begun: float  # time.perf_counter()
    ordinal: int | None = None  # among the predictions that were accepted
    timing: str = ""  # Server-Timing, up to the total
    status: str = ""  # of the answer, three digits
    seconds: float = 0.0  # that it took
    class_ids: Sequence[int] = ()  # that its pictures were taken for
    queue_seconds: float = 0.0
    held_bytes: int = 0  # of a long body, for as long as it is in memory


class Desk:
    """What both ways to an answer share: the model, this process's identity, the counts."""

    def __init__(self, classifier: Classifier, log: logging.Logger):
        self.classifier = classifier
        self.model = classifier.info.to_json()
        self.instance_id = secrets.token_hex(6)
        self.started_at = datetime.fromtimestamp(process_started_at(), UTC).isoformat(timespec="milliseconds")
        self.metrics = Metrics(classifier.info, classifier.classes, classifier.queue_depth)
        classifier.watch(self.metrics.ran)
        self.accepted = 0
        self._held_bytes = 0
        self._counting = threading.Lock()
        self._log = log

    def accept(self, environ: Environ) -> None:
        """Number a request that is going to be computed."""
        with self._counting:
            self.accepted += 1
            environ[TRACE].ordinal = self.accepted

    def hold(self, environ: Environ, size: int | None) -> None:
        """Count a body that is going to be read, by its declared size. Raises Busy when too many long ones are here."""
        size = UNDECLARED_BYTES if size is None else size
        if size <= SHORT_BODY_BYTES:
            return
        with self._counting:
            if self._held_bytes and self._held_bytes + size > HELD_BYTES:
                found = f"bodies of {self._held_bytes / 2**20:.0f} MiB are being read already"
                raise Busy(f"{found}, at most {HELD_BYTES // 2**20} MiB may; try again in 1 s", 1)
            self._held_bytes += size
            environ[TRACE].held_bytes = size

    def release(self, trace: Trace) -> None:
        """The request is over, and its body out of memory."""
        if trace.held_bytes:
            with self._counting:
                self._held_bytes -= trace.held_bytes

    def classify(self, environ: Environ, pictures: Sequence[np.ndarray], begun: float) -> list[Prediction]:
        """One prediction for each picture; begun: when their reading did. Raises Busy."""
        decoded = time.perf_counter()
        predictions, timings = self.classifier.classify(pictures)
        parts = ((decoded - begun) * 1000, timings.queue_ms, timings.inference_ms)
        trace: Trace = environ[TRACE]
        trace.timing = "decode;dur={:.3f}, queue;dur={:.3f}, inference;dur={:.3f}, ".format(*parts)
        trace.class_ids, trace.queue_seconds = [p.class_id for p in predictions], timings.queue_ms / 1000
        return predictions

    def refuse(self, problem: Problem) -> tuple[dict[str, Any], Headers]:
        """Count a problem; gives its document, and the headers that go with it."""
        self.metrics.error(problem.title)
        return problem_document(problem)

    def failure(self, environ: Environ, error: Exception) -> Problem:
        """Our own fault: logged with its traceback, answered without."""
        self._log.error("%s %s failed", environ["REQUEST_METHOD"], environ.get("PATH_INFO"), exc_info=error)
        return Problem(f"the service failed; its log says why (instance {self.instance_id})")


class Front:
    """The WSGI application that servers call; `flask` is what it stands before."""

    def __init__(self, flask: Callable[[Environ, StartResponse], Iterable[bytes]], desk: Desk, *, guarded: bool):
        self._flask = flask
        self._desk = desk
        self._guarded = guarded  # checking tokens is Flask's affair
        self._fixed = [
            (schema.INSTANCE_ID, desk.instance_id),
            (schema.INSTANCE_STARTED, desk.started_at),
            (schema.MODEL_VERSION, desk.classifier.info.version),
            ("X-Content-Type-Options", "nosniff"),
        ]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._finds_no_room(environ):
            return self._refusal(environ, start_response)
        trace = environ[TRACE] = Trace(time.perf_counter())
        desk = self._desk

        def signed(status: str, headers: Headers, *more: Any) -> Any:
            trace.status, trace.seconds = status[:3], time.perf_counter() - trace.begun
            ordinal = desk.accepted if trace.ordinal is None else trace.ordinal
            headers.append((schema.SERVER_TIMING, f"{trace.timing}total;dur={trace.seconds * 1000:.3f}"))
            headers.append((schema.REQUEST_ORDINAL, str(ordinal)))
            headers.extend(self._fixed)
            return start_response(status, headers, *more)

        desk.metrics.in_flight.inc()
        try:
            return self._flask(environ, signed)
        finally:
            self._count(environ)

    def _count(self, environ: Environ) -> None:
        trace: Trace = environ[TRACE]
        desk, path = self._desk, environ.get("PATH_INFO", "")
        desk.metrics.in_flight.dec()
        desk.release(trace)
        if trace.class_ids:
            desk.metrics.predicted(trace.class_ids, trace.queue_seconds)
        if trace.status:
            desk.metrics.request(path if path in ROUTES else OTHER_ROUTE, trace.status, trace.seconds)

    def _finds_no_room(self, environ: Environ) -> bool:
        """Whether this is a program's short request for a prediction, and the queue is full."""
        length = environ.get("CONTENT_LENGTH", "")
        return (
            not self._desk.classifier.has_room()
            and not self._guarded
            and environ["REQUEST_METHOD"] == "POST"
            and environ.get("PATH_INFO") == schema.PREDICT
            and length.isdecimal()
            and int(length) <= SHORT_BODY_BYTES
            and "text/html" not in environ.get("HTTP_ACCEPT", "")
        )

    def _refusal(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """503, without Flask: under overload most of the answers are this one, and the network needs the core."""
        with suppress(Exception):  # a body that broke off
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        desk = self._desk
        facts, headers = desk.refuse(desk.classifier.busy())
        body = json_line(facts)
        headers += [("Content-Type", schema.PROBLEM_TYPE), ("Content-Length", str(len(body)))]
        headers += [(schema.SERVER_TIMING, "total;dur=0.000"), (schema.REQUEST_ORDINAL, str(desk.accepted))]
        start_response("503 SERVICE UNAVAILABLE", headers + self._fixed)
        desk.metrics.request(schema.PREDICT, "503", 0.0)
        return [body]


def problem_document(problem: Problem) -> tuple[dict[str, Any], Headers]:
    """The document, and the headers that go with it."""
    facts = problem.to_json()
    facts["detail"] = facts["detail"][:DETAIL_CHARACTERS]
    headers: Headers = []
    if isinstance(problem, Busy):
        headers.append(("Retry-After", str(problem.retry_after_s)))
    if isinstance(problem, Unauthorised):
        headers.append(("WWW-Authenticate", "Bearer"))
    return facts, headers


def json_line(facts: Any) -> bytes:
    """A whole JSON body."""
    return encode_json(facts).encode() + b"\n"
