"""The Flask app: routes, forms, pages, problem documents. Every request passes service/web/middleware.py first."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from service import schema
from service.classifier import Classifier
from service.errors import Problem, ServiceUnavailable, Unauthorised, WrongToken, quoted
from service.feedback.parsing import parse_feedback
from service.lifecycle.fallback_model import load_with_fallback
from service.lifecycle.served_model import ServedModel
from service.lifecycle.switcher import ModelSwitcher
from service.settings import Settings
from service.system import processor, usable_cpus
from service.tabular.rows import check_answers, number_text, range_text
from service.web.inference_protocol import MANAGE_ENDPOINTS, InferenceProtocol
from service.web.middleware import (
    CLIENT_CONNECTION,
    DELAY_S,
    DRAIN_BYTES,
    DRAIN_TIMEOUT_S,
    MULTIPART,
    NO_STORE,
    PAGE,
    PROBLEM,
    RequestMiddleware,
    ServiceState,
    bearer_token,
    json_line,
    same_token,
    too_large,
    trace_of,
)
from service.web.openapi import openapi_document
from service.web.request_parsing import (
    ImageUpload,
    InMemoryRequest,
    check_encoding,
    check_query,
    form_too_large,
    parse_image,
    parse_images,
    read_body,
)
from service.web.row_parsing import FIELD, parse_rows, typed

FORM_ENDPOINTS = ("predict", "predict_form", "feedback")  # answer a browser's form with a page, and all else with JSON
STATUS_ENDPOINTS = ("version", "metrics")  # closed by PROTECT_STATUS
FOLDED_FROM = 30  # classes; the page folds a longer list
WRONG_TOKEN_DELAY_S = 1.0  # before the answer to a wrong token
LIBRARIES = ("flask", "granian", "gunicorn", "numpy", "pillow")  # besides the engine's own


def create_app(classifier: Classifier | None = None, settings: Settings | None = None) -> Flask:
    """The app, its model loaded and warmed. Raises SettingsError or BundleError when that cannot be done."""
    settings = settings or Settings.from_env(os.environ)
    if classifier is None:
        classifier, settings = load_with_fallback(settings)
    app = Flask(__name__)
    app.request_class = InMemoryRequest
    app.config["MAX_CONTENT_LENGTH"] = schema.MAX_BODY_BYTES  # holds for bodies of undeclared length too
    state = ServiceState(ServedModel.of(classifier, settings.stored), settings, app.logger)
    switcher = ModelSwitcher(state.current, settings, switch=state.switched, refused=state.metrics.switch_refused.inc)
    app.extensions["model_switcher"] = switcher
    service = Service(state, settings, switcher)
    app.add_url_rule(PAGE, "page", service.page)
    app.add_url_rule(PAGE, "predict_form", service.predict, methods=["POST"])
    app.add_url_rule(schema.PREDICT, "predict", service.predict, methods=["POST"])
    app.add_url_rule(schema.PREDICT_BATCH, "predict_batch", service.predict_batch, methods=["POST"])
    app.add_url_rule(schema.FEEDBACK, "feedback", service.feedback, methods=["POST"])
    app.add_url_rule(schema.HEALTHZ, "healthz", service.healthz)
    app.add_url_rule(schema.READYZ, "readyz", service.readyz)
    app.add_url_rule(schema.PING, "ping", service.readyz)
    app.add_url_rule(schema.INVOCATIONS, "invocations", service.predict, methods=["POST"])
    app.add_url_rule(schema.VERSION, "version", service.version)
    app.add_url_rule(schema.METRICS, "metrics", service.metrics)
    app.add_url_rule(schema.OPENAPI, "openapi", service.openapi)
    if settings.manage_token:
        InferenceProtocol(state, settings, switcher).add_to(app)
    app.before_request(service.admit)
    app.after_request(service.finish)
    app.register_error_handler(Problem, service.problem)
    app.register_error_handler(HTTPException, service.http_problem)
    app.register_error_handler(Exception, service.failure)
    app.wsgi_app = RequestMiddleware(  # type: ignore[method-assign]  # as Flask advises
        app.wsgi_app,
        state,
        token=settings.api_token,
        manage_token=settings.manage_token,
        allowed_origins=settings.allowed_origins,
    )
    if settings.model or settings.manage_token:
        switcher.start()
    return app


class Service:
    """The views."""

    def __init__(self, state: ServiceState, settings: Settings, switcher: ModelSwitcher):
        self.state = state
        self.settings = settings
        self.switcher = switcher

    @property
    def model(self) -> ServedModel:
        """The model of the present request."""
        return trace_of(request.environ).model

    def page(self, status: int = 200, **result: Any) -> tuple[str, int]:
        """The form, with a prediction or a problem when there is one."""
        context = {"prediction": None, "problem": None, "thanks": None, "folded_from": FOLDED_FROM} | result
        model, classifier = self.model, self.model.classifier
        context |= {"model": classifier.info, "classes": classifier.classes, "precision": classifier.precision}
        context |= {"deployment": self.settings.deployment, "needs_token": bool(self.settings.api_token)}
        context |= {"feedback": self._feedback_fields(), "is_about_feedback": request.endpoint == "feedback"}
        if model.features:
            return render_template("rows.html", **context, **self._typed_row(model)), status
        limits = {"max_body_mib": schema.MAX_BODY_BYTES // 2**20, "types": list(schema.IMAGE_TYPES)}
        context = {"image_uri": None, "size_px": classifier.bundle.image.size_px, "limits": limits} | context
        return render_template("index.html", samples=list(model.samples), **context), status

    def _typed_row(self, model: ServedModel) -> dict[str, Any]:
        """The fields of a row's form, with what was typed or else an example."""
        # A body that was refused unread is not read now, and feedback holds no row
        form = None if request.endpoint == "feedback" else vars(request).get("form")
        values = typed(form, model.features) if form else list(map(number_text, model.classifier.example_row))
        return {
            "features": model.features,
            "ranges": list(map(range_text, model.features)),
            "field": FIELD,
            "values": values,
            "is_example": not form,
        }

    def predict(self) -> Response | tuple[str, int]:
        """One image, or one or several rows, as JSON or for a browser as a page."""
        model = self.model
        if model.features:
            return self._predict_rows(model, as_list=False)
        started_at = time.perf_counter()
        with model.classifier.decode_work(request.environ.get(CLIENT_CONNECTION)) as work:
            samples = model.samples if request.endpoint == "predict_form" else {}
            upload = parse_image(request, model.classifier.bundle, work, samples)
        self._hold_files([upload])
        (prediction,) = self.state.classify(request.environ, [upload.pixels], started_at)
        answer = prediction.to_json(with_probabilities=wants_probabilities()) | {"model": model.answer}
        return self.page(prediction=answer, image_uri=self._preview(upload)) if wants_page() else json_answer(answer)

    def _predict_rows(self, model: ServedModel, *, as_list: bool) -> Response | tuple[str, int]:
        """One row as one answer, several as a list of answers: all are answered or none."""
        started_at = time.perf_counter()
        rows = parse_rows(request, model.features)
        predictions = self.state.classify(request.environ, list(rows.values), started_at)
        check_answers([prediction.probabilities for prediction in predictions], rows)
        answers = [
            prediction.to_json(with_probabilities=wants_probabilities())
            | ({schema.WARNINGS_KEY: warnings} if warnings else {})
            for prediction, warnings in zip(predictions, rows.warnings, strict=True)
        ]
        if as_list or not rows.is_single:
            return json_answer({"predictions": answers, "model": model.answer})
        answer = answers[0] | {"model": model.answer}
        return self.page(prediction=answer) if wants_page() else json_answer(answer)

    def _preview(self, upload: ImageUpload) -> str | None:
        """The image for the page; none while too many requests wait to be decoded, or where it is beyond the limits."""
        with suppress(Problem), self.model.classifier.decode_work() as work:
            return upload.preview(work)
        return None

    def predict_batch(self) -> Response | tuple[str, int]:
        """Several images or rows; all are answered or none."""
        model = self.model
        if model.features:
            return self._predict_rows(model, as_list=True)
        started_at = time.perf_counter()
        with model.classifier.decode_work(request.environ.get(CLIENT_CONNECTION)) as work:
            uploads = parse_images(request, model.classifier, work)
        self._hold_files(uploads)
        images = [upload.pixels for upload in uploads]
        del uploads  # with their files
        predictions = self.state.classify(request.environ, images, started_at)
        answers = [p.to_json(with_probabilities=wants_probabilities()) for p in predictions]
        return json_answer({"predictions": answers, "model": model.answer})

    def _hold_files(self, uploads: list[ImageUpload]) -> None:
        """Until feedback on them comes; only where KEEP_IMAGES wants that, and for files, not for lists of pixels."""
        if self.state.feedback.kept_images:
            trace_of(request.environ).files = [upload.encoded for upload in uploads if upload.encoded]

    def feedback(self) -> Response | tuple[str, int]:
        """What was true of a prediction, as JSON or from the page's form."""
        with self.state.feedback.counting_refusals():
            judged = self.state.feedback.record(parse_feedback(request))
        return self.page(thanks=judged) if wants_page() else json_answer(judged)

    def _feedback_fields(self) -> dict[str, Any] | None:
        """What the page's form for feedback holds of the answer of this request; None where there is no feedback."""
        recorder = self.state.feedback
        if not recorder.is_on:
            return None
        ordinal = trace_of(request.environ).ordinal
        return {"instance": self.state.instance_id, "ordinal": ordinal, "keeps_images": bool(recorder.kept_images)}

    def healthz(self) -> Response:
        return json_answer({"status": "alive"})

    def readyz(self) -> Response:
        if not self.model.classifier.ready():
            raise ServiceUnavailable("the thread that runs the model has ended; restart the process")
        refusal = self.switcher.refusal
        return json_answer({"status": "ready"} | ({"refused": str(refusal)} if refusal else {}))

    def version(self) -> Response:
        """The model, code, libraries, processor and start of this process."""
        model, classifier = self.model, self.model.classifier
        body = {
            "model": {**model.answer, "sha256": classifier.sha256},
            "engine": classifier.info.engine,
            "precision": classifier.precision,
            "device": classifier.device,
            "engine_details": classifier.details,
            "git_sha": self.settings.git_sha,
            "deployment": self.settings.deployment,
            "versions": library_versions() | classifier.libraries,
            **processor(),
            "cpus": usable_cpus(),
            "store": model.stored.to_json() if model.stored else None,
            "switches": self.state.switches,
            "instance_id": self.state.instance_id,
            "started_at": self.state.started_at,
            "startup_ms": self.state.startup_ms,
        }
        return json_answer(body)

    def metrics(self) -> Response:
        """The metrics of this process, for Prometheus."""
        text, media_type = self.state.metrics.text(request.headers.get("Accept", ""))
        return Response(text, content_type=media_type)

    def openapi(self) -> Response:
        return Response(
            openapi_document(self.model.features, has_v2=bool(self.settings.manage_token)), mimetype=schema.JSON_TYPE
        )

    # Around every view

    def admit(self) -> None:
        """Refuse a body that is too large, has no token or comes while the queue is full; number the others."""
        if request.url_rule and is_v2():
            trace_of(request.environ).route = request.url_rule.rule
        if problem := request.environ.get(PROBLEM):
            raise problem
        if (request.content_length or 0) > schema.MAX_BODY_BYTES:
            raise too_large(request.content_length)
        if self.settings.protect_status and request.method != "OPTIONS" and request.endpoint in STATUS_ENDPOINTS:
            self._check_token(self.settings.api_token or "")
        if request.method == "POST" and request.routing_exception is None:
            self.state.reserve_body(request.environ, request.content_length)  # a token may be in the body
            manages = request.endpoint in MANAGE_ENDPOINTS
            if token := self.settings.manage_token if manages else self.settings.api_token:
                self._check_token(token)
            if has_query():
                check_query(request)
            check_encoding(request)
            if manages or request.endpoint == "feedback":
                read_body(request)
                return
            self.model.classifier.check_room()
            read_body(request)
            self.state.accept(request.environ)

    def _check_token(self, wanted: str) -> None:
        """The header decides; a form, which cannot set headers, may carry the token as a field."""
        given = bearer_token(request.environ)
        if given is None and request.mimetype == MULTIPART:
            read_body(request)
            given = request.form.get("token", "").strip()
        if same_token(given or "", wanted):
            return
        hint = "send it as 'Authorization: Bearer TOKEN' or as a form field 'token'"
        if not given:
            raise Unauthorised(f"the token is missing; {hint}")
        request.environ[DELAY_S] = WRONG_TOKEN_DELAY_S
        raise WrongToken(f"the token is wrong; {hint}")

    def finish(self, response: Response) -> Response:
        """Add the headers for browsers and caches; read the rest of a refused body."""
        response.headers.setdefault("Cache-Control", NO_STORE)  # a static file has its own
        if request.endpoint in FORM_ENDPOINTS:
            response.headers["Vary"] = "Accept, Sec-Fetch-Mode"
        if response.status_code >= 400:
            response.call_on_close(lambda environ=request.environ: drain(environ))
        return response

    # Problems

    def problem(self, problem: Problem) -> Response:
        """The problem document, or for a browser's post the page that shows it."""
        document, headers = self.state.problem_response(problem)
        if is_v2():
            document["error"] = document["detail"]  # where the Open Inference Protocol has it
        if wants_page():
            html, status = self.page(problem.status, problem=document)
            response = Response(html, status)
        else:
            response = json_answer(document, problem.status, schema.PROBLEM_TYPE)
        response.headers.extend(headers)
        return response

    def http_problem(self, error: HTTPException) -> Response:
        """What Flask itself refuses: unknown routes, methods that a route lacks, bodies over the limit."""
        if isinstance(error, RequestEntityTooLarge):
            return self.problem(form_too_large() if request.mimetype == MULTIPART else too_large())
        problem = Problem(error.description or error.name)
        problem.status, problem.title = error.code or 500, error.name
        if error.code == 404:
            problem.detail = f"there is no {quoted(request.path)} here; {schema.OPENAPI} lists what there is"
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        if allowed:
            problem.detail = f"{quoted(request.path)} does not take {request.method}, only {allowed}"
        response = self.problem(problem)
        if allowed:
            response.headers["Allow"] = allowed
        return response

    def failure(self, error: Exception) -> Response:
        """An unexpected exception."""
        return self.problem(self.state.failure(request.environ, error))


