"""POST /feedback: what is counted, for which version, and what is refused with which words."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.errors import FeedbackProblem, SettingsError
from service.feedback.counters import MAX_VERSIONS
from service.feedback.recorder import MALFORMED
from service.schema import MAX_FEEDBACK_BYTES, PROBLEM_TYPE
from service.settings import Settings
from tests.conftest import ROOT
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.running_service import multipart, ready_service

CLASSES = ["dark", "middle", "bright"]
DARK, BRIGHT = one_coloured(0), one_coloured(255)
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"), CLASSES)


@pytest.fixture
def client(bundle) -> FlaskClient:
    return new_client(bundle)


def new_client(bundle, **settings) -> FlaskClient:
    return create_app(settings=Settings.from_env({"MODEL_DIR": str(bundle)} | settings)).test_client()


def predict(client, image=DARK, **headers) -> dict:
    """Instance and ordinal of a prediction."""
    reply = client.post("/predict", data=image, content_type="image/png", headers=headers)
    assert reply.status_code == 200, reply.text
    return named(reply)


def named(reply) -> dict:
    return {"instance": reply.headers["X-Instance-Id"], "ordinal": int(reply.headers["X-Request-Ordinal"])}


def counts(client, name: str = "classifier_feedback_total") -> dict[tuple[str, ...], float]:
    """Values of the labels, but for the instance's, in the order of the labels' names -> count."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        tuple(value for key, value in sorted(sample.labels.items()) if key != "instance"): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def refused(client) -> dict[str, float]:
    return {reason: count for (reason,), count in counts(client, "classifier_feedback_refused_total").items()}


def test_right_and_wrong_are_counted_by_true_class_and_version(client):
    version = client.get("/version").json["model"]["version"]
    right = client.post("/feedback", json=predict(client) | {"label": "dark"})
    wrong = client.post("/feedback", json=predict(client) | {"label": "bright"})
    assert (right.status_code, wrong.status_code) == (200, 200)
    assert right.json == {
        "outcome": "right", "label": "dark", "predicted": "dark", "version": version, "kept": False
    }  # fmt: skip
    assert wrong.json | {"outcome": "wrong", "label": "bright", "predicted": "dark"} == wrong.json
    assert counts(client) == {("dark", "right", version): 1, ("bright", "wrong", version): 1}


def test_no_series_is_there_before_its_first_feedback(client):
    predict(client)
    assert counts(client) == {} and refused(client) == {}


def test_the_same_again_is_answered_alike_and_counted_once(client):
    said = predict(client) | {"label": "middle"}
    first, second = (client.post("/feedback", json=said) for _ in range(2))
    assert (second.status_code, second.json) == (200, first.json)
    assert sum(counts(client).values()) == 1


CLASS_UNKNOWN = "'cat' is no class of the model that answered; use one of: dark, middle, bright"
REFUSALS = [
    pytest.param({"instance": "0a"}, 409, "instance '0a' has answered, and this is", "other_instance", id="instance"),
    pytest.param({"ordinal": 99}, 404, "there is no prediction 99", "unknown", id="unknown"),
    pytest.param({"label": "cat"}, 422, CLASS_UNKNOWN, "label", id="label"),
    pytest.param({"index": 1}, 422, "index is 1; answer 1 has the predictions 0 to 0", "index", id="index"),
    pytest.param({"ordinal": "1"}, 400, "ordinal is '1'; send a whole number from 1", "malformed", id="text"),
    pytest.param({"ordinal": True}, 400, "ordinal is True", "malformed", id="bool"),
    pytest.param({"ordinal": 0}, 400, "ordinal is 0", "malformed", id="zero"),
    pytest.param({"ordinal": 1.5}, 400, "ordinal is 1.5", "malformed", id="fraction"),
    pytest.param({"ordinal": float("inf")}, 400, "ordinal is inf", "malformed", id="infinity"),
    pytest.param({"ordinal": float("nan")}, 400, "ordinal is nan", "malformed", id="nan"),
    pytest.param({"index": -1}, 400, "index is -1", "malformed", id="negative index"),
    pytest.param({"index": None}, 400, "index is None", "malformed", id="no index"),
    pytest.param({"label": ["dark"]}, 400, "label is ['dark']; send it as text", "malformed", id="list"),
    pytest.param({"lable": "dark"}, 400, "the feedback has ['lable'], which is not understood", "malformed", id="key"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "status", "words", "reason"), REFUSALS)
