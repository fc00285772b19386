"""The service as it is deployed: real requests, the shipped model."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from service import schema
from service.app import WRONG_TOKEN_DELAY_S
from service.system import processor
from service.web.asgi import OTHER_THREADS
from tests.conftest import picture_bytes
from tests.helpers.running_service import (
    ROOT,
    metrics_without_instance,
    multipart,
    png_of,
    ready_service,
    started_service,
)

pytestmark = pytest.mark.integration

JSON = "application/json"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
IDENTITY = (schema.INSTANCE_ID, schema.INSTANCE_STARTED, schema.REQUEST_ORDINAL, schema.MODEL_VERSION)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("service") / "log", GIT_SHA="abc123", DEPLOYMENT="<a test>") as server:
        yield server


def as_json(value) -> bytes:
    return json.dumps(value).encode()


def as_base64(data: bytes) -> bytes:
    return as_json({"image": base64.b64encode(data).decode()})


def as_lists(data: bytes) -> bytes:
    return as_json({"img": np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tolist()})


def noise_png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def timings(reply) -> dict[str, float]:
    parts = (part.split(";dur=") for part in reply.headers[schema.SERVER_TIMING].split(", "))
    return {name: float(ms) for name, ms in parts}


# Answers


def test_an_answer_has_the_shape_of_the_contract(server, png):
    answer = server.post("/predict", png, "image/png").json
    assert list(answer) == ["id", "label", "probability", "top", "model"]
    assert answer["top"][0] == {key: answer[key] for key in ("id", "label", "probability")}
    assert len(answer["top"]) == schema.TOP_K
    assert [e["probability"] for e in answer["top"]] == sorted((e["probability"] for e in answer["top"]), reverse=True)
    assert set(answer["model"]) == {"name", "version", "engine"}


def test_the_full_vector_comes_when_asked_for(server, png):
    answer = server.post("/predict?probabilities=1", png, "image/png").json
    assert len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert answer["probabilities"][answer["id"]] == answer["probability"] == max(answer["probabilities"])


def test_every_way_to_send_an_image_gives_the_same_answer(server, png):
    forms = {
        "raw": (png, "image/png"),
        "raw, other image type": (png, "image/jpeg"),
        "raw, bytes": (png, "application/octet-stream"),
        "raw, untyped": (png, None),
        "multipart": multipart(("image", png, "a.png")),
        "multipart among others": multipart(("note", b"hello"), ("image", png, "a.txt"), ("other", b"x", "b")),
        "base64": (as_base64(png), JSON),
        "lists": (as_lists(png), f"{JSON}; charset=utf-8"),
    }
    replies = {
        (path, form): server.post(f"{path}?probabilities=1", *sent)
        for path in ("/", "/predict")
        for form, sent in forms.items()
    }
    assert {key: reply.status for key, reply in replies.items()} == dict.fromkeys(replies, 200)
    assert len({reply.body for reply in replies.values()}) == 1


def test_a_chunked_body_is_read(server, png):
    reply = server.ask("POST", "/predict", iter([png[:100], png[100:]]), {"Content-Type": "image/png"})
    assert reply.body == server.post("/predict", png, "image/png").body


def test_a_batch_answers_each_image_in_order(server):
    pictures = [noise_png(seed) for seed in range(schema.MAX_BATCH_IMAGES)]
    reply = server.post_form(
        "/predict/batch?probabilities=1", *(("image", p, f"{i}.png") for i, p in enumerate(pictures))
    )
    assert reply.status == 200
    assert set(reply.json) == {"predictions", "model"}
    alone = [server.post("/predict?probabilities=1", p, "image/png").json for p in pictures[:5]]
    for together, single in zip(reply.json["predictions"], alone, strict=False):
        assert together["id"] == single["id"]
        assert together["probabilities"] == pytest.approx(single["probabilities"], abs=1e-5)
    assert len(reply.json["predictions"]) == len(pictures)


@pytest.mark.parametrize(
    "kind", ["RGB-PNG", "RGBA-PNG", "P-GIF", "L-PNG", "LA-PNG", "1-PNG", "CMYK-JPEG", "RGB-WEBP", "RGB-BMP"]
)
@pytest.mark.parametrize("size", [(32, 32), (1600, 1200)], ids=str)
def test_every_mode_and_size_is_answered(server, kind, size):
    mode, fmt = kind.split("-")
    assert server.post("/predict", picture_bytes(mode, size, fmt), "image/png").status == 200


def test_many_clients_at_once_each_get_their_own_answer(server):
    pictures = [noise_png(seed) for seed in range(32)]

    def ask(picture):
        return server.post("/predict?probabilities=1", picture, "image/png").json["probabilities"]

    alone = [ask(p) for p in pictures]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(ask, pictures * 3))
    np.testing.assert_allclose(together, alone * 3, atol=1e-5)
    assert len({tuple(p) for p in alone}) == len(pictures)


@pytest.mark.slow
def test_the_reference_gives_the_same_answers(tmp_path):
    """With ONNX Runtime: two processes of PyTorch may find another precision the fastest, each for itself."""
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(noise_png(seed))
    lines = "".join(f"{path}\n" for path in paths)
    command, env = [sys.executable, "-m", "service.offline_predict"], os.environ | {"ENGINE": "onnx"}
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT, env=env, check=True)
    with ready_service(tmp_path / "log", ENGINE="onnx") as server:
        wanted = [server.post("/predict?probabilities=1", p.read_bytes(), "image/png").json for p in paths]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["id"] for f in found] == [w["id"] for w in wanted]
    np.testing.assert_allclose([f["probabilities"] for f in found], [w["probabilities"] for w in wanted], atol=2e-6)


@pytest.mark.slow
def test_the_reference_names_an_image_that_it_cannot_read(tmp_path):
    (tmp_path / "cat.png").write_text("meow")
    command, env = [sys.executable, "-m", "service.offline_predict"], os.environ | {"ENGINE": "onnx"}
    path = str(tmp_path / "cat.png")
    done = subprocess.run(command, input=path, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith(f"reference: {path}: the 4 bytes are no PNG")
    assert done.stderr.count("\n") == 1


# Headers


def test_every_answer_says_who_gave_it_and_how_long_it_took(server, png):
    replies = [
        server.get("/healthz"),
        server.get("/readyz"),
        server.get("/version"),
        server.get("/nowhere"),
        server.get("/predict"),
        server.post("/predict", b"", "image/png"),
        server.post("/predict", png, "image/png"),
    ]
    version = server.get("/version").json
    for reply in replies:
        assert reply.headers[schema.INSTANCE_ID] == version["instance_id"]
        assert reply.headers[schema.INSTANCE_STARTED] == version["started_at"]
        assert reply.headers[schema.MODEL_VERSION] == version["model"]["version"]
        assert int(reply.headers[schema.REQUEST_ORDINAL]) >= 0
        assert timings(reply)["total"] >= 0
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_the_ordinal_counts_predictions_only(server, png):
    first = server.post("/predict", png, "image/png")
    server.get("/healthz")
    server.get("/nowhere")
    second = server.post_form("/predict/batch", ("image", png, "a.png"))
    assert int(second.headers[schema.REQUEST_ORDINAL]) == int(first.headers[schema.REQUEST_ORDINAL]) + 1


def test_server_timing_has_the_parts_of_a_prediction(server, png):
    found = timings(server.post("/predict", png, "image/png"))
    assert tuple(found) == schema.SERVER_TIMING_PARTS
    assert found["total"] >= found["inference"] > 0


def test_version_says_what_runs(server):
    found = server.get("/version").json
    assert len(found["model"]["sha256"]) == 64
    assert found["model"]["sha256"].startswith(found["model"]["version"])
    assert (found["git_sha"], found["deployment"]) == ("abc123", "<a test>")
    assert {"python", "torch", "numpy", "pillow", "flask", "granian"} <= set(found["versions"])
    assert set(found["startup_ms"]) == {"import", "load", "first_prediction", "total"}
    assert {name: found[name] for name in processor()} == processor()


# Bad input: each is refused with its problem document, and the next good request is answered

PNG = picture_bytes()
TOO_MANY = multipart(*[("image", PNG, f"{i}.png") for i in range(schema.MAX_BATCH_IMAGES + 1)])
ONE, EDGE = multipart(("image", PNG, "a.png"))
DEEP = b'{"img": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
BAD = [
    pytest.param("/predict", b"", None, 400, "the body is empty", id="empty body"),
    pytest.param("/predict", b"", "image/png", 400, "the body is empty", id="empty PNG"),
    pytest.param("/predict", b"", JSON, 400, "JSON body is empty", id="empty JSON"),
    pytest.param("/predict", b"", "multipart/form-data; boundary=x", 400, "the form is empty", id="empty multipart"),
    pytest.param("/predict", PNG[:200], "image/png", 422, "damaged or cut short", id="truncated PNG"),
    pytest.param("/predict", b"hello", "image/png", 415, "begin with 'hello'", id="text as image/png"),
    pytest.param("/predict", *multipart(("image", b"hello", "a.png")), 415, "begin with 'hello'", id="text named .png"),
    pytest.param("/predict", png_of(20_000, 20_000), "image/png", 422, "20000 x 20000 pixels", id="bomb"),
    pytest.param(
        "/predict", b"x" * 50_000_000, "image/png", 413, "has 50000000 bytes; send at most 16 MiB", id="50 MB"
    ),
    pytest.param("/predict", PNG, "text/plain", 415, "'text/plain' is not read; send a multipart", id="wrong type"),
    pytest.param("/predict", PNG, "application/x-www-form-urlencoded", 415, "`curl -F image=@FILE`", id="urlencoded"),
    pytest.param("/predict", as_base64(PNG), "text/plain", 415, "Content-Type: application/json", id="JSON as text"),
    pytest.param("/predict", as_base64(PNG), "application/ld+json", 415, "Type: application/json", id="JSON of a kind"),
    pytest.param("/predict", as_base64(PNG), None, 415, "this is JSON", id="JSON untyped"),
    pytest.param("/predict", PNG, JSON, 400, "a PNG file and not JSON; send it with Content-Type: image", id="no JSON"),
    pytest.param("/predict", as_json({"img": [[[9, 9, 9]]], "order": "BGR"}), JSON, 400, "['order']", id="JSON key"),
    pytest.param("/predict?top=3", PNG, "image/png", 400, "parameter 'top' is not understood", id="query"),
    pytest.param("/predict", as_json({"image": "a%b"}), JSON, 422, "it has '%' at character 1", id="broken base64"),
    pytest.param("/predict", as_json({"image": 7}), JSON, 400, "non-empty string", id="base64 number"),
    pytest.param("/predict", as_base64(b"hello"), JSON, 415, "begin with 'hello'", id="base64 of text"),
    pytest.param("/predict", as_json({"img": [[1, 2], [3]]}), JSON, 422, "differ in length", id="ragged lists"),
    pytest.param("/predict", as_json({"img": [[[1, 2]]]}), JSON, 422, "[1, 1, 2]", id="wrong shape"),
    pytest.param("/predict", b'{"img": [[[1, NaN, 3]]]}', JSON, 422, "holds nan", id="NaN"),
    pytest.param("/predict", b'{"img": [[[1, 1e999, 3]]]}', JSON, 422, "holds inf", id="infinite"),
    pytest.param("/predict", as_json({"img": [[[1, 300, 3]]]}), JSON, 422, "holds 300", id="out of range"),
    pytest.param(
        "/predict", as_json({"img": [[[1, True, 3]]]}), JSON, 422, "true or false", id="boolean among numbers"
    ),
    pytest.param("/predict", DEEP, JSON, 400, "not JSON", id="deep JSON"),
    pytest.param("/predict", b"{", JSON, 400, "not JSON", id="broken JSON"),
    pytest.param("/predict", b"\xff\xfe\xfd", JSON, 400, "not JSON", id="binary JSON"),
    pytest.param("/predict", b"[1]", JSON, 400, "list", id="JSON list"),
    pytest.param("/predict", b'{"picture": 1}', JSON, 400, "['picture']", id="JSON without picture"),
    pytest.param("/predict", b'{"image": "", "img": []}', JSON, 400, "send {", id="JSON with both"),
    pytest.param("/predict", *multipart(("photo", PNG, "a.png")), 400, "only parts ['photo']", id="other part"),
    pytest.param(
        "/predict", ONE.replace(b'name="image"; ', b""), EDGE, 400, "only parts ['without a name']", id="no name"
    ),
    pytest.param(
        "/predict", ONE, 'multipart/form-data; boundary="\xe9"', 400, "has nowhere the boundary", id="odd boundary"
    ),
    pytest.param("/predict", *multipart(("image", b"", "")), 400, "choose an image", id="no file chosen"),
    pytest.param("/predict", *multipart(("image", b"", "a.png")), 400, "0 bytes", id="empty file"),
    pytest.param(
        "/predict", PNG, "multipart/form-data; boundary=x", 400, "has nowhere the boundary 'x'", id="no form inside"
    ),
    pytest.param(
        "/predict", ONE, "multipart/form-data", 400, "has no boundary; do not set it yourself", id="no boundary"
    ),
    pytest.param("/predict", ONE, f"{EDGE[:-1]}", 400, "begins with '--edge", id="another boundary"),
    pytest.param("/predict", ONE[:-9], EDGE, 400, f"breaks off after {len(ONE) - 9} bytes", id="form without its end"),
    pytest.param("/predict", ONE[:150], EDGE, 400, "breaks off after 150 bytes", id="form cut in its image"),
    pytest.param("/predict", b"--edge--\r\n", EDGE, 400, "no file in a part 'image'", id="form of no parts"),
    pytest.param("/predict", *multipart(("image", b"abc")), 400, "part 'image' is text", id="text in place of a file"),
    pytest.param("/predict/batch", ONE[:150], EDGE, 400, "breaks off after 150 bytes", id="batch cut in its image"),
    pytest.param("/predict", *multipart(("image", PNG, "a"), ("image", PNG, "b")), 413, "2 parts", id="two parts"),
    pytest.param("/predict", *multipart(("x", b"y" * 10**6)), 413, "over 500 kB of text", id="large form field"),
    pytest.param("/predict/batch", *TOO_MANY, 413, "at most 64", id="65 parts"),
    pytest.param("/predict/batch", PNG, "image/png", 415, "multipart/form-data", id="batch of no parts"),
    pytest.param("/predict/batch", b"", None, 400, "the body is empty", id="empty batch"),
    pytest.param(
        "/predict/batch",
        *multipart(("image", PNG, "a.png"), ("image", PNG[:99], "b.png")),
        422,
        "part 2 ('b.png')",
        id="one bad part",
    ),
    pytest.param("/nowhere", PNG, "image/png", 404, "'/nowhere'", id="unknown route"),
    pytest.param("/predict/", PNG, "image/png", 404, "'/predict/'", id="trailing slash"),
    pytest.param("/healthz", PNG, "image/png", 405, "only GET", id="wrong method"),
]


def check_problem(reply, status, says):
    assert reply.status == status, reply.body[:300]
    assert reply.headers["Content-Type"] == schema.PROBLEM_TYPE
    assert set(reply.json) == {"type", "title", "status", "detail"}
    assert reply.json["status"] == status
    assert says in reply.json["detail"]
    assert len(reply.json["detail"]) <= 500
    assert all(name in reply.headers for name in (*IDENTITY, schema.SERVER_TIMING))


@pytest.mark.parametrize(("path", "body", "kind", "status", "says"), BAD)
def test_bad_input_is_refused_and_the_next_request_is_answered(server, path, body, kind, status, says):
    check_problem(server.post(path, body, kind), status, says)
    assert server.post("/predict", PNG, "image/png").status == 200


def test_a_wrong_method_is_told_the_right_ones(server):
    reply = server.get("/predict")
    check_problem(reply, 405, "'/predict' does not take GET")
    assert reply.headers["Allow"] == "OPTIONS, POST"


def test_a_chunked_body_beyond_the_limit_is_refused(server):
    megabytes = (b"x" * 2**20 for _ in range(50))
    check_problem(server.ask("POST", "/predict", megabytes, {"Content-Type": "image/png"}), 413, "at most 16 MiB")
    assert server.post("/predict", PNG, "image/png").status == 200


def exchange(server, sent: bytes) -> bytes:
    """What comes back when exactly this is sent and nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(65536):
            received += more
    return received


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_a_body_announced_too_large_is_refused_before_it_comes(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(HEAD + b"Content-Length: 50000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert server.post("/predict", PNG, "image/png").status == 200


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 1000\r\n\r\nshort",
        HEAD + b"Content-Length: abc\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnonsense\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        HEAD.replace(b"image/png", b"multipart/form-data; boundary=x")
        + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnonsense\r\n",
    ],
    ids=["short body", "no length", "no chunk", "chunk cut short", "no chunk in a form"],
)
def test_a_body_that_breaks_off_is_the_clients_fault(server, sent):
    assert exchange(server, sent).startswith(b"HTTP/1.1 4")  # a broken chunk is not told from the end of the body
    assert server.post("/predict", PNG, "image/png").status == 200


