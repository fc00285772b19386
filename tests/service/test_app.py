"""What the app does around its model: a network of our own in place of the shipped one."""

import io
import logging
from itertools import product

import numpy as np
import pytest
from PIL import Image

from service import schema
from service.app import create_app
from service.classifier import Classifier
from service.errors import QueueFull, UnprocessableImage
from service.schema import PROBLEM_TYPE
from service.settings import Settings
from service.web.asgi import wsgi_environ
from service.web.middleware import CONTENT_POLICY, ROUTES
from tests.conftest import picture_bytes
from tests.helpers.bundles import bundle_in_memory
from tests.helpers.running_service import multipart

BUNDLE = bundle_in_memory()


class Engine:
    """Answers evenly, or with the failure it was given."""

    name, libraries, details = "test", {"test": "1"}, {"form": "even"}
    device, caller_may_run = "cpu", True
    failure: BaseException | None = None

    def probabilities(self, batch):
        if self.failure:
            raise self.failure
        return np.full((len(batch), 6), 1 / 6, np.float32)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def client(engine):
    return create_app(Classifier(BUNDLE, engine, Settings()), Settings()).test_client()


@pytest.mark.parametrize("failure", [RuntimeError("secret path"), MemoryError()], ids=repr)
def test_engine_failure_is_a_500_problem_and_the_next_succeeds(client, engine, png, caplog, failure):
    engine.failure = failure
    with caplog.at_level(logging.ERROR):
        reply = client.post("/predict", data=png, content_type="image/png")
    assert (reply.status_code, reply.mimetype) == (500, PROBLEM_TYPE)
    assert reply.json["detail"].startswith("the service failed; its log says why")
    assert "secret" not in reply.text
    assert caplog.records[0].exc_info
    engine.failure = None
    assert client.post("/predict", data=png, content_type="image/png").status_code == 200


def test_service_without_its_batcher_is_alive_but_not_ready(client, monkeypatch):
    monkeypatch.setattr(Classifier, "ready", lambda self: False)
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json["title"], reply.headers["Retry-After"]) == (503, "Not ready", "1")
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/predict", "//predict"])
def test_a_path_is_that_which_the_router_reads(path):
    scope = {
        "method": "POST",
        "path": path,
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "headers": [],
    }
    assert wsgi_environ(scope)["PATH_INFO"] == "/predict"


def test_no_file_of_a_form_is_written_to_the_disk(client, monkeypatch):
    def no_disk(*_, **__):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("tempfile.TemporaryFile", no_disk)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", no_disk)
    photo, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    Image.fromarray(noise).save(photo, "PNG", compress_level=0)
    assert photo.tell() > 500_000
    body, kind = multipart(("image", photo.getvalue(), "photo.png"))
    assert client.post("/predict", data=body, content_type=kind).status_code == 200


def test_an_image_without_a_preview_is_answered(client, png, monkeypatch):
    def too_much(*_):
        raise UnprocessableImage("too much work")

    monkeypatch.setattr("service.web.request_parsing.preview_uri", too_much)
    reply = client.post("/", data={"image": (io.BytesIO(png), "a.png")}, headers={"Accept": "text/html"})
    assert reply.status_code == 200 and "data:image/png" not in reply.text


def test_room_is_asked_for_a_whole_batch_before_decoding(engine, png, monkeypatch):
    settings = Settings(max_queue=4)
    classifier = Classifier(BUNDLE, engine, settings)
    client = create_app(classifier, settings).test_client()
    body, kind = multipart(*[("image", png, "a.png")] * 3)
    with classifier.decode_work() as other:
        classifier.begin_batch(other, 2)
        monkeypatch.setattr("service.web.request_parsing.decode_image", lambda *_: pytest.fail("decodes"))
        reply = client.post("/predict/batch", data=body, content_type=kind)
        assert reply.status_code == 503 and "(2/4) for 3 more inputs" in reply.json["detail"]
    monkeypatch.undo()
    assert client.post("/predict/batch", data=body, content_type=kind).status_code == 200


def test_equal_probabilities_are_ranked_by_id_and_cut_at_five(client, png):
    top = client.post("/predict", data=png, content_type="image/png").json["top"]
    assert [entry["id"] for entry in top] == [0, 1, 2, 3, 4]


def test_the_page_shows_the_image_that_was_posted(client, png):
    form = {"image": (io.BytesIO(png), "a.png")}
    reply = client.post("/", data=form, headers={"Accept": "text/html"})
    assert reply.status_code == 200
    assert "data:image/png;base64,iVBOR" in reply.text


