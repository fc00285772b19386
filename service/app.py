"""The Flask app: routes, problem documents, identity headers."""

from __future__ import annotations

import hmac
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Flask, Response, current_app, g, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from service import schema
from service.classifier import Classifier, Timings
from service.inputs import MULTIPART, many_pictures, one_picture, read_body
from service.machine import cpu_model, process_started_at, usable_cpus
from service.openapi import document
from service.schema import Busy, Problem, TooLarge, Unauthorised
from service.settings import Settings

LIBRARIES = ("flask", "gunicorn", "numpy", "pillow")  # besides the engine's own
DETAIL_CHARACTERS = 500  # of a problem; some quote what the client sent
DRAIN_BYTES = 64 * 1024 * 1024  # of a refused body that are still read, so that its sender gets to see the answer
DRAIN_SECONDS = 20
CONTENT_POLICY = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; frame-ancestors 'none'"


class NotReady(Problem):
    status, title = 503, "Not ready"


def create_app(classifier: Classifier | None = None, settings: Settings | None = None) -> Flask:
    """The app, its model loaded and warmed. Raises SettingsError or BundleError when that cannot be done."""
    settings = settings or Settings.from_env(os.environ)
    service = Service(classifier or Classifier.load(settings), settings)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = schema.MAX_BODY_BYTES  # holds for bodies of undeclared length too
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    app.add_url_rule("/", "page", service.page)
    app.add_url_rule("/", "predict_form", service.predict, methods=["POST"])
    app.add_url_rule(schema.PREDICT, "predict", service.predict, methods=["POST"])
    app.add_url_rule(schema.PREDICT_BATCH, "predict_batch", service.predict_batch, methods=["POST"])
    app.add_url_rule(schema.HEALTHZ, "healthz", service.healthz)
    app.add_url_rule(schema.READYZ, "readyz", service.readyz)
    app.add_url_rule(schema.VERSION, "version", service.version)
    app.add_url_rule(schema.OPENAPI, "openapi", service.openapi)
    app.before_request(service.admit)
    app.after_request(service.sign)
    app.register_error_handler(Problem, service.problem)
    app.register_error_handler(HTTPException, service.http_problem)
    app.register_error_handler(Exception, service.failure)
    return app