def test_nothing_of_all_this_was_logged_as_a_failure(server):
    """Runs after the requests above: a traceback or warning in the log is a fault, whatever was answered."""
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "Warning" not in log


# Metrics


def metrics(server) -> dict[str, float]:
    return metrics_without_instance(server.get("/metrics").body.decode())


def test_metrics_count_what_was_answered(server, png):
    before = metrics(server)
    server.post("/predict", png, "image/png")
    server.post_form("/predict/batch", ("image", png, "a.png"), ("image", png, "b.png"))
    after = metrics(server)
    for name, more in {
        'classifier_requests_total{route="/predict",status="200"}': 1,
        'classifier_requests_total{route="/predict/batch",status="200"}': 1,
        "classifier_batch_images_sum": 3,
        "classifier_queue_seconds_count": 2,
    }.items():
        assert after[name] - before.get(name, 0) == more, name
    assert sum(value for name, value in after.items() if name.startswith("classifier_predictions_total")) >= 3


def test_metrics_compare_real_images_with_the_shipped_reference(server, golden_dir):
    """The golden set's brightness, computed here, is what the histograms grow by; their buckets are the gauges'."""
    images = [path.read_bytes() for path in sorted(golden_dir.glob("*.png"))[:24]]
    before = metrics(server)
    parts = [("image", data, f"{number}.png") for number, data in enumerate(images)]
    reply = server.post_form("/predict/batch", *parts)
    after, version = metrics(server), reply.headers[schema.MODEL_VERSION]
    own = f'version="{version}"'
    grown = {name: after[f"classifier_{name}{{{own}}}"] - before.get(f"classifier_{name}{{{own}}}", 0) for name in (
        "brightness_sum", "contrast_sum", "confidence_sum", "confidence_count", "margin_count", "brightness_count"
    )}  # fmt: skip
    greys = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) / 255 for data in images]
    assert grown["brightness_sum"] == pytest.approx(sum(grey.mean() for grey in greys), abs=0.05)
    assert grown["contrast_sum"] == pytest.approx(sum(grey.std() for grey in greys), abs=0.05)
    answers = [each["probability"] for each in reply.json["predictions"]]
    assert grown["confidence_sum"] == pytest.approx(sum(answers), abs=1e-4)
    assert grown["confidence_count"] == grown["margin_count"] == grown["brightness_count"] == len(images)
    for name in ("confidence", "margin", "brightness", "contrast"):
        head = f"classifier_{name}_bucket{{"
        buckets = {each.removeprefix(head) for each in after if each.startswith(head) and "+Inf" not in each}
        gauges = {each.partition("{")[2] for each in after if each.startswith(f"classifier_reference_{name}{{")}
        assert buckets == gauges and len(gauges) > 10
    assert after[f"classifier_reference_images{{{own}}}"] == 10_000


