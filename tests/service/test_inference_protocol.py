"""/v2 of the real service: Triton's own client, the management calls, tokens, and what is refused."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from service import schema
from service.store_layout import version_dir
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.running_service import Server, ready_service

pytestmark = pytest.mark.integration

NAME = "tiny"
TOKEN, MANAGE = "predictions-0123", "management-01234"
AUTHORISED, MANAGING = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, MANAGE))
CLASSES = ["dark", "middle", "bright"]
GREYS = [0, 255, 128]


class Service:
    """The service, its store, and Triton's client for it."""

    def __init__(self, server: Server, root: Path, versions: dict[str, str]):
        self.server, self.root, self.versions = server, root, versions
        self.triton = InferenceServerClient(f"127.0.0.1:{server.port}")

    def load(self, name: str = NAME, token: str = MANAGE, **parameters):
        body = json.dumps({"parameters": parameters} if parameters else {})
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.server.post(f"/v2/repository/models/{name}/load", body.encode(), schema.JSON_TYPE, **headers)

    def infer(self, document, name: str = NAME, **headers):
        return self.server.post(f"/v2/models/{name}/infer", json.dumps(document).encode(), **AUTHORISED, **headers)

    def served(self) -> dict:
        return self.server.get("/version").json["store"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v2")
    root = folder / "store"
    bundles = {
        "first": write_bundle(folder / "first", CLASSES),
        "second": write_bundle(folder / "second", CLASSES, weight=25),
        "broken": write_bundle(folder / "broken", CLASSES, weight=30),
    }
    versions = {key: add_version(root, NAME, bundle) for key, bundle in bundles.items()}
    with (root / version_dir(NAME, versions["broken"]) / "float32.onnx").open("ab") as file:
        file.write(b" ")
    rows = write_bundle(folder / "rows", ["small", "large"], features=["length", "width"], name="rows")
    versions["rows"] = add_version(root, "rows", rows)
    for alias, version in (("prod", "first"), ("gamma", "second")):
        point(root, NAME, alias, versions[version])
    point(root, "rows", "prod", versions["rows"])
    env = {"MODEL_STORE": str(root), "MODEL": f"{NAME}@prod", "MODEL_POLL_S": "0"}
    with ready_service(folder / "log", API_TOKEN=TOKEN, MANAGE_TOKEN=MANAGE, **env) as server:
        yield Service(server, root, versions)


@pytest.fixture(autouse=True)
def first(service):
    """Each test begins with the first version."""
    if service.served() != {"name": NAME, "alias": "prod", "version": service.versions["first"], "number": 1}:
        assert service.load(alias="prod").status == 200


def images() -> InferInput:
    tensor = InferInput("image", [len(GREYS)], "BYTES")
    tensor.set_data_from_numpy(np.array([one_coloured(grey) for grey in GREYS], dtype=np.object_))
    return tensor


# Triton's client, which adds to the headers that it is given


def test_tritons_client_finds_server_and_model(service):
    triton = service.triton
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready(NAME)
    assert triton.is_model_ready(NAME, service.versions["first"])
    assert not triton.is_model_ready("other") and not triton.is_model_ready(NAME, "7")
    assert triton.get_server_metadata()["extensions"] == ["model_repository", "binary_tensor_data"]
    assert triton.get_model_metadata(NAME) == {
        "name": NAME,
        "versions": [service.versions["first"]],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("binary", [True, False, None])
def test_tritons_client_predicts_as_predict_does(service, binary):
    wanted = ("probabilities", "label")
    outputs = None if binary is None else [InferRequestedOutput(name, binary_data=binary) for name in wanted]
    result = service.triton.infer(NAME, [images()], outputs=outputs, request_id="7", headers=dict(AUTHORISED))
    labels = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("label")]
    assert labels == ["dark", "bright", "middle"]
    found = result.as_numpy("probabilities")
    assert found.shape == (3, 3) and found.dtype == np.float32
    answer = result.get_response()
    assert (answer["id"], answer["model_name"]) == ("7", NAME)
    assert answer["model_version"] == service.versions["first"]
    for grey, row in zip(GREYS, found, strict=True):
        headers = AUTHORISED | {"Content-Type": "image/png"}
        reply = service.server.ask("POST", "/predict?probabilities=1", one_coloured(grey), headers)
        assert reply.json["probabilities"] == pytest.approx(row.tolist(), abs=1e-6)


def test_tritons_client_loads_another_version_and_rows(service):
    triton, rows = service.triton, np.array([[0, 1], [9, 9]], np.float32)
    triton.load_model(f"{NAME}@gamma", headers=dict(MANAGING))
    assert service.served()["version"] == service.versions["second"]
    triton.load_model("rows@prod", headers=dict(MANAGING))
    assert triton.get_model_metadata("rows")["inputs"][0]["shape"] == [-1, 2]
    tensor = InferInput("features", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    result = triton.infer("rows", [tensor], headers=dict(AUTHORISED))
    assert result.as_numpy("label").tolist() == [b"small", b"large"]
    for shape in ([2, 1], [1, 1], [2]):  # a row has two values
        narrow = {"name": "features", "datatype": "FP32", "shape": shape, "data": [1.0, 2.0]}
        headers = AUTHORISED | {"Content-Type": "application/json"}
        reply = service.server.ask("POST", "/v2/models/rows/infer", json.dumps({"inputs": [narrow]}).encode(), headers)
        assert reply.status == 400 and f"the input's shape is {shape}; send " in reply.json["detail"]
    index = triton.get_model_repository_index(headers=dict(MANAGING))
    assert {(each["name"], each["version"]) for each in index if each["state"] == "READY"} == {
        ("rows", service.versions["rows"])
    }
    assert len(index) == len(service.versions)


def test_tritons_client_shows_why_a_call_is_refused(service):
    with pytest.raises(InferenceServerException, match="a process serves one model") as unloading:
        service.triton.unload_model(NAME, headers=dict(MANAGING))
    with pytest.raises(InferenceServerException, match="has sha256") as loading:
        service.triton.load_model(f"{NAME}@{service.versions['broken']}", headers=dict(MANAGING))
    assert (unloading.value.status(), loading.value.status()) == ("409", "422")
    assert service.served()["version"] == service.versions["first"]


# The three calls of the project's beginnings


def test_reload_model_reads_the_followed_alias_again(service):
    point(service.root, "moved", "prod", add_version_of(service, "first", "moved"))
    assert service.load("moved").status == 200
    point(service.root, "moved", "prod", moved := add_version_of(service, "second", "moved"))
    assert service.served()["number"] == 1
    reply = service.load("moved")
    assert reply.json["store"] == {"name": "moved", "alias": "prod", "version": moved, "number": 2}


def add_version_of(service, version: str, name: str) -> str:
    return add_version(service.root, name, service.root / version_dir(NAME, service.versions[version]))


@pytest.mark.parametrize("by", ["alias", "version"])
def test_change_model_serves_what_is_named(service, by):
    switches = service.server.get("/version").json["switches"]
    version = service.versions["second"]
    reply = service.load(**{by: "gamma" if by == "alias" else version})
    assert reply.status == 200 and reply.json["state"] == "READY" and reply.json["version"] == version
    assert reply.headers[schema.MODEL_VERSION] == reply.json["model"]["version"]
    now = service.server.get("/version").json
    assert now["store"]["version"] == version and now["switches"] == switches + 1


def test_predict_single_takes_json_too(service):
    encoded = json.loads(
        Path(service.root / version_dir(NAME, service.versions["first"]) / "self_test.json").read_bytes()
    )
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": encoded["inputs"][1:]}
    reply = service.infer({"inputs": [tensor], "outputs": [{"name": "label"}]})
    assert reply.json == {
        "model_name": NAME,
        "model_version": service.versions["first"],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["bright"]}],
    }