def test_a_refusal_says_what_is_wrong_and_is_counted(client, change, status, words, reason):
    reply = client.post("/feedback", json=predict(client) | {"label": "dark"} | change)
    assert (reply.status_code, reply.mimetype) == (status, PROBLEM_TYPE)
    assert words in reply.json["detail"]
    assert refused(client) == {reason: 1} and counts(client) == {}


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"", "application/json", 400, 'the body is not JSON (Expecting value: line 1 column 1 (char 0)); send {"inst'),
        (b"[1]", "application/json", 400, "the body is [1], which is no object"),
        (b'{"instance": "x"}', "application/json", 400, "the feedback lacks ordinal"),
        (b"[" * 60_000, "application/json", 400, "the body is not JSON"),
        (b'{"ordinal": %s}' % (b"9" * 5000), "application/json", 400, "the body is not JSON"),
        (b" " * (MAX_FEEDBACK_BYTES + 1), "application/json", 413, "send at most 64 KiB of feedback"),
        (b"label=dark", "application/x-www-form-urlencoded", 415, "feedback of type"),
        (b"{}", "image/png", 415, 'send {"instance": "<X-Instance-Id>", "ordinal"'),
        (*multipart(("label", b"dark")), 400, "the feedback lacks instance"),
        (*multipart(("image", DARK, "a.png")), 400, "the feedback has ['image'], which is not understood"),
        (*multipart(("instance", b"a"), ("ordinal", b"\xc2\xb2"), ("label", b"b")), 400, "ordinal is '²'"),
    ],
)
def test_a_body_that_is_no_feedback_is_refused(client, body, kind, status, words):
    reply = client.post("/feedback", data=body, content_type=kind)
    assert (reply.status_code, refused(client)) == (status, {"malformed": 1})
    assert words in reply.json["detail"]


def test_the_contrary_is_refused_and_the_first_stays(client):
    said = predict(client)
    client.post("/feedback", json=said | {"label": "dark"})
    reply = client.post("/feedback", json=said | {"label": "bright"})
    assert (reply.status_code, reply.json["title"]) == (409, "Judged before")
    assert list(counts(client)) == [("dark", "right", client.get("/version").json["model"]["version"])]
    assert refused(client) == {"contrary": 1}


def test_a_forgotten_answer_is_gone_and_a_refused_one_unknown(bundle):
    client = new_client(bundle, FEEDBACK_MEMORY="2")
    first, *others = [predict(client) for _ in range(3)]
    reply = client.post("/feedback", json=first | {"label": "dark"})
    assert (reply.status_code, reply.json["title"]) == (410, "Forgotten")
    assert [client.post("/feedback", json=each | {"label": "dark"}).status_code for each in others] == [200, 200]
    bad = named(client.post("/predict", data=b"no image", content_type="image/png"))
    assert client.post("/feedback", json=bad | {"label": "dark"}).status_code == 404


def test_feedback_is_no_prediction(client):
    said = predict(client)
    assert said["ordinal"] == 1
    assert client.post("/feedback", json=said | {"label": "dark"}).headers["X-Request-Ordinal"] == "1"
    assert predict(client)["ordinal"] == 2


def test_each_image_of_a_batch_can_be_judged(client):
    images = [(io.BytesIO(data), "a.png") for data in (DARK, BRIGHT)]
    said = named(client.post("/predict/batch", data={"image": images}))
    replies = [client.post("/feedback", json=said | {"label": "bright", "index": index}) for index in (0, 1)]
    assert [reply.json["outcome"] for reply in replies] == ["wrong", "right"]
    assert client.post("/feedback", json=said | {"label": "bright"}).status_code == 422