# The token

TOKEN = "s3cret-s3cret-s3cret"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("guarded") / "log", ENGINE="onnx", API_TOKEN=TOKEN) as server:
        yield server


WRONG = ["Bearer wrong", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}\xe9"]
MISSING = [None, "Bearer", f"Basic {TOKEN}", TOKEN]


def post_with(guarded, given: str | None, path: str):
    return guarded.post(path, PNG, "image/png", **({} if given is None else {"Authorization": given}))


@pytest.mark.parametrize("path", ["/", "/predict", "/predict/batch"])
def test_a_post_without_the_token_is_refused(guarded, path):
    with ThreadPoolExecutor(len(MISSING + WRONG)) as pool:  # the answers to wrong ones take a second
        replies = list(pool.map(partial(post_with, guarded, path=path), MISSING + WRONG))
    for number, reply in enumerate(replies):
        check_problem(reply, 401, "is missing" if number < len(MISSING) else "is wrong")
        assert "Authorization: Bearer TOKEN" in reply.json["detail"]
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in reply.body.decode()


def test_a_wrong_token_is_answered_after_a_second_and_counted(guarded):
    """Each waits for its own second, and all of them together: more than there are threads for them."""
    counted = 'classifier_errors_total{kind="Wrong token"}'
    before = metrics(guarded).get(counted, 0)
    count = 4 * OTHER_THREADS
    started = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(post_with, guarded, WRONG[0], "/predict") for _ in range(count)]
        assert guarded.post("/predict", PNG, "image/png", Authorization=f"Bearer {TOKEN}").status == 200
        assert {call.result().status for call in calls} == {401}
    assert time.monotonic() - started >= WRONG_TOKEN_DELAY_S
    assert metrics(guarded)[counted] == before + count


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer {TOKEN}"])
def test_a_post_with_the_token_is_answered(guarded, given):
    assert guarded.post("/predict", PNG, "image/png", Authorization=given).status == 200