def test_no_sample_is_offered_or_read_of_a_class_unknown_to_it(client):
    assert "samples/" not in client.get("/").text
    assert client.post("/", data={"sample": "ship"}, content_type="multipart/form-data").status_code == 400


def test_what_a_client_sent_cannot_become_markup(client, png):
    form = {"<script>alert(1)</script>": (io.BytesIO(png), "a.png")}
    reply = client.post("/", data=form, headers={"Accept": "text/html"})
    assert reply.status_code == 400
    assert "<script>alert" not in reply.text


def test_a_problem_quotes_only_so_much_of_what_was_sent(client):
    reply = client.post("/predict", json={name * 100_000: "x" for name in "abcdefg"})
    assert reply.status_code == 400
    assert len(reply.json["detail"]) < 500
    assert reply.json["detail"].endswith('{"img": [[[r, g, b], ...], ...]}')


PNG = picture_bytes()
NOISE = "\0\x1b[31m\u202e" * 30
NOISY = [
    pytest.param({"data": NOISE.encode()}, id="bytes"),
    pytest.param({"data": b"\0\0\0\x04".join((PNG[:33], PNG[37:]))}, id="PNG whose data are said to be 4 bytes"),
    pytest.param({"data": b"\xff\xd8\xff" + bytes(range(256))}, id="damaged JPEG"),
    pytest.param({"data": b"GIF89a" + bytes(range(255, 0, -1))}, id="damaged GIF"),
    pytest.param({"data": bytes(range(256)), "content_type": "multipart/form-data; boundary=x"}, id="no form"),
    pytest.param({"data": multipart((NOISE, b"x", NOISE))[0], "content_type": multipart()[1]}, id="names"),
    pytest.param({"json": {f"{NOISE}\r\n\ud800{letter}": 1 for letter in "abcdefg"}}, id="keys"),
    pytest.param({"json": {"image": NOISE}}, id="base64"),
    pytest.param({"query_string": {NOISE: "1"}}, id="query"),
    pytest.param({"path": "/static/" + NOISE}, id="path"),
]


@pytest.mark.parametrize("sent", NOISY)
def test_no_problem_holds_control_characters_or_binary_noise(client, sent):
    detail = client.post(**{"path": "/predict", **sent}).json["detail"]
    assert detail.isprintable() and len(detail) < 400, detail
    if isinstance(sent.get("data"), bytes) and "content_type" not in sent:
        assert "\\x" not in detail, detail


CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
NAVIGATES = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SENDERS = [
    pytest.param({"Accept": CHROME, **NAVIGATES}, "text/html", id="browser, https"),
    pytest.param({"Accept": CHROME}, "text/html", id="browser, http"),
    pytest.param({"Accept": "text/html, application/xhtml+xml, image/jxr, */*"}, "text/html", id="old browser"),
    pytest.param({"Accept": "text/html"}, "text/html", id="nothing but HTML"),
    pytest.param({"Accept": CHROME, "Sec-Fetch-Mode": "cors"}, "application/json", id="fetch with a page's Accept"),
    pytest.param({"Accept": "*/*", **NAVIGATES}, "application/json", id="no HTML"),
    pytest.param(
        {"Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}, "application/json", id="Java's default"
    ),
    pytest.param({"Accept": "text/html, */*; q=0.01"}, "application/json", id="jQuery's html"),
    pytest.param({"Accept": "text/html;q=0.9, application/json"}, "application/json", id="JSON rather than HTML"),
    pytest.param({"Accept": "application/xhtml+xml, text/html"}, "application/json", id="XHTML first"),
    pytest.param({"Accept": "application/json, text/plain, */*"}, "application/json", id="axios"),
    pytest.param({"Accept": "text/*"}, "application/json", id="any text"),
    pytest.param({"Accept": "text/plain"}, "application/json", id="plain text"),
    pytest.param({"Accept": "text"}, "application/json", id="no media type"),
    pytest.param({"Accept": ""}, "application/json", id="empty"),
]


@pytest.mark.parametrize(("headers", "media_type"), SENDERS)
def test_only_a_browsers_form_is_answered_with_a_page(client, png, headers, media_type):
    for path, body, status in (("/", png, 200), ("/predict", png, 200), ("/predict", b"", 400)):
        reply = client.post(path, data=body, content_type="image/png", headers=headers)
        wanted = PROBLEM_TYPE if (media_type, status) == ("application/json", 400) else media_type
        assert (reply.status_code, reply.mimetype) == (status, wanted)


@pytest.mark.parametrize("path", ["/", "/predict", "/predict/batch"])
@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("top=3", "the query parameter 'top' is not understood; the only one is probabilities=1"),
        ("probabilities=1&Probabilities=1", "'Probabilities' is not understood"),
        ("probabilities=true", "the query has probabilities='true'; use probabilities=1 or =0"),
        ("probabilities", "the query has probabilities=''"),
        ("probabilities=0&probabilities=1", "the query has probabilities='0,1'"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(client, png, path, query, says):
    reply = client.post(f"{path}?{query}", data={"image": (io.BytesIO(png), "a.png")})
    assert (reply.status_code, reply.json["title"]) == (400, "Unknown parameter")
    assert says in reply.json["detail"]


def test_a_compressed_body_is_refused_by_its_header(client, png):
    reply = client.post("/predict", data=png, content_type="image/png", headers={"Content-Encoding": "gzip"})
    assert (reply.status_code, reply.json["title"]) == (415, "Unsupported type")
    assert "Content-Encoding 'gzip', which is not undone; send it uncompressed" in reply.json["detail"]


def test_the_vector_can_be_declined(client, png):
    for query in ("", "?", "?probabilities=0"):
        assert "probabilities" not in client.post(f"/predict{query}", data=png, content_type="image/png").json


# Refusals while the queue is full


@pytest.mark.parametrize(
    ("path", "data", "content_type"),
    [
        ("/predict", b"no picture", "image/png"),
        ("/predict", bytes(70_000), "image/png"),
        ("/predict/batch", b"--x--", "multipart/form-data; boundary=x"),
    ],
    ids=["short", "long", "batch"],
)
def test_a_full_queue_refuses_before_anything_is_decoded(client, monkeypatch, path, data, content_type):
    monkeypatch.setattr(Classifier, "has_room", lambda self: False)
    monkeypatch.setattr(Classifier, "queue_full", lambda self: QueueFull("full", 7))
    reply = client.post(path, data=data, content_type=content_type)
    assert (reply.status_code, reply.headers["Retry-After"], reply.json["detail"]) == (503, "7", "full")
    assert reply.headers[schema.REQUEST_ORDINAL] == "0"
    assert reply.mimetype == PROBLEM_TYPE
    assert {"Server-Timing", schema.INSTANCE_ID, schema.MODEL_VERSION} <= set(reply.headers.keys())


def test_a_full_queue_does_not_hide_that_the_token_is_missing(engine, monkeypatch):
    client = create_app(Classifier(BUNDLE, engine, Settings()), Settings(api_token="s3cret")).test_client()
    monkeypatch.setattr(Classifier, "has_room", lambda self: False)
    assert client.post("/predict", data=b"no picture", content_type="image/png").status_code == 401


def test_body_shorter_than_declared_is_a_client_error(client, png):
    longer = {"CONTENT_LENGTH": str(len(png) + 1)}
    reply = client.post("/predict", data=png, content_type="image/png", environ_overrides=longer)
    assert (reply.status_code, reply.mimetype) == (400, PROBLEM_TYPE)


# Headers for browsers and caches


FORMS = {
    ("POST", "/"),
    ("POST", schema.PREDICT),
    ("OPTIONS", schema.PREDICT),
    ("POST", schema.FEEDBACK),
    ("OPTIONS", schema.FEEDBACK),
}  # where Accept decides between a page and JSON
STATIC = "/static/page.css"
PATHS = [*sorted(ROUTES), STATIC, "/static/nothing", "/nowhere", "/../etc/passwd"]
METHODS = ["GET", "HEAD", "POST", "OPTIONS", "DELETE"]
PNG = picture_bytes()
BODIES = (b"", PNG, b"text")


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("method", METHODS)
def test_every_answer_of_every_route_has_the_headers(client, method, accept):
    """Pages, predictions, refusals, problems, and what Flask answers by itself."""
    statuses = set()
    for path, body in product(PATHS, BODIES if method == "POST" else [b""]):
        given = {"data": body, "content_type": "image/png", "headers": {"Accept": accept}}
        with client.open(path, method=method, **given) as reply:
            statuses.add(reply.status_code)
            assert_guarded(reply, method, path)
    wanted = {"POST": {200, 400, 404, 405, 415}, "DELETE": {404, 405}, "OPTIONS": {200, 404}}
    assert statuses == wanted.get(method, {200, 404, 405})


def assert_guarded(reply, method: str, path: str) -> None:
    """Fails where a header for browsers or caches is missing, is there twice, or is laxer."""
    headers, is_file = reply.headers, path == STATIC and method in ("GET", "HEAD")
    assert headers.getlist("X-Content-Type-Options") == ["nosniff"], path
    assert headers.getlist("Referrer-Policy") == ["no-referrer"], path
    assert headers.getlist("Content-Security-Policy") == [CONTENT_POLICY], path
    assert headers.getlist("Cache-Control") == ["no-cache" if is_file else "no-store"], path
    assert headers.getlist("Vary") == ["Accept, Sec-Fetch-Mode"] * ((method, path) in FORMS), path


def test_refusals_of_every_kind_have_the_headers(engine, monkeypatch):
    closed = create_app(Classifier(BUNDLE, engine, Settings()), Settings(api_token="s3cret")).test_client()
    opened = create_app(Classifier(BUNDLE, engine, Settings()), Settings()).test_client()
    monkeypatch.setattr(Classifier, "has_room", lambda self: False)
    for client, status in ((closed, 401), (opened, 503)):
        for accept in ("text/html", "application/json"):
            reply = client.post("/predict", data=PNG, content_type="image/png", headers={"Accept": accept})
            assert reply.status_code == status
            assert_guarded(reply, "POST", "/predict")


def test_the_policy_for_content_names_all_and_allows_little():
    rules = dict(rule.split(" ", 1) for rule in CONTENT_POLICY.split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }


# Status behind the token


@pytest.mark.parametrize("path", ["/version", "/metrics"])
def test_status_can_be_closed_to_those_without_the_token(engine, path):
    settings = Settings(api_token="s3cret", protect_status=True)
    client = create_app(Classifier(BUNDLE, engine, settings), settings).test_client()
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert [client.get(open_path).status_code for open_path in ("/healthz", "/readyz", "/")] == [200] * 3


# Pages of other origins

HERE, THERE = "https://app.example", "https://elsewhere.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def cors_client(engine, *allowed, **more):
    settings = Settings(allowed_origins=allowed, **more)
    return create_app(Classifier(BUNDLE, engine, settings), settings).test_client()


def cors(reply) -> dict[str, str]:
    """Its headers on other origins, all of them."""
    prefix = "Access-Control-"
    return {name.removeprefix(prefix): value for name, value in reply.headers.items() if name.startswith(prefix)}


def test_no_other_origin_is_allowed_by_default(client, png):
    for method, body in (("POST", png), ("OPTIONS", b"")):
        reply = client.open("/predict", method=method, data=body, headers={"Origin": HERE, **PREFLIGHT})
        assert (reply.status_code, cors(reply)) == (200, {})
        assert "Origin" not in reply.headers["Vary"]


@pytest.mark.parametrize("allowed", [(HERE,), (THERE, HERE), ("*",)], ids=str)
def test_a_preflight_of_an_allowed_origin_is_answered(engine, allowed):
    """Also where predictions and status need a token, which a preflight never carries."""
    client = cors_client(engine, *allowed, api_token="s3cret", protect_status=True)
    for path in ("/predict", "/predict/batch", "/version"):
        reply = client.options(path, headers={"Origin": HERE, **PREFLIGHT})
        assert reply.status_code == 200
        assert cors(reply) == {
            "Allow-Origin": HERE,
            "Allow-Methods": "GET, POST",
            "Allow-Headers": "Authorization, Content-Type",
            "Max-Age": "600",
        }


def test_every_answer_can_be_read_by_an_allowed_origin(engine, png, monkeypatch):
    client = cors_client(engine, HERE)
    kinds = {"good": (png, 200), "refused": (b"x", 415), "full": (png, 503)}
    for name, (body, status) in kinds.items():
        if name == "full":
            monkeypatch.setattr(Classifier, "has_room", lambda self: False)
        for origin, allowed in ((HERE, True), (THERE, False), ("null", False), (f"{HERE}.evil", False), (None, False)):
            headers = {"Origin": origin} if origin else {}
            reply = client.post("/predict", data=body, content_type="image/png", headers=headers)
            assert reply.status_code == status
            assert "Origin" in reply.headers.getlist("Vary")
            assert cors(reply).get("Allow-Origin") == (origin if allowed else None)
            assert ("Server-Timing" in cors(reply).get("Expose-Headers", "")) == allowed