def test_answers_of_every_route_can_be_judged(bundle):
    client = new_client(bundle, MANAGE_TOKEN=TOKEN)
    encoded = base64.b64encode(DARK).decode()
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]}]}
    replies = [
        client.post("/", data={"image": (io.BytesIO(DARK), "a.png")}),
        client.post("/invocations", data=DARK, content_type="image/png"),
        client.post("/predict", json={"img": [[[0, 0, 0]]]}),
        client.post("/v2/models/tiny/infer", json=body),
    ]
    assert [reply.status_code for reply in replies] == [200] * 4
    for reply in replies:
        assert client.post("/feedback", json=named(reply) | {"label": "dark"}).json["outcome"] == "right"


def test_rows_are_judged_as_images_are(tmp_path):
    client = new_client(write_bundle(tmp_path, ["small", "large"], features=["a", "b"]))
    said = named(client.post("/predict", json=[[0, 0], [10, 10]]))
    replies = [client.post("/feedback", json=said | {"label": "small", "index": index}) for index in (0, 1)]
    assert [reply.json["outcome"] for reply in replies] == ["right", "wrong"]


def test_after_a_switch_the_version_that_answered_is_counted(tmp_path):
    root, versions, asked = tmp_path / "store", [], []
    for number in range(MAX_VERSIONS + 2):
        classes = [*CLASSES, f"new{number}"] if number else CLASSES
        point(
            root,
            "tiny",
            "prod",
            add_version(root, "tiny", write_bundle(tmp_path / f"{number}", classes, weight=20 + number)),
        )
        if not number:
            env = {"MODEL_STORE": str(root), "MODEL": "tiny@prod", "MODEL_POLL_S": "0"}
            app = create_app(settings=Settings.from_env(env))
            client = app.test_client()
        app.extensions["model_switcher"].look()
        versions.append(client.get("/version").json["model"]["version"])
        asked.append(predict(client))
    assert len(set(versions)) == MAX_VERSIONS + 2
    assert client.post("/feedback", json=asked[0] | {"label": "new1"}).status_code == 422  # which it did not know
    for said in asked:
        assert client.post("/feedback", json=said | {"label": "dark"}).json["outcome"] == "right"
    assert list(counts(client)) == [("dark", "right", version) for version in versions[-MAX_VERSIONS:]]