def test_a_form_may_carry_the_token_as_a_field(guarded):
    assert guarded.post_form("/predict", ("token", TOKEN.encode()), ("image", PNG, "a.png")).status == 200
    check_problem(guarded.post_form("/predict", ("token", b"no"), ("image", PNG, "a.png")), 401, "is wrong")
    body, kind = multipart(("token", TOKEN.encode()), ("image", PNG, "a.png"))
    assert guarded.post("/predict", body, kind, Authorization="Basic b3BlcmF0b3I6eA==").status == 200  # of a proxy
    assert guarded.post("/predict", body, kind, Authorization="Bearer wrong").status == 401


def test_the_form_asks_for_the_token_where_one_is_needed(guarded, server):
    assert b'name="token"' in guarded.get("/").body
    assert b'name="token"' not in server.get("/").body


def test_what_is_only_read_needs_no_token(guarded):
    assert [guarded.get(path).status for path in ("/healthz", "/readyz", "/version", "/metrics", "/openapi.json")] == [
        200
    ] * 5


# Starting


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"MODEL_DIR": "/nowhere"}, "service: no model at /nowhere: model.json is missing; set MODEL_DIR to a bundle"),
        ({"MAX_QUEUE": "many"}, "service: MAX_QUEUE is 'many'; use a whole number from 1 to 100000"),
    ],
    ids=["no bundle", "bad setting"],
)
def test_what_cannot_start_ends_with_one_clear_line(tmp_path, settings, says):
    with started_service(tmp_path / "log", **settings) as server:
        assert server.process.wait(120) == 1
    log = server.log.read_text()
    assert says in log.splitlines()
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with started_service(tmp_path / "log", ENGINE="onnx", PORT=str(port)) as server:
            assert server.process.wait(120) == 1
    assert f"service: port {port} of 127.0.0.1 cannot be had: Address already in use" in server.log.read_text()


