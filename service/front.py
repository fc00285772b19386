"""WSGI, around Flask: identity, timings and counts on every answer, and a short way for what is asked most.

Nearly all that a classifier is sent is one small picture, alone in the body. Flask's way to an answer (request,
session, routing and response objects) takes a tenth as long as a quantised network's pass, so such a request is
answered here. Whatever is unusual about one goes Flask's way, and the answers are the same.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from werkzeug.http import HTTP_STATUS_CODES

from service import schema
from service.classifier import Classifier
from service.inputs import read_exactly
from service.machine import process_started_at
from service.metrics import Metrics
from service.preprocess import read_picture
from service.schema import Busy, Prediction, Problem, Unauthorised

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
SHORT_BODY_BYTES = 64 * 1024  # what gunicorn reads past by itself where a body was refused unread
UNDECLARED_BYTES = 2**20  # that a body of undeclared length is counted as; few are longer
HELD_BYTES = 64 * 1024 * 1024  # of long bodies that may be in memory at once, each up to three times over
QUERIES = {"": False, "probabilities=0": False, "probabilities=1": True}  # -> whether the full vector is wanted
PLAIN_ACCEPTS = ("*/*", schema.JSON_TYPE)  # of programs; a browser wants a page
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
        predictions, timings = self.classifier.classify(pictures, connection(environ))
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
        self.places = math.inf if guarded else desk.classifier.places  # requests that can be inside at once
        self._fixed = [
            (schema.INSTANCE_ID, desk.instance_id),
            (schema.INSTANCE_STARTED, desk.started_at),
            (schema.MODEL_VERSION, desk.classifier.info.version),
            ("X-Content-Type-Options", "nosniff"),
        ]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return self.answer(environ, start_response)
        finally:
            self.count(environ)

    def answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """As WSGI has it, but for the counting: `count` is to be called afterwards, whatever became of it."""
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
        if self.has_short_way(environ):
            return self._short_way(environ, signed)
        return self._flask(environ, signed)

    def count(self, environ: Environ) -> None:
        """Put a request that is over into the metrics, which need not be done before its client has the answer."""
        trace: Trace = environ[TRACE]
        desk, path = self._desk, environ.get("PATH_INFO", "")
        desk.metrics.in_flight.dec()
        desk.release(trace)
        if trace.class_ids:
            desk.metrics.predicted(trace.class_ids, trace.queue_seconds)
        if trace.status:
            desk.metrics.request(path if path in ROUTES else OTHER_ROUTE, trace.status, trace.seconds)

    def has_short_way(self, environ: Environ) -> bool:
        """Whether this request is answered without Flask."""
        return environ.get("PATH_INFO") == schema.PREDICT and not self._guarded and is_one_small_picture(environ)

    def full(self) -> bool:
        """Whether the next picture would be refused, and nothing else has to be looked at before."""
        return not self._guarded and not self._desk.classifier.has_room()

    def refusal(self) -> tuple[str, Headers, bytes]:
        """Status, headers and body for a prediction that finds the queue full, for a worker without time for more.

        `count_refusal` is to be called for every request that is told so.
        """
        desk = self._desk
        facts, headers = problem_document(desk.classifier.busy())
        body = json_line(facts)
        headers += [("Content-Type", schema.PROBLEM_TYPE), ("Content-Length", str(len(body)))]
        headers += [(schema.SERVER_TIMING, "total;dur=0.000"), (schema.REQUEST_ORDINAL, str(desk.accepted))]
        return "503 SERVICE UNAVAILABLE", headers + self._fixed, body

    def count_refusal(self) -> None:
        """Put one into the metrics."""
        self._desk.metrics.error(Busy.title)
        self._desk.metrics.request(schema.PREDICT, "503", 0.0)

    def _short_way(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        status, media_type, headers = 200, schema.JSON_TYPE, []
        try:
            answer = self._predict(environ)
        except Exception as error:
            problem = error if isinstance(error, Problem) else self._desk.failure(environ, error)
            status, media_type = problem.status, schema.PROBLEM_TYPE
            answer, headers = self._desk.refuse(problem)
        body = json_line(answer)
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body))), *headers]
        start_response(f"{status} {HTTP_STATUS_CODES[status].upper()}", headers)
        return [body]

    def _predict(self, environ: Environ) -> dict[str, Any]:
        desk = self._desk
        desk.classifier.check_room()
        data = read_exactly(environ["wsgi.input"], int(environ["CONTENT_LENGTH"]))
        desk.accept(environ)
        begun = time.perf_counter()
        picture = read_picture(data, desk.classifier.bundle)
        (prediction,) = desk.classify(environ, [picture], begun)
        answer = prediction.to_json(with_probabilities=QUERIES[environ.get("QUERY_STRING", "")])
        return answer | {"model": desk.model}


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


def is_one_small_picture(environ: Environ) -> bool:
    """Whether this is a program's plain request: an image type, a short body of known length, JSON wanted."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ["REQUEST_METHOD"] == "POST"
        and environ.get("CONTENT_TYPE", "").startswith("image/")
        and length.isdecimal()
        and 0 < int(length) <= SHORT_BODY_BYTES
        and environ.get("HTTP_ACCEPT", "*/*") in PLAIN_ACCEPTS
        and environ.get("QUERY_STRING", "") in QUERIES
    )


def connection(environ: Environ) -> int | None:
    """The file descriptor of the client's connection, where the server tells it: gunicorn does."""
    socket = environ.get("gunicorn.socket")
    descriptor = -1 if socket is None else socket.fileno()
    return None if descriptor < 0 else descriptor


def json_line(facts: Any) -> bytes:
    """A whole JSON body."""
    return encode_json(facts).encode() + b"\n"