# Refusals


@pytest.mark.parametrize(
    ("name", "parameters", "status", "detail"),
    [
        (NAME, {"alias": "beta"}, 404, "it has the aliases gamma, prod"),
        (NAME, {"version": "0123456789ab"}, 404, "has no version 0123456789ab"),
        (NAME, {"version": "../../../etc"}, 404, "is no version"),
        (NAME, {"version": ""}, 400, "version is '', which is none"),
        (NAME, {"alias": "../prod"}, 400, "is no name of a"),
        ("%2e%2e", {}, 400, "is no name of a model"),
        ("..%2f..", {}, 404, "there is no"),
        ("other", {}, 404, "has no other@prod; it has "),
        (NAME, {"alias": "prod", "version": "0123456789ab"}, 400, "or neither"),
        (NAME, {"alias": 7}, 400, "whose value is no text"),
        (NAME, {"config": "{}"}, 400, "parameters is {'config': '{}'}"),
    ],
)
def test_a_load_that_cannot_be_is_refused_in_words(service, name, parameters, status, detail):
    reply = service.load(name, **parameters)
    assert reply.status == status
    assert detail in reply.json["detail"]
    assert reply.json["error"] == reply.json["detail"]
    assert service.served()["version"] == service.versions["first"]


GOOD = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}


