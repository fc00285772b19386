"""Foreign services, really served by Flask: each is understood unasked, measured, or refused with what came."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import flask
import pytest
from PIL import Image

from eval.__main__ import main
from eval.errors import EndpointError, ImagesError
from eval.samples.model import TargetRun
from eval.samples.sizes import priced_target
from eval.samples.store import read_run, read_samples
from eval.targets.access import proxy_of
from eval.targets.endpoints import Endpoint, TargetSet, price_as
from tests.helpers.foreign.colours import COLOURS, name_of, probabilities, write_flowers
from tests.helpers.http_server import wsgi_server

pytestmark = pytest.mark.integration

KEY = "a-key-that-nobody-may-see"
SHORT = ("--warmup", "1", "--baseline-rtt", "2", "--block", "4", "--restarts", "0")


def foreign_app() -> flask.Flask:
    app, answered = flask.Flask("foreign"), []
    tired: list[str] = []

    @app.post("/v1/classify")
    def form():
        data = flask.request.files["file"].read()  # without that part: 400
        by_name = dict(zip(COLOURS, probabilities(data), strict=True))
        return {"result": {"class": name_of(data), "probabilities": by_name}}

    @app.post("/predict")
    def hugging_face():
        if not flask.request.content_type.startswith("image/"):
            flask.abort(415)
        p = probabilities(flask.request.get_data())
        scored = [{"label": name, "score": score} for name, score in zip(COLOURS, p, strict=True)]
        return sorted(scored, key=lambda each: -each["score"])

    @app.post("/v2/models/flowers/infer")
    def open_inference():
        (sent,) = flask.request.get_json()["inputs"]
        p = probabilities(base64.b64decode(sent["data"][0]))
        return {"model_name": "flowers", "outputs": [{"name": "p", "shape": [1, 2], "datatype": "FP32", "data": p}]}

    @app.post("/v1/models/flowers:predict")
    def tensorflow_serving():
        return {
            "predictions": [probabilities(base64.b64decode(each["b64"])) for each in flask.request.json["instances"]]
        }

    @app.post("/label")
    def label_only():
        if flask.request.headers.get("X-Api-Key") != KEY:
            flask.abort(401)
        return name_of(base64.b64decode(flask.request.json["picture"]))

    @app.post("/other")
    def of_other_classes():
        return {"label": "daisy"}

    @app.post("/slash/")  # without the last slash: a redirect
    def behind_a_slash():
        return {"scores": dict(zip(COLOURS, probabilities(flask.request.get_data()), strict=True))}

    @app.post("/moved")
    def moved():
        return flask.redirect("/v1/classify", 307)

    @app.post("/login")
    def page():
        return "<html><title>Sign in</title></html>"

    @app.post("/picky")
    def of_another_form():
        flask.abort(400)

    @app.post("/once")
    def of_the_first_image_alone():
        answered.append(name_of(flask.request.get_data()))
        return {"label": answered[0]} if len(answered) == 1 else {"error": "out of memory"}

    @app.post("/tired")
    def of_two_requests():
        tired.append(flask.request.path)
        return {"label": name_of(flask.request.get_data())} if len(tired) <= 2 else ("slow down", 429)

    @app.post("/of-more/classify")
    def of_more_classes():
        p = probabilities(flask.request.get_data())
        return {"probabilities": [p[1], 0.0, p[0]]}  # tulip, daisy, rose

    return app


@pytest.fixture(scope="module")
def foreign_url():
    with wsgi_server(foreign_app()) as url:
        yield url


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    folder = write_flowers(tmp_path_factory.mktemp("flowers"), per_class=8)
    Image.new("RGB", (20, 20), COLOURS["tulip"]).save(folder / "rose" / "0.png")  # is not what its folder says
    return folder


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cloudtrial(capsys):
    """The command line, in this process."""

    def run(*words: str) -> Done:
        returncode = main(words)
        return Done(returncode, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("path", "sent", "read"),
    [
        ("/v1/classify", "a form with the image in its part 'file'", "label at result.class, scores at"),
        ("/predict", "the bytes of the image", "scores at @"),
        ("/slash/", "the bytes of the image", "scores at scores"),
        ("/v2/models/flowers/infer", '"datatype": "BYTES"', "scores at outputs[0].data"),
        ("/v1/models/flowers:predict", '{"instances": [{"b64": "$base64"}]}', "scores at predictions"),
    ],
)
def test_a_foreign_service_is_understood_unasked(cloudtrial, foreign_url, flowers, path, sent, read):
    done = cloudtrial("check", foreign_url + path, "--images", str(flowers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sent in done.stdout and read in done.stdout
    assert "probability 0." in done.stdout


def test_a_service_that_tires_after_it_was_understood_is_told(cloudtrial, foreign_url, flowers):
    done = cloudtrial("check", f"{foreign_url}/tired", "--images", str(flowers))
    assert done.returncode == 1
    assert "/tired was understood, but the next request failed: 429" in done.stderr, done.stderr


def broken_by_other_forms() -> flask.Flask:
    """A service at /predict that fails on what it cannot read, as those without a check do."""
    app = flask.Flask("broken")

    @app.post("/predict")
    def predict():
        p = probabilities(base64.b64decode(json.loads(flask.request.get_data())["image"]))
        return dict(zip(COLOURS, p, strict=True))

    return app


@pytest.mark.parametrize("words", [(), ("--adapter", "mine=json-image")])
def test_a_service_that_fails_on_other_forms_is_measured(cloudtrial, flowers, tmp_path, words):
    with wsgi_server(broken_by_other_forms()) as url:
        target = ("--target", f"mine={url}", *words)
        done = cloudtrial("run", *target, "--images", str(flowers), *SHORT, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())["targets"]["mine"]
    assert report["accuracy"]["value"] == 15 / 16


def test_a_foreign_service_is_measured_with_classes_of_its_own(cloudtrial, foreign_url, flowers, tmp_path):
    target = f"mine={foreign_url}/v1/classify"
    run_dir = tmp_path / "run"
    done = cloudtrial("run", "--target", target, "--images", str(flowers), *SHORT, "--out", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    run = read_run(run_dir)
    assert run.complete and run.classes == list(COLOURS)
    assert "part 'file'" in run.targets[0].adapter
    samples = [s for s in read_samples(run_dir, run) if s.scenario == "single" and s.phase == "measure"]
    assert len(samples) == 16 and all(s.error is None for s in samples)
    report = json.loads((run_dir / "report.json").read_text())["targets"]["mine"]
    assert report["accuracy"]["value"] == 15 / 16
    assert report["roc_auc"]["value"] == pytest.approx(15 / 16)
    assert (run_dir / "report.html").exists()


def test_an_adapter_file_measures_what_cannot_be_guessed(cloudtrial, foreign_url, flowers, tmp_path, monkeypatch):
    adapter = tmp_path / "adapter.yaml"
    adapter.write_text("request: {body: json, json: {picture: $base64}, headers: {X-Api-Key: $FLOWER_KEY}}\n")
    words = ("--target", f"mine={foreign_url}/label", "--adapter", f"mine={adapter}", "--images", str(flowers))
    monkeypatch.setenv("FLOWER_KEY", KEY)
    run_dir = tmp_path / "run"
    done = cloudtrial("run", *words, *SHORT, "--out", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((run_dir / "report.json").read_text())["targets"]["mine"]
    assert report["accuracy"]["value"] == 15 / 16 and report["roc_auc"]["value"] is None
    written = b"".join(path.read_bytes() for path in run_dir.rglob("*") if path.is_file())
    assert KEY.encode() not in written and KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/other", ['{"label":"daisy"}', "no class and no scores of the 2 classes", "--adapter mine=FILE"]),
        ("/label", ["401", "--token-env mine=VARIABLE"]),
        ("/once", ["tulip/0.png: 200, with no class", '{"error":"out of memory"}', "--adapter mine=FILE"]),
        ("/nowhere/else", ["404", "(and 20 other forms)", "correct the path of the address"]),
    ],
)
def test_what_is_not_understood_stops_at_once_and_says_why(cloudtrial, foreign_url, flowers, tmp_path, path, told):
    words = ("--target", f"mine={foreign_url}{path}", "--images", str(flowers), *SHORT, "--out", str(tmp_path / "run"))
    done = cloudtrial("run", *words)
    assert done.returncode == 1
    for text in told:
        assert text in done.stdout, done.stdout
    assert [s for s in read_samples(tmp_path / "run") if s.scenario == "single"] == []


NO_CLASS = "expected one of the classes rose, tulip: name the folders of --images DIR as the service names its classes"


@pytest.mark.parametrize(
    ("address", "told", "by_adapter"),
    [
        pytest.param("http://127.0.0.1:9/x", "start the service, or correct the address", False, id="refused"),
        pytest.param("http://nowhere.invalid/x", "start the service, or correct the address", False, id="host"),
        pytest.param("https{}/v1/classify", "start the service, or correct the address", False, id="no TLS"),
        pytest.param("http{}/moved", "give the address that this one leads to", False, id="redirect"),
        pytest.param("http{}/nowhere/else", "correct the path of the address", False, id="path"),
        pytest.param("http{}/login", "give the address of the service itself", False, id="page"),
        pytest.param("http{}/label", "give a token with --token-env VARIABLE", False, id="token"),
        pytest.param("http{}/picky", "say how it is asked and answers with --adapter FILE", True, id="form"),
        pytest.param("http{}/other", NO_CLASS, True, id="classes"),
    ],
)
def test_what_is_not_understood_names_what_helps(cloudtrial, foreign_url, flowers, address, told, by_adapter):
    done = cloudtrial("check", address.format(foreign_url.removeprefix("http")), "--images", str(flowers))
    assert done.returncode == 1 and told in done.stderr, done.stderr
    assert "endpoint=" not in done.stderr and ("--adapter FILE" in done.stderr) == by_adapter


@pytest.mark.parametrize(
    "words", [("check", "{}"), ("run", "--target", "mine={}", *SHORT, "--limit", "10", "--out", "{out}")]
)
def test_without_folders_the_classes_are_told_to_be_given(cloudtrial, foreign_url, tmp_path, words, monkeypatch):
    monkeypatch.setattr("eval.dataset.images.CACHE_DIR", tmp_path)
    monkeypatch.setattr("eval.dataset.images._check_reachable", no_network)
    done = cloudtrial(*(word.format(f"{foreign_url}/other", out=tmp_path / "run") for word in words))
    assert done.returncode == 1
    assert "the classes airplane, automobile, bird, cat, deer and 5 more: name the folders of --images DIR" in (
        done.stdout + done.stderr
    )


def no_network(url: str) -> None:
    raise ImagesError("no network")


def test_rows_are_sent_in_no_form_that_asks_for_pixels(cloudtrial, foreign_url, tmp_path):
    (tmp_path / "rows.csv").write_text("length,width,class\n1,2,rose\n3,4,tulip\n", encoding="utf-8")
    words = ("check", f"{foreign_url}/picky", "--images", str(tmp_path / "rows.csv"))
    done = cloudtrial(*words)
    assert done.returncode == 1 and "(and 17 other forms)" in done.stderr and "with --adapter FILE" in done.stderr
    done = cloudtrial(*words, "--adapter", "tf-serving-pixels")
    assert done.returncode == 1 and "its adapter asks for pixels, and rows have none" in done.stderr


def test_check_quotes_an_option_as_it_was_given(cloudtrial, foreign_url, flowers):
    done = cloudtrial("check", foreign_url, "--images", str(flowers), "--adapter", "odd.yaml")
    assert done.returncode == 1 and done.stderr.startswith("--adapter odd.yaml: odd.yaml: No such file")


def test_a_file_has_the_classes_in_the_services_order(cloudtrial, foreign_url, flowers, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("tulip\ndaisy\nrose\n")
    words = ("--images", str(flowers), "--classes", str(classes))
    done = cloudtrial("check", f"{foreign_url}/of-more/classify", *words)
    assert done.returncode == 0 and "tulip; probability 0.800" in done.stdout, done.stdout
    run_dir, target = tmp_path / "run", ("--target", f"mine={foreign_url}/of-more/classify")
    assert cloudtrial("run", *target, *words, *SHORT, "--out", str(run_dir)).returncode == 0
    assert read_run(run_dir).classes == ["tulip", "daisy", "rose"]
    report = json.loads((run_dir / "report.json").read_text())["targets"]["mine"]
    assert report["accuracy"]["value"] == 15 / 16


def test_folders_that_cifar_10_has_too_are_all_classes(cloudtrial, foreign_url, flowers, tmp_path):
    """Cats and dogs, at an address of its own."""
    folder = tmp_path / "pets"
    for flower, pet in (("rose", "cat"), ("tulip", "dog")):
        shutil.copytree(flowers / flower, folder / pet)
    done = cloudtrial("check", f"{foreign_url}/v1/models/flowers:predict", "--images", str(folder))
    assert done.returncode == 0 and "scores at predictions" in done.stdout, done.stderr


def test_an_address_without_a_path_is_asked_at_predict(cloudtrial, foreign_url, flowers):
    done = cloudtrial("check", foreign_url, "--images", str(flowers))
    assert done.returncode == 0 and "scores at @" in done.stdout, done.stderr


def test_folders_of_other_classes_need_addresses_alone(cloudtrial, flowers):
    done = cloudtrial("run", "--local", "--images", str(flowers))
    assert done.returncode == 1 and "measured by --target alone" in done.stderr


def test_an_address_is_priced_as_a_target(cloudtrial, foreign_url, flowers, tmp_path):
    words = ("run", "--target", f"mine={foreign_url}/predict", "--images", str(flowers), *SHORT)
    done = cloudtrial(*words, "--priced-as", "mine=heroku", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_run(tmp_path / "run").targets[0].target == "heroku"
    report = (tmp_path / "run" / "report.md").read_text()
    assert "dyno, basic, us" in report and "no response has the service time (Server-Timing: total)" in report


def test_without_server_timing_a_bill_is_a_range_of_client_times(cloudtrial, foreign_url, flowers, tmp_path):
    words = ("run", "--target", f"mine={foreign_url}/predict", "--images", str(flowers), *SHORT, "--baseline-rtt", "20")
    done = cloudtrial(*words, "--priced-as", "mine=gcp_cloudrun:2:2048", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    target = read_run(tmp_path / "run").targets[0]
    assert (target.target, target.size) == ("gcp_cloudrun", "2:2048")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    facts = report["targets"]["mine"]
    assert (facts["vcpus"], facts["memory_mib"], facts["size"]) == (2, 2048, "2 vCPU, 2 GiB")
    bill = facts["cost"]["monthly_usd"]["100000000"]
    assert 0 < bill["net_low_usd"] <= bill["net_usd"] < bill["net_high_usd"]
    (assumption,) = (a for a in facts["cost"]["assumptions"] if a["code"] == "service_time_at_client")
    values = assumption["values"]
    assert facts["cost"]["measured"]["client_less_rtt_ms"] < values["client_ms"]
    assert report["candidates"]["mine"]["target"]["vcpus"] == 2
    assert "response has the service time: it is the client" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine=ec2", "one of aws_ec2"),
        ("yours=heroku", "no address is called 'yours', only mine"),
        ("mine=heroku:huge", "heroku has no size 'huge'; choose from eco, "),
        ("mine=gcp_cloudrun:1", "expected VCPUS:MIB, such as 1:1024"),
        ("mine=gcp_cloudrun:3:1024", "vCPUs: 0.5, 1, 2, 4, 6, 8"),
        ("mine=gcp_function:1:8192", "1 vCPUs are sold with 512 to 4096 MiB"),
    ],
)
def test_a_price_that_is_none_says_why(text, message):
    targets = TargetSet((Endpoint("mine", None, "https://a.example"),), {})
    with pytest.raises(EndpointError, match=re.escape(message)):
        price_as(targets, [text])


def test_sizes_are_priced_as_they_are_sold():
    targets = TargetSet((Endpoint("a", None, "https://a.example"), Endpoint("b", None, "https://b.example")), {})
    priced = price_as(targets, ["a=aws_ec2:c7i.large", "b=gcp_function:0.5:512"]).endpoints
    runs = [TargetRun(each.name, each.target, each.url, False, size=each.size) for each in priced]
    first, second = (priced_target(run) for run in runs)
    assert first and (first.size, first.vcpus, first.memory_mib, first.baseline_vcpus) == ("c7i.large", 2, 4096, 2)
    assert second and (second.size, second.vcpus, second.memory_mib) == ("0.5 vCPU, 512 MiB", 0.5, 512)


def test_a_proxy_of_the_environment_is_asked_for_other_machines(cloudtrial, foreign_url, flowers, monkeypatch):
    """It is the service itself here, which sees the whole address in the request line."""
    monkeypatch.setenv("http_proxy", foreign_url)
    monkeypatch.setenv("no_proxy", "")
    done = cloudtrial("check", "http://flowers.invalid/predict", "--images", str(flowers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scores at @" in done.stdout
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert proxy_of("http://127.0.0.1:8080") is None and proxy_of("http://flowers.invalid") == "http://127.0.0.1:9"