def test_two_services_do_not_share_a_port(tmp_path, server):
    with started_service(tmp_path / "log", ENGINE="onnx", PORT=str(server.port)) as second:
        assert second.process.wait(120) == 1


# Browsers


def test_a_browsers_post_gets_a_page_with_the_answer(server):
    for path in ("/", "/predict"):
        body, kind = multipart(("image", PNG, "a.png"))
        reply = server.post(path, body, kind, **BROWSER)
        label = server.post("/predict", PNG, "image/png").json["label"]
        assert (reply.status, reply.headers.get_content_type()) == (200, "text/html")
        assert label in reply.body.decode()
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"hello", 415), (PNG[:99], 422), (b"x" * 20_000_000, 413)],
    ids=["nothing", "text", "cut short", "large"],
)
def test_browser_post_gets_a_page_with_the_problem_and_status(server, body, status):
    sent, kind = multipart(("image", body, "a.png" if body else ""))
    reply = server.post("/predict", sent, kind, **BROWSER)
    assert (reply.status, reply.headers.get_content_type()) == (status, "text/html")


def test_the_form_is_served_with_its_security_headers(server):
    reply = server.get("/")
    assert (reply.status, reply.headers.get_content_type()) == (200, "text/html")
    assert "img-src 'self' data: blob:" in reply.headers["Content-Security-Policy"]


def test_a_script_that_says_nothing_of_html_gets_json(server):
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json, text/html;q=0.5"}):
        assert server.post("/", PNG, "image/png", **accept).headers.get_content_type() == "application/json"
