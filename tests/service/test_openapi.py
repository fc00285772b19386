"""service/openapi.json: a valid document, held against the app's routes, its constants and its real answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from infra.artifact import deployment_files
from infra.targets import TARGETS
from service import schema
from service.app import create_app
from service.classifier import Classifier
from service.errors import ClientDisconnected, FeedbackProblem, Problem, SwitchProblem
from service.images.image_file import MAX_DECODE_BYTES, WEBP_BYTES
from service.images.preprocess import DARKEST_MAX
from service.settings import ENGINES, Settings
from service.system import INSTRUCTION_SETS
from tests.conftest import ROOT, picture_bytes
from tests.helpers.bundles import write_bundle
from tests.helpers.running_service import Reply, Server, multipart, ready_service

pytestmark = pytest.mark.integration

DOCUMENT = json.loads((ROOT / "service" / "openapi.json").read_text())
COMPONENTS = DOCUMENT["components"]
SCHEMAS = COMPONENTS["schemas"]
PNG = picture_bytes()
ONE, TWO = multipart(("image", PNG, "a.png")), multipart(("image", PNG, "a.png"), ("image", PNG, "b.png"))
BROWSER = {"Accept": "text/html"}
FEATURES = ["length (cm)", 'µ "<b>"']


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with ready_service(tmp_path_factory.mktemp("service") / "log", ENGINE="onnx") as server:
        yield server


@pytest.fixture(scope="module")
def rows_server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("rows")
    write_bundle(folder / "model", ["small", "large"], features=FEATURES)
    with ready_service(folder / "log", ENGINE="onnx", MODEL_DIR=str(folder / "model")) as server:
        yield server


def resolved(node: dict[str, Any], document: dict[str, Any] = DOCUMENT) -> dict[str, Any]:
    """The node itself, or the component that it refers to."""
    if "$ref" not in node:
        return node
    kind, name = node["$ref"].removeprefix("#/components/").split("/")
    return document["components"][kind][name]


def errors(value: Any, value_schema: dict[str, Any], document: dict[str, Any] = DOCUMENT, **strict: Any) -> list[str]:
    """How a value differs from its schema."""
    root = {"components": document["components"], **value_schema, **strict}
    return [error.message for error in Draft202012Validator(root).iter_errors(value)]


def differences(method: str, path: str, reply: Reply, document: dict[str, Any] = DOCUMENT) -> list[str]:
    """How a real answer differs from the document: its status, media type, headers, body, or a field too many."""
    responses = document["paths"][path.partition("?")[0]][method.lower()]["responses"]
    if str(reply.status) not in responses:
        return [f"status {reply.status}"]
    response = resolved(responses[str(reply.status)], document)
    content = response["content"].get(reply.headers.get_content_type())
    if content is None:
        return [f"media type {reply.headers['Content-Type']}"]
    body = reply.json if "json" in reply.headers.get_content_type() else reply.body.decode()
    strict = {"unevaluatedProperties": False} if path != schema.OPENAPI else {}
    found = errors(body, content["schema"], document, **strict)
    for name, header in response["headers"].items():
        value = reply.headers[name]
        described = resolved(header, document)["schema"]
        found += errors(int(value) if described["type"] == "integer" and value else value, described)
    return found


def test_the_document_is_valid_openapi():
    validate(DOCUMENT)


def test_the_service_answers_with_the_file_itself(server):
    reply = server.get(schema.OPENAPI)
    assert reply.headers["Content-Type"] == schema.JSON_TYPE
    assert reply.body == (ROOT / "service" / "openapi.json").read_bytes()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("target", TARGETS)
def test_the_document_is_shipped_to_every_target(target, engine):
    assert "service/openapi.json" in deployment_files(engine=engine, target=target)


def test_the_document_lists_exactly_the_routes_of_the_app():
    settings = Settings(engine="onnx")
    rules = create_app(Classifier.load(settings), settings).url_map.iter_rules()
    routes = {(rule.rule, method.lower()) for rule in rules for method in rule.methods if rule.endpoint != "static"}
    listed = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert listed == {(path, method) for path, method in routes if method not in ("head", "options")}


def test_the_document_has_the_limits_of_the_contract():
    assert COMPONENTS["responses"]["ContentTooLarge"]["description"].startswith(
        f"The body is over {schema.MAX_BODY_BYTES // 2**20} MiB"
    )
    unprocessable = COMPONENTS["responses"]["UnprocessableContent"]["description"]
    for limit in (
        f"{schema.MAX_PIXELS / 1e6:g} million pixels",
        f"{schema.MAX_REQUEST_PIXELS / 1e6:g} million pixels",
        f"{schema.MAX_SIDE_PX} pixels",
        f"{schema.MAX_SCANS} scans",
    ):
        assert limit in unprocessable
    assert f"over {MAX_DECODE_BYTES // 2**20} MiB of memory" in unprocessable
    assert f"WebP of over {MAX_DECODE_BYTES // WEBP_BYTES / 1e6:.1f} million pixels" in unprocessable
    pixels = SCHEMAS["Pixels"]["properties"][schema.PIXELS_KEY]["description"]
    assert f"at most {schema.MAX_PIXEL_LIST_BYTES // 2**20} MiB" in pixels
    batch = COMPONENTS["requestBodies"]["Images"]["content"]["multipart/form-data"]["schema"]
    assert batch["properties"][schema.IMAGE_PART]["maxItems"] == schema.MAX_BATCH_IMAGES
    assert SCHEMAS["Predictions"]["properties"]["predictions"]["maxItems"] == schema.MAX_BATCH_IMAGES
    assert SCHEMAS["Answer"]["properties"]["top"]["maxItems"] == schema.TOP_K


def test_the_document_has_the_image_types_of_the_contract():
    content = COMPONENTS["requestBodies"]["Image"]["content"]
    assert list(content) == ["multipart/form-data", *schema.IMAGE_TYPES, schema.JSON_TYPE]
    assert list(content["multipart/form-data"]["schema"]["properties"]) == [schema.IMAGE_PART]
    assert list(SCHEMAS["Base64Image"]["properties"]) == [schema.IMAGE_PART]


def test_the_document_says_how_an_image_is_read():
    """What tests/service/images/test_preprocess.py and test_image_file.py hold the pixels to."""
    image = COMPONENTS["requestBodies"]["Image"]["description"]
    for meaning in ("orientation", "16 bits", "palettes", "CMYK", "on white", "first frame", "profiles", "end marker"):
        assert meaning in image
    pixels = SCHEMAS["Pixels"]["properties"][schema.PIXELS_KEY]["description"]
    for meaning in ("[height][width][r, g, b], red first", f"at least {DARKEST_MAX}, or all are 0"):
        assert meaning in pixels


def test_every_answer_has_the_headers_of_the_contract():
    names = {schema.INSTANCE_ID, schema.INSTANCE_STARTED, schema.REQUEST_ORDINAL, schema.MODEL_VERSION}
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            for response in map(resolved, operation["responses"].values()):
                assert names | {schema.SERVER_TIMING} <= set(response["headers"]), path


def test_every_post_lists_the_statuses_of_the_contract():
    def statuses(problem: type[Problem]) -> set[str]:
        kinds = [kind for kind in problem.__subclasses__() if kind not in (SwitchProblem, FeedbackProblem)]
        return {str(kind.status) for kind in kinds}.union(*map(statuses, kinds))

    posts = {path: methods["post"] for path, methods in DOCUMENT["paths"].items() if "post" in methods}
    assert len(posts) == 5
    for path, operation in posts.items():
        received_by_nobody = {str(ClientDisconnected.status)}
        own = statuses(FeedbackProblem) if path == schema.FEEDBACK else set()
        assert set(operation["responses"]) == {"200"} | own | statuses(Problem) - received_by_nobody


def test_the_document_knows_every_engine_and_instruction_set():
    version = SCHEMAS["Version"]["properties"]
    assert version["engine"]["enum"] == SCHEMAS["Model"]["properties"]["engine"]["enum"] == list(ENGINES)
    assert version["instruction_sets"]["items"]["enum"] == list(INSTRUCTION_SETS.values())


@pytest.mark.parametrize(
    ("path", "status", "body", "headers"),
    [
        *[
            pytest.param(path, 200, None, {}, id=f"GET {path}")
            for path in DOCUMENT["paths"]
            if "get" in DOCUMENT["paths"][path]
        ],
        pytest.param("/metrics", 200, None, {"Accept": "application/openmetrics-text"}, id="OpenMetrics"),
        *[
            pytest.param(path, status, body, {"Content-Type": media_type, **headers}, id=f"{path} {name} {status}")
            for path in ("/", "/predict", "/predict?probabilities=1", "/predict/batch", "/invocations")
            for name, status, body, media_type, headers in [
                ("form", 200, *ONE, {}),
                ("empty", 400, b"", "multipart/form-data", {}),
                ("HEIC", 415, b"\0\0\0\x18ftypheic", "image/heic", {}),
                ("wrong type", 415, b"x", "text/plain", {}),
                ("damaged", 422, *multipart(("image", PNG[:99], "a.png")), {}),
                ("large", 413, b"x" * (schema.MAX_BODY_BYTES + 1), "image/png", {}),
            ]
        ],
        pytest.param("/predict?top=3", 400, *ONE[:1], {"Content-Type": ONE[1]}, id="query"),
        pytest.param("/predict/batch", 200, TWO[0], {"Content-Type": TWO[1]}, id="batch"),
        pytest.param("/predict", 200, PNG, {"Content-Type": "image/png"}, id="raw"),
        pytest.param("/predict", 200, b'{"img": [[[1, 2, 3]]]}', {"Content-Type": schema.JSON_TYPE}, id="pixels"),
        pytest.param("/", 200, ONE[0], {"Content-Type": ONE[1], **BROWSER}, id="page"),
        pytest.param("/", 422, PNG[:99], {"Content-Type": "image/png", **BROWSER}, id="page of a problem"),
    ],
)
def test_a_real_answer_is_as_the_document_says(server, path, status, body, headers):
    method = "GET" if body is None else "POST"
    reply = server.ask(method, path, body, headers)
    assert reply.status == status, reply.body[:300]
    assert differences(method, path, reply) == []


@pytest.mark.parametrize("page", [False, True], ids=["JSON", "page"])
def test_every_answer_to_feedback_is_as_the_document_says(server, page):
    asked = server.post("/predict", PNG, "image/png")
    said = {"instance": asked.headers[schema.INSTANCE_ID], "ordinal": int(asked.headers[schema.REQUEST_ORDINAL])}
    right, wrong = said | {"label": asked.json["top"][0]["label"]}, said | {"label": asked.json["top"][1]["label"]}
    several = server.post("/predict/batch", TWO[0], TWO[1]).headers[schema.REQUEST_ORDINAL]
    bodies = {
        200: [right, right | {"index": 0}],
        400: [{}, [], right | {"ordinal": "1"}, right | {"more": 1}],
        404: [right | {"ordinal": 10**9}],
        409: [wrong, right | {"instance": "another"}],
        413: [right | {"label": "x" * schema.MAX_FEEDBACK_BYTES}],
        422: [wrong | {"label": "no class"}, right | {"index": 1}, right | {"ordinal": int(several)}],
    }
    for status, body in [(status, body) for status, found in bodies.items() for body in found]:
        headers = {"Content-Type": schema.JSON_TYPE} | (BROWSER if page else {})
        reply = server.ask("POST", schema.FEEDBACK, json.dumps(body).encode(), headers)
        assert (reply.status, differences("POST", schema.FEEDBACK, reply)) == (status, []), body
    reply = server.post(schema.FEEDBACK, PNG, "image/png")
    assert (reply.status, differences("POST", schema.FEEDBACK, reply)) == (415, [])


# A model of rows


def test_the_document_of_rows_is_valid_and_has_the_same_routes(rows_server):
    document = rows_server.get(schema.OPENAPI).json
    validate(document)
    statuses = {
        path: {method: set(operation["responses"]) for method, operation in methods.items()}
        for path, methods in DOCUMENT["paths"].items()
    }
    assert statuses == {
        path: {method: set(operation["responses"]) for method, operation in methods.items()}
        for path, methods in document["paths"].items()
    }
    assert "image" not in json.dumps([document["paths"], document["components"]["schemas"]])


def test_the_document_of_rows_takes_what_the_service_takes(rows_server):
    """Each body is of one of the forms in the document exactly if it is answered."""
    document = rows_server.get(schema.OPENAPI).json
    body_schema = document["components"]["requestBodies"]["Rows"]["content"][schema.JSON_TYPE]["schema"]
    named = dict(zip(FEATURES, (1, 2.5), strict=True))
    good = [[1, 2], named, [[1, 2], [99, -1]], [named, [1, 2]], {"instances": [[1, 2]]}, [[0, 0]] * 64]
    bad = [
        [1],
        [1, 2, 3],
        [1, "2"],
        [1, None],
        {},
        {FEATURES[0]: 1},
        named | {"x": 1},
        [[0, 0]] * 65,
        {"instances": []},
    ]
    assert FEATURES[1] in document["components"]["schemas"]["NamedRow"]["required"]
    assert schema.CSV_TYPE in document["components"]["requestBodies"]["Rows"]["content"]
    assert rows_server.post("/predict", b"1,2", schema.CSV_TYPE).status == 200
    for body in good + bad:
        for path in ("/predict", "/predict/batch"):
            reply = rows_server.post(path, json.dumps(body).encode(), schema.JSON_TYPE)
            assert (reply.status == 200) == (body in good) == (errors(body, body_schema, document) == []), body
            assert differences("POST", path, reply, document) == [], body


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, multipart(("number0", b"1"), ("number1", b"-7"))[0], {"Content-Type": multipart()[1]}),
        (200, multipart(("number0", b"1"), ("number1", b"2"))[0], {"Content-Type": multipart()[1], **BROWSER}),
        (422, multipart(("number0", b"1"))[0], {"Content-Type": multipart()[1], **BROWSER}),
        (415, PNG, {"Content-Type": "image/png"}),
        (400, b"{", {"Content-Type": schema.JSON_TYPE}),
    ],
    ids=["form", "page", "page of a problem", "image", "no JSON"],
)
def test_a_real_answer_to_a_row_is_as_the_document_says(rows_server, status, body, headers):
    document = rows_server.get(schema.OPENAPI).json
    reply = rows_server.ask("POST", "/", body, headers)
    assert reply.status == status
    assert differences("POST", "/", reply, document) == []


def test_the_vector_is_there_when_it_is_asked_for(server):
    """The document does not require what only some answers have."""
    single = server.post("/predict?probabilities=1", PNG, "image/png").json
    assert set(single) == {*SCHEMAS["Answer"]["properties"], *SCHEMAS["Ranked"]["properties"], "model"}


def test_a_refused_token_is_answered_as_the_document_says(tmp_path):
    with ready_service(tmp_path / "log", ENGINE="onnx", API_TOKEN="s3cret-s3cret-s3cret") as guarded:
        reply = guarded.post("/predict", PNG, "image/png")
    assert reply.status == 401
    assert differences("POST", "/predict", reply) == []


def test_a_full_queue_is_answered_as_the_document_says(tmp_path):
    """Also to a page of another origin, which could else not read that it has to wait."""
    origin = "https://a.example"
    settings = {"ENGINE": "onnx", "MAX_QUEUE": "1", "BATCH_MAX": "1", "ALLOWED_ORIGINS": origin}

    def ask(number: int) -> Reply:
        return busy.post("/predict", PNG, "image/png", **({"Origin": origin} if number % 2 else {}))

    with ready_service(tmp_path / "log", **settings) as busy, ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(ask, range(200)))
    assert {reply.status for reply in replies[::2]} == {reply.status for reply in replies[1::2]} == {200, 503}
    assert {reply.headers["Access-Control-Allow-Origin"] for reply in replies[1::2]} == {origin}
    assert [found for reply in replies for found in differences("POST", "/predict", reply)] == []


@pytest.mark.slow
def test_schemathesis_finds_no_fault_in_the_running_service(server, tmp_path):
    """Some 260 generated requests: no 5xx, statuses, types, headers and bodies as documented, bad input refused."""
    find_faults(server, tmp_path, ROOT / "tests" / "service" / "schemathesis.toml")


@pytest.mark.slow
def test_schemathesis_finds_no_fault_in_a_model_of_rows(rows_server, tmp_path):
    """Here what the document allows has to be answered, too."""
    config = (ROOT / "tests" / "service" / "schemathesis.toml").read_text(encoding="utf-8")
    accepting = config.replace("acceptance.enabled = false", "acceptance.enabled = true")
    (tmp_path / "own.toml").write_text(accepting, encoding="utf-8")
    find_faults(rows_server, tmp_path, tmp_path / "own.toml")


def find_faults(server: Server, folder: Path, config: Path) -> None:
    """Fails for whatever schemathesis finds in a running service, by its own document."""
    (folder / "openapi.json").write_bytes(server.get(schema.OPENAPI).body)
    program = str(Path(sys.executable).with_name("schemathesis"))
    options = [
        "--url",
        f"http://127.0.0.1:{server.port}",
        "--max-examples",
        "20",
        "--seed",
        "1",
        "--generation-database",
        "none",
        "--no-color",
    ]
    command = [program, "--config-file", str(config), "run", "openapi.json", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert f"Tested: {sum(map(len, DOCUMENT['paths'].values()))}" in done.stdout
    assert "Traceback" not in server.log.read_text()


# The Open Inference Protocol

V2_BINARY = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}).encode()


@pytest.fixture(scope="module")
def managed_server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("managed")
    write_bundle(folder / "model", ["dark", "bright"])
    with ready_service(folder / "log", MODEL_DIR=str(folder / "model"), MANAGE_TOKEN="0123456789abcdef") as server:
        yield server


def test_the_document_lists_the_routes_of_v2_where_they_are(tmp_path):
    settings = Settings(engine="onnx", model_dir=write_bundle(tmp_path, ["a", "b"]), manage_token="0123456789abcdef")
    app = create_app(settings=settings)
    document = app.test_client().get(schema.OPENAPI).json
    validate(document)
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(schema.V2)]
    templates = {
        (rule.rule.replace("<", "{").replace(">", "}"), next(iter(rule.methods - {"HEAD", "OPTIONS"})))
        for rule in rules
    }
    found = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert {each for each in found if each[0].startswith(schema.V2)} == templates
    assert set(DOCUMENT["paths"]) < set(document["paths"])


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "body"),
    [
        ("GET", "/v2", "/v2", 200, None),
        ("GET", "/v2/health/live", "/v2/health/live", 200, None),
        ("GET", "/v2/health/ready", "/v2/health/ready", 200, None),
        ("GET", "/v2/models/tiny", "/v2/models/{name}", 200, None),
        ("GET", "/v2/models/other", "/v2/models/{name}", 404, None),
        ("GET", "/v2/models/tiny/ready", "/v2/models/{name}/ready", 200, None),
        ("POST", "/v2/models/tiny/infer", "/v2/models/{name}/infer", 422, V2_BINARY),
        ("POST", "/v2/models/tiny/infer", "/v2/models/{name}/infer", 400, b"{}"),
        ("POST", "/v2/repository/index", "/v2/repository/index", 200, b"{}"),
        ("POST", "/v2/repository/models/tiny/load", "/v2/repository/models/{name}/load", 200, b""),
        ("POST", "/v2/repository/models/other/load", "/v2/repository/models/{name}/load", 404, b"{}"),
        ("POST", "/v2/repository/models/tiny/load", "/v2/repository/models/{name}/load", 400, b"[]"),
        ("POST", "/v2/repository/models/tiny/unload", "/v2/repository/models/{name}/unload", 409, b"{}"),
    ],
)
def test_an_answer_of_v2_is_as_the_document_says(managed_server, method, path, route, status, body):
    document = managed_server.get(schema.OPENAPI).json
    reply = managed_server.ask(method, path, body, {"Authorization": "Bearer 0123456789abcdef"})
    assert reply.status == status, reply.body[:300]
    assert differences(method, route, reply, document) == []