def json_answer(body: Any, status: int = 200, media_type: str = schema.JSON_TYPE) -> Response:
    return Response(json_line(body), status, content_type=media_type)


def is_v2() -> bool:
    return request.path.startswith(f"{schema.V2}/")


def wants_page() -> bool:
    """Whether the request comes from a browser's form, not from a program.

    A browser that opens a page says so in Sec-Fetch-Mode where the address is https or this machine, and asks for HTML
    first and XHTML too. Programs send many an Accept header, such as Java's, which begins with text/html.
    """
    accept = request.environ.get("HTTP_ACCEPT", "").lower()
    if not accept.startswith("text/html") or request.endpoint not in FORM_ENDPOINTS:
        return False
    if mode := request.environ.get("HTTP_SEC_FETCH_MODE"):
        return mode == "navigate"
    return "application/xhtml+xml" in accept or accept == "text/html"  # nothing else will do


def wants_probabilities() -> bool:
    """SageMaker lets no query through: there it is an attribute."""
    attributes = request.headers.get(schema.CUSTOM_ATTRIBUTES, "") if request.path == schema.INVOCATIONS else ""
    if f"{schema.PROBABILITIES}=1" in attributes.split("&"):
        return True
    return has_query() and request.args.get(schema.PROBABILITIES) == "1"


def has_query() -> bool:
    return bool(request.environ.get("QUERY_STRING"))  # cheaper than parsing it


def drain(environ: dict[str, Any]) -> None:
    """Read the rest of a refused body: closing a connection with unread bytes resets it and loses the response.

    On Cloud Functions; elsewhere service/web/asgi.py does it, without a thread.
    """
    if not environ.get("wsgi.input_terminated"):  # a plain socket, where reading past the body blocks
        return
    if "HTTP_EXPECT" in environ:  # its sender waits for 100 Continue, which reading would send
        return
    deadline, left = time.monotonic() + DRAIN_TIMEOUT_S, DRAIN_BYTES
    with suppress(Exception):  # the client may be gone or the body malformed; the response is sent already
        while left > 0 and time.monotonic() < deadline and (chunk := environ["wsgi.input"].read(64 * 1024)):
            left -= len(chunk)


@cache
def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that are installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