@pytest.mark.parametrize("way", ["header", "field"])
def test_feedback_needs_the_token(bundle, way):
    client = new_client(bundle, API_TOKEN=TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    said = predict(client, **bearer) | {"label": "dark"}
    assert client.post("/feedback", json=said).status_code == 401
    assert client.post("/feedback", json=said, headers={"Authorization": "Bearer wrong"}).status_code == 401
    if way == "header":
        assert client.post("/feedback", json=said, headers=bearer).status_code == 200
    else:
        fields = {name: str(value) for name, value in said.items()}
        assert client.post("/feedback", data=fields, content_type="multipart/form-data").status_code == 401
        fields["token"] = TOKEN
        assert client.post("/feedback", data=fields, content_type="multipart/form-data").status_code == 200
    assert sum(counts(client).values()) == 1


def test_without_a_memory_there_is_nothing_to_judge(bundle):
    client = new_client(bundle, FEEDBACK_MEMORY="0")
    reply = client.post("/feedback", json=predict(client) | {"label": "dark"})
    assert (reply.status_code, reply.json["title"]) == (410, "Forgotten")


# KEEP_IMAGES


def test_images_are_kept_by_their_true_class_once_judged(bundle, tmp_path):
    client = new_client(bundle, KEEP_IMAGES=str(tmp_path / "kept"))
    predict(client)
    batch = named(client.post("/predict/batch", data={"image": [(io.BytesIO(d), "a") for d in (DARK, BRIGHT)]}))
    assert not list((tmp_path / "kept").iterdir())
    replies = [
        client.post("/feedback", json=batch | {"label": "bright", "index": 1}),
        client.post("/feedback", json=batch | {"label": "middle", "index": 0}),
        client.post("/feedback", json=batch | {"label": "middle", "index": 0}),
    ]
    assert [reply.json["kept"] for reply in replies] == [True] * 3
    files = {path.parent.name: path.read_bytes() for path in (tmp_path / "kept").glob("*/*")}
    assert files == {"bright": BRIGHT, "middle": DARK}


def test_an_image_in_base64_is_kept_too(bundle, tmp_path):
    client = new_client(bundle, KEEP_IMAGES=str(tmp_path / "kept"))
    said = named(client.post("/predict", json={"image": base64.b64encode(DARK).decode()}))
    assert client.post("/feedback", json=said | {"label": "bright"}).json["kept"] is True
    assert [path.read_bytes() for path in (tmp_path / "kept" / "bright").iterdir()] == [DARK]


def test_pixels_in_json_are_judged_and_not_kept(bundle, tmp_path):
    client = new_client(bundle, KEEP_IMAGES=str(tmp_path / "kept"))
    said = named(client.post("/predict", json={"img": [[[0, 0, 0]]]}))
    assert client.post("/feedback", json=said | {"label": "dark"}).json["kept"] is False


def test_no_image_is_remembered_unless_that_is_asked_for(bundle):
    app = create_app(settings=Settings.from_env({"MODEL_DIR": str(bundle)}))
    client = app.test_client()
    client.post("/predict/batch", data={"image": [(io.BytesIO(DARK), "a.png") for _ in range(3)]})
    predict(client)
    memory = app.wsgi_app.state.feedback.memory
    assert (len(memory), memory.image_bytes) == (4, 0)


def test_a_folder_that_cannot_be_written_ends_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        SettingsError, match=r"KEEP_IMAGES is '.*/file/kept', which cannot be made: Not a directory; use"
    ):
        Settings.from_env({"KEEP_IMAGES": str(tmp_path / "file" / "kept")})
    with pytest.raises(SettingsError, match="KEEP_IMAGES is set, but FEEDBACK_MEMORY is 0"):
        Settings.from_env({"KEEP_IMAGES": str(tmp_path), "FEEDBACK_MEMORY": "0"})


# The real server


@pytest.mark.integration
def test_of_many_at_once_each_answer_is_counted_once(bundle, tmp_path):
    with ready_service(tmp_path / "log", MODEL_DIR=str(bundle)) as server, ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> dict:
            reply = server.post("/predict", (DARK, BRIGHT)[number % 2], "image/png")
            return {"instance": reply.headers["X-Instance-Id"], "ordinal": int(reply.headers["X-Request-Ordinal"])}

        def judge(said: dict) -> int:
            return server.post("/feedback", json.dumps(said | {"label": "dark"}).encode(), "application/json").status

        asked = list(pool.map(ask, range(40)))
        assert set(pool.map(judge, asked * 4)) == {200}
        text = server.get("/metrics").body.decode()
    found = {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "classifier_feedback_total"
    }
    assert found == {"right": 20, "wrong": 20}


@pytest.mark.integration
def test_the_commands_of_the_page_count_one_answer(tmp_path, needs_tool):
    needs_tool("curl")
    section = (ROOT / "docs" / "watch.md").read_text(encoding="utf-8").partition("## Feedback")[2]
    script = section.split("```\n")[1]
    (tmp_path / "cat.png").write_bytes(DARK)
    model = write_bundle(tmp_path / "model", ["cat", "dog"])
    with ready_service(tmp_path / "log", MODEL_DIR=str(model)) as server:
        script = script.replace("localhost:8080", f"127.0.0.1:{server.port}")
        done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(done.stdout)["outcome"] == "right"


def test_every_reason_of_a_refusal_is_in_the_page():
    section = (ROOT / "docs" / "watch.md").read_text(encoding="utf-8").partition("## Feedback")[2]
    table = section.partition("| `reason` |")[2].partition("\n\n")[0]
    reasons = {kind.reason: str(kind.status) for kind in FeedbackProblem.__subclasses__()} | {MALFORMED: "400"}
    for reason, status in reasons.items():
        assert [line for line in table.splitlines() if f"`{reason}`" in line and status in line], reason