@pytest.mark.parametrize(
    ("document", "status", "detail"),
    [
        ([], 400, "send a JSON object with inputs"),
        ({}, 400, "a list of one tensor, image, BYTES [n]"),
        ({"inputs": [GOOD, GOOD]}, 400, "a list of one tensor"),
        ({"inputs": [GOOD | {"name": "x"}]}, 400, "the input's name is 'x'"),
        ({"inputs": [GOOD | {"datatype": "FP32"}]}, 400, "the input's datatype is 'FP32'"),
        ({"inputs": [GOOD | {"shape": [0]}]}, 400, "the input's shape is [0]"),
        ({"inputs": [GOOD | {"shape": [1, 2]}]}, 400, "the input's shape is [1, 2]"),
        ({"inputs": [GOOD | {"shape": [65]}]}, 413, "send at most 64"),
        ({"inputs": [GOOD | {"shape": [2]}]}, 400, "the input has 1 values"),
        ({"inputs": [GOOD | {"data": "x"}]}, 400, "the input's data is 'x'"),
        ({"inputs": [{**GOOD, "data": [7]}]}, 400, "image 1: "),
        ({"inputs": [{key: GOOD[key] for key in ("name", "datatype", "shape")}]}, 400, "the input has no data"),
        ({"inputs": [GOOD]}, 415, "image 1: "),
        ({"inputs": [GOOD], "id": 7}, 400, "id is 7"),
        ({"inputs": [GOOD], "outputs": [{"name": "x"}]}, 400, "send a list of probabilities, label"),
        (
            {"inputs": [GOOD], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            *(400, "has classification, which is not done"),
        ),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_in_words(service, document, status, detail):
    reply = service.infer(document)
    assert (reply.status, reply.headers["Content-Type"]) == (status, schema.PROBLEM_TYPE), reply.json
    assert detail in reply.json["detail"]


@pytest.mark.parametrize(
    ("binary", "size", "detail"),
    [
        (struct.pack("<I", 9) + b"x", 5, "end within an element"),
        (b"xyz", 3, "end within an element"),
        (b"", 5, "binary_data_size is 5, and 0 bytes follow"),
        (b"x" * 9, 5, "binary_data_size is 5, and 9 bytes follow"),
        (struct.pack("<I", 0) * 2**20, 2**22, "more than the 1 elements that its shape says"),
    ],
)
def test_a_binary_part_has_to_be_whole(service, binary, size, detail):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = AUTHORISED | {"Inference-Header-Content-Length": str(len(text))}
    reply = service.server.ask("POST", f"/v2/models/{NAME}/infer", text + binary, headers)
    assert reply.status == 400 and detail in reply.json["detail"]


@pytest.mark.parametrize("length", ["-1", "x", "99999", "1"])
def test_a_wrong_length_of_the_json_is_refused(service, length):
    headers = AUTHORISED | {"Inference-Header-Content-Length": length}
    assert service.server.ask("POST", f"/v2/models/{NAME}/infer", b"{}", headers).status == 400


def test_json_of_many_values_is_not_parsed(service):
    reply = service.infer({"inputs": [GOOD | {"data": [0] * 1_000_000}]})
    assert reply.status == 413


# Tokens


@pytest.mark.parametrize("token", ["", TOKEN, "x" * 16])
@pytest.mark.parametrize("path", ["index", f"models/{NAME}/load", f"models/{NAME}/unload"])
def test_management_needs_its_own_token(service, path, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    reply = service.server.ask("POST", f"/v2/repository/{path}", b"{}", headers)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert service.served()["version"] == service.versions["first"]


@pytest.mark.parametrize("headers", [{}, MANAGING])
def test_predictions_need_theirs(service, headers):
    assert service.server.ask("POST", f"/v2/models/{NAME}/infer", b"{}", headers).status == 401


def test_without_a_management_token_there_is_no_v2(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", CLASSES)
    with ready_service(tmp_path / "log", MODEL_DIR=str(bundle)) as server:
        gets = ("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{NAME}", f"/v2/models/{NAME}/ready")
        posts = (f"models/{NAME}/infer", "repository/index", f"repository/models/{NAME}/load")
        assert {server.get(path).status for path in gets} == {404}
        assert {server.post(f"/v2/{path}", b"{}", schema.JSON_TYPE).status for path in posts} == {404}


def test_routes_with_names_are_counted_by_their_rules(service):
    service.infer({})
    service.infer({}, name="whatever")
    text = service.server.get("/metrics").body.decode()
    assert 'route="/v2/models/<name>/infer"' in text and "whatever" not in text