class Service:
    """The views, and what they share: the model and this process's identity."""

    def __init__(self, classifier: Classifier, settings: Settings):
        self.classifier = classifier
        self.settings = settings
        self.instance_id = secrets.token_hex(6)
        self.started_at = datetime.fromtimestamp(process_started_at(), UTC).isoformat(timespec="milliseconds")
        self.versions = library_versions() | classifier.libraries
        self._accepted = 0
        self._counting = threading.Lock()

    # Views

    def page(self, status: int = 200, **found: Any) -> tuple[str, int]:
        """The upload form, with an answer or a problem when there is one."""
        limits = {"max_body_mib": schema.MAX_BODY_BYTES // 2**20, "types": list(schema.IMAGE_TYPES)}
        facts = {"prediction": None, "problem": None, "picture": None, "limits": limits} | found
        facts |= {"model": self.classifier.info, "classes": self.classifier.classes}
        return render_template("index.html", needs_token=bool(self.settings.api_token), **facts), status

    def predict(self):
        """One picture, as JSON or for a browser as a page."""
        begun = time.perf_counter()
        posted = one_picture(request, self.classifier.bundle)
        decoded = time.perf_counter()
        (prediction,), timings = self.classifier.classify([posted.pixels])
        note_timings(decoded - begun, timings)
        answer = prediction.to_json(with_probabilities=wants_probabilities())
        answer["model"] = self.classifier.info.to_json()
        return self.page(prediction=answer, picture=posted.preview()) if wants_page() else jsonify(answer)

    def predict_batch(self) -> Response:
        """Several pictures; all are answered or none."""
        begun = time.perf_counter()
        pictures = many_pictures(request, self.classifier.bundle)
        decoded = time.perf_counter()
        predictions, timings = self.classifier.classify(pictures)
        note_timings(decoded - begun, timings)
        answers = [p.to_json(with_probabilities=wants_probabilities()) for p in predictions]
        return jsonify(predictions=answers, model=self.classifier.info.to_json())

    def healthz(self) -> Response:
        return jsonify(status="alive")

    def readyz(self) -> Response:
        if not self.classifier.ready():
            raise NotReady("the thread that runs the model has ended; restart the process")
        return jsonify(status="ready")

    def version(self) -> Response:
        """Who answers: model, code, libraries, machine, start."""
        return jsonify(
            model={**self.classifier.info.to_json(), "sha256": self.classifier.sha256},
            engine=self.classifier.info.engine,
            git_sha=self.settings.git_sha,
            versions=self.versions,
            cpu_model=cpu_model(),
            cpus=usable_cpus(),
            instance_id=self.instance_id,
            started_at=self.started_at,
            startup_ms=self.classifier.startup_ms,
        )

    def openapi(self) -> Response:
        return jsonify(document(self.classifier.classes, self.classifier.bundle.size_px))

    # Around every view

    def admit(self) -> None:
        """Refuse what is too large or has no token; count what is accepted."""
        g.begun = time.perf_counter()
        if (request.content_length or 0) > schema.MAX_BODY_BYTES:
            raise too_large()
        if request.method == "POST" and request.routing_exception is None:
            if self.settings.api_token:
                self._check_token(self.settings.api_token)
            read_body(request)
            with self._counting:
                self._accepted += 1
                g.ordinal = self._accepted

    def _check_token(self, wanted: str) -> None:
        """The header decides; a form, which cannot set headers, may carry the token as a field."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if not scheme and request.mimetype == MULTIPART:
            read_body(request)
            given = request.form.get("token", "")
        elif scheme.lower() != "bearer":
            given = ""
        if not hmac.compare_digest(given.strip().encode(), wanted.encode()):
            found = "is wrong" if given else "is missing"
            raise Unauthorised(
                f"the token {found}; send it as 'Authorization: Bearer TOKEN' or as a form field 'token'"
            )

    def sign(self, response: Response) -> Response:
        """Identity and timing, on every answer."""
        timings = g.get("timings", {}) | {"total": (time.perf_counter() - g.begun) * 1000}
        response.headers[schema.SERVER_TIMING] = ", ".join(f"{part};dur={ms:.3f}" for part, ms in timings.items())
        response.headers[schema.INSTANCE_ID] = self.instance_id
        response.headers[schema.INSTANCE_STARTED] = self.started_at
        response.headers[schema.REQUEST_ORDINAL] = str(g.get("ordinal", self._accepted))
        response.headers[schema.MODEL_VERSION] = self.classifier.info.version
        response.headers["X-Content-Type-Options"] = "nosniff"
        if response.mimetype == "text/html":
            response.headers["Content-Security-Policy"] = CONTENT_POLICY
            response.headers["Referrer-Policy"] = "no-referrer"
        if response.status_code >= 400:
            response.call_on_close(lambda environ=request.environ: drain(environ))
        return response

    # Problems

    def problem(self, problem: Problem) -> Response:
        """The problem document, or for a browser's post the page that shows it."""
        facts = problem.to_json()
        facts["detail"] = facts["detail"][:DETAIL_CHARACTERS]
        if wants_page():
            html, status = self.page(problem.status, problem=facts)
            response = Response(html, status)
        else:
            response = jsonify(facts)
            response.status_code, response.mimetype = problem.status, schema.PROBLEM_TYPE
        if isinstance(problem, Busy):
            response.headers["Retry-After"] = str(problem.retry_after_s)
        if isinstance(problem, Unauthorised):
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def http_problem(self, error: HTTPException) -> Response:
        """What Flask itself refuses: unknown routes, wrong methods, bodies beyond the limit."""
        if isinstance(error, RequestEntityTooLarge):
            return self.problem(too_large())
        problem = Problem(error.description or error.name)
        problem.status, problem.title = error.code or 500, error.name
        if error.code == 404:
            problem.detail = f"there is no {request.path!r} here; {schema.OPENAPI} lists what there is"
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        if allowed:
            problem.detail = f"{request.path} does not take {request.method}, only {allowed}"
        response = self.problem(problem)
        if allowed:
            response.headers["Allow"] = allowed
        return response

    def failure(self, error: Exception) -> Response:
        """Our own fault: logged with its traceback, answered without."""
        current_app.logger.error("%s %s failed", request.method, request.path, exc_info=error)
        return self.problem(Problem(f"the service failed; its log says why (instance {self.instance_id})"))


def too_large() -> TooLarge:
    limit = f"{schema.MAX_BODY_BYTES // 2**20} MiB"
    return TooLarge(f"the body, or a field of its form, is over the limit; send at most {limit}, the pictures as files")


def wants_page() -> bool:
    """Whether a browser's own form asks, rather than a program."""
    accepts = request.accept_mimetypes
    return request.endpoint in ("predict", "predict_form") and accepts["text/html"] > accepts["application/json"]


def wants_probabilities() -> bool:
    return request.args.get("probabilities") == "1"


def note_timings(decode_s: float, timings: Timings) -> None:
    """Keep what Server-Timing will say, in the order of schema.SERVER_TIMING_PARTS."""
    g.timings = {"decode": decode_s * 1000, "queue": timings.queue_ms, "inference": timings.inference_ms}


def drain(environ: dict[str, Any]) -> None:
    """Read on after a refusal was sent: closing a connection with unread bytes resets it, and the answer is lost."""
    if not environ.get("wsgi.input_terminated"):  # a plain socket, where reading past the body would block
        return
    until, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
    with suppress(Exception):  # the client may be gone, or the body malformed; the answer is out already
        while left > 0 and time.monotonic() < until and (chunk := environ["wsgi.input"].read(64 * 1024)):
            left -= len(chunk)


def library_versions() -> dict[str, str]:
    """Python's and the libraries' versions, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
