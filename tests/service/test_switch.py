"""The switch of models in a process: which model answers, what is refused, and that the old one is freed."""

import gc
import json
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.classifier import Classifier
from service.errors import InsufficientStorage, ModelNotFound, ModelRefused, QueueFull, SwitchConflict
from service.lifecycle import memory
from service.lifecycle.switcher import MAX_ORDERS, ModelSwitcher
from service.settings import ENGINES, Settings
from service.store_layout import parse_reference, version_dir
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.running_service import metrics_without_instance

NAME = "tiny"
BRIGHT = one_coloured(255)


@dataclass
class Follower:
    """A service that follows a store, its looks made by the test; its thread waits for loads alone."""

    root: Path
    client: FlaskClient
    switcher: ModelSwitcher
    said: list[str]
    scratch: Path

    def add(self, folder: str, classes=("dark", "bright"), name=NAME, **bundle) -> str:
        return add_version(self.root, name, write_bundle(self.scratch / folder, classes, **bundle))

    def move(self, version: str) -> None:
        point(self.root, NAME, "prod", version)

    def version(self) -> dict:
        return self.client.get("/version").json

    def predict(self):
        return self.client.post("/predict", data=BRIGHT, content_type="image/png")

    def metric(self, name: str) -> float:
        found = metrics_without_instance(self.client.get("/metrics").text)
        return found[name]


def follower(tmp_path, **settings) -> Follower:
    root, said = tmp_path / "store", []
    first = add_version(root, NAME, write_bundle(tmp_path / "first", ["dark", "bright"]))
    point(root, NAME, "prod", first)
    env = {"MODEL_STORE": str(root), "MODEL": f"{NAME}@prod", "MODEL_POLL_S": "0"} | settings
    app = create_app(settings=Settings.from_env(env))
    switcher = app.extensions["model_switcher"]
    switcher._say = said.append
    return Follower(root, app.test_client(), switcher, said, tmp_path)


@pytest.fixture
def service(tmp_path):
    return follower(tmp_path)


def test_a_moved_alias_changes_model_header_and_version(service):
    before, first = service.version(), service.predict()
    second = service.add("second", ["dark", "middle", "bright"])
    service.move(second)
    service.switcher.look()
    now, reply = service.version(), service.predict()
    assert (before["store"]["number"], before["switches"]) == (1, 0)
    assert now["store"] == {"name": NAME, "alias": "prod", "version": second, "number": 2}
    assert now["switches"] == service.metric('classifier_model_switches_total{outcome="switched"}') == 1
    assert reply.json["id"] == 2 and first.json["id"] == 1
    assert reply.headers["X-Model-Version"] == reply.json["model"]["version"] == now["model"]["version"]
    assert first.headers["X-Model-Version"] == first.json["model"]["version"] == before["model"]["version"]
    assert now["model"]["version"] != before["model"]["version"]
    info = [line for line in service.client.get("/metrics").text.splitlines() if "model_info{" in line]
    assert len(info) == 1 and now["model"]["version"] in info[0]


def test_nothing_is_loaded_while_nothing_moves(service):
    loaded = service.switcher._current.model
    service.switcher.look()
    assert service.switcher._current.model is loaded and service.said == []


def test_a_record_to_the_same_version_loads_nothing(service):
    present = service.version()
    service.move(present["store"]["version"])
    service.switcher.look()
    assert service.version()["store"] == present["store"] | {"number": 2}
    assert service.version()["switches"] == 0 and service.predict().status_code == 200


def test_a_model_of_rows_takes_the_place_of_one_of_images(service):
    assert "multipart/form-data" in service.client.get("/openapi.json").text
    service.move(service.add("rows", ["small", "large"], features=["length", "width"]))
    service.switcher.look()
    row = service.client.post("/predict", json=[9, 9])
    assert row.json["label"] == "large"
    assert service.predict().status_code == 415
    assert "length" in service.client.get("/").text
    assert "length" in service.client.get("/openapi.json").text


def damage_file(bundle: Path) -> None:
    with (bundle / "float32.onnx").open("ab") as file:
        file.write(b" ")


def remove_file(bundle: Path) -> None:
    (bundle / "float32.onnx").unlink()


def unreadable_file(bundle: Path) -> None:
    """Of a disk that fails: one opens it, and reading is an error, even for root."""
    (bundle / "float32.onnx").unlink()
    (bundle / "float32.onnx").symlink_to("/proc/self/mem")


def no_harm(bundle: Path) -> None:
    """The bundle is bad as it is."""


WRONG_TEST = {"inputs": [[0, 0]], "probabilities": {"onnx": [[0.0, 1.0]]}, "tolerance": 0.05}


@pytest.mark.parametrize(
    ("damage", "bundle", "detail"),
    [
        pytest.param(damage_file, {}, "has sha256", id="checksum"),
        pytest.param(remove_file, {}, "is missing", id="missing file"),
        pytest.param(
            unreadable_file,
            {},
            "cannot be read: Input/output error; see to its rights",
            id="unreadable file",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
        ),
        pytest.param(no_harm, {"features": ["a", "b"], "self_test": WRONG_TEST}, "fails its self-test", id="self-test"),
    ],
)
def test_a_bad_version_is_tried_once_and_the_old_one_stays(service, damage, bundle, detail):
    before = service.version()
    bad = service.add("bad", weight=30, **bundle)
    damage(service.root / version_dir(NAME, bad))
    service.move(bad)
    for _ in range(3):
        service.switcher.look()
    assert len(service.said) == 1 and detail in service.said[0] and bad in service.said[0]
    assert service.metric('classifier_model_switches_total{outcome="refused"}') == 1
    assert service.version() == before and service.predict().json["label"] == "bright"
    ready = service.client.get("/readyz")
    assert (ready.status_code, ready.json) == (200, {"status": "ready", "refused": f"{NAME}@prod {bad}"})
    good = service.add("good", weight=31)
    service.move(good)
    service.switcher.look()
    assert service.version()["store"] == {"name": NAME, "alias": "prod", "version": good, "number": 3}
    assert service.client.get("/readyz").json == {"status": "ready"}


def test_a_version_is_tried_again_once_its_files_changed(service):
    second = service.add("second", weight=30)
    network = service.root / version_dir(NAME, second) / "float32.onnx"
    whole = network.read_bytes()
    network.write_bytes(whole + b" ")
    service.move(second)
    service.switcher.look()
    assert len(service.said) == 1 and "fetch the bundle again" in service.said[0]
    network.write_bytes(whole)  # as `store pull --follow` does
    service.switcher.look()
    assert service.version()["store"]["version"] == second
    assert service.client.get("/readyz").json == {"status": "ready"}


def test_a_damaged_manifest_or_record_is_said_once(service):
    second = service.add("second", weight=30)
    service.move(second)
    (service.root / version_dir(NAME, second) / "model.json").write_text("{}", encoding="utf-8")
    for _ in range(2):
        service.switcher.look()
    assert len(service.said) == 1 and "not that of its version" in service.said[0]
    assert service.predict().status_code == 200


def test_a_model_for_which_memory_is_short_is_tried_again(service, monkeypatch):
    free = [5.0]
    monkeypatch.setattr(memory, "available_mib", lambda: free[0])
    before, second = service.version(), service.add("second", weight=30)
    service.move(second)
    for _ in range(3):
        service.switcher.look()
    assert len(service.said) == 1 and "needs about 9 MiB beside the present one, 5 MiB are free" in service.said[0]
    assert service.metric('classifier_model_switches_total{outcome="refused"}') == 1
    assert service.version() == before
    free[0] = 9.0
    service.switcher.look()
    assert service.version()["store"]["version"] == second


def test_a_model_without_the_engine_that_is_set_is_refused(tmp_path):
    service = follower(tmp_path, ENGINE="onnx")
    bundle = write_bundle(tmp_path / "other", ["dark", "bright"])
    manifest = json.loads((bundle / "model.json").read_bytes())
    own = {"file": "float32.onnx", "precision": "float32", "architecture": "resnet18-cifar"}
    (bundle / "model.json").write_text(json.dumps(manifest | {"engines": {"torch": own}}), encoding="utf-8")
    service.move(add_version(service.root, NAME, bundle))
    service.switcher.look()
    assert "has no file for the engine 'onnx', only for: torch" in service.said[0]
    assert service.predict().status_code == 200


# Freeing


def test_a_request_keeps_its_model_until_it_has_ended(service, monkeypatch):
    """The old model answers what it began, and is closed after that; the new one answers meanwhile."""
    current = service.switcher._current
    old = current.model
    engine = weakref.ref(old.classifier._batcher._run.__self__)
    held = current.take()
    service.move(service.add("second", ["dark", "middle", "bright"]))
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(service.switcher.look)
        while current.model is old:
            threading.Event().wait(0.001)
        assert service.predict().json["id"] == 2
        assert engine() is not None and held.classifier.ready()
        current.give_back(held)
        switching.result(30)
    gc.collect()
    assert engine() is None and not old.classifier.ready()


def test_twenty_switches_leave_one_model_and_its_threads(service):
    versions = [service.version()["store"]["version"], service.add("second", weight=30)]
    engines, threads = [], threading.active_count()
    for index in range(1, 21):
        engines.append(weakref.ref(service.switcher._current.model.classifier._batcher._run.__self__))
        service.move(versions[index % 2])
        service.switcher.look()
        assert service.version()["switches"] == index
    assert [engine() for engine in engines] == [None] * 20
    assert threading.active_count() == threads


def test_a_model_that_fails_its_self_test_is_freed_too(service):
    threads = threading.active_count()
    service.move(service.add("bad", features=["a", "b"], self_test=WRONG_TEST))
    service.switcher.look()
    assert threading.active_count() == threads


# Loads that are asked for


def test_a_reload_reads_the_present_model_again(service):
    before = service.switcher._current.model
    after = service.switcher.load()
    assert after is service.switcher._current.model is not before
    assert after.stored == before.stored and service.version()["switches"] == 1


def test_a_version_that_is_asked_for_is_followed_from_then_on(service):
    first = service.version()["store"]["version"]
    second = service.add("second", weight=30)
    service.move(second)
    assert service.switcher.load(parse_reference(f"{NAME}@{first}")).stored.alias is None
    service.switcher.look()
    assert service.version()["store"]["version"] == first
    assert service.switcher.load(parse_reference(f"{NAME}@prod")).version == second


def test_another_models_name_means_the_same_alias_of_it(service):
    version = service.add("other", name="other", weight=30)
    point(service.root, "other", "prod", version)
    reference = service.switcher.resolve("other")
    assert str(reference) == "other@prod"
    assert service.switcher.load(reference).version == version
    assert service.switcher.resolve(NAME) == parse_reference(f"{NAME}@prod")


@pytest.mark.parametrize(
    ("reference", "error", "detail"),
    [
        ("tiny@beta", ModelNotFound, "it has the aliases prod and the versions"),
        ("tiny@0123456789ab", ModelNotFound, "has no version 0123456789ab"),
        ("huge@prod", ModelNotFound, "it has tiny"),
    ],
)
def test_what_is_not_in_the_store_is_not_found(service, reference, error, detail):
    with pytest.raises(error, match=detail):
        service.switcher.load(parse_reference(reference))
    assert service.version()["switches"] == 0 and len(service.said) == 1


def test_a_load_says_why_a_model_is_refused(service, monkeypatch):
    bad = service.add("bad", weight=30)
    damage_file(service.root / version_dir(NAME, bad))
    with pytest.raises(ModelRefused, match="has sha256"):
        service.switcher.load(parse_reference(f"{NAME}@{bad}"))
    monkeypatch.setattr(memory, "available_mib", lambda: 1.0)
    with pytest.raises(InsufficientStorage, match="1 MiB are free"):
        service.switcher.load()
    assert service.switcher._following == parse_reference(f"{NAME}@prod")
    assert service.predict().status_code == 200


def test_of_many_loads_a_few_wait_and_the_others_are_refused(service, monkeypatch):
    begun, go_on = threading.Semaphore(0), threading.Event()

    def available_mib() -> float:
        begun.release()
        assert go_on.wait(30)
        return 1000.0

    monkeypatch.setattr(memory, "available_mib", available_mib)
    with ThreadPoolExecutor(MAX_ORDERS + 1) as pool:
        loads = [pool.submit(service.switcher.load)]
        assert begun.acquire(timeout=30)
        loads += [pool.submit(service.switcher.load) for _ in range(MAX_ORDERS)]
        while service.switcher._orders.qsize() < MAX_ORDERS:
            threading.Event().wait(0.001)
        try:
            with pytest.raises(QueueFull, match=f"{MAX_ORDERS} loads wait already"):
                service.switcher.load()
            assert service.predict().status_code == 200
        finally:
            go_on.set()
        assert len({load.result(30) for load in loads}) == MAX_ORDERS + 1
    assert service.version()["switches"] == MAX_ORDERS + 1


def test_an_unexpected_failure_of_a_load_costs_nothing_else(service, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_mib", lambda: 1 / 0)
    with pytest.raises(ModelRefused, match=r"cannot be loaded \(ZeroDivisionError\)"):
        service.switcher.load()
    monkeypatch.undo()
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert service.switcher.load().version == service.version()["store"]["version"]


def test_without_a_store_the_one_bundle_can_be_read_again(tmp_path):
    bundle = write_bundle(tmp_path / "first", ["dark", "bright"])
    settings = Settings(engine="onnx", model_dir=bundle, manage_token="0123456789abcdef")
    app = create_app(settings=settings)
    switcher, client = app.extensions["model_switcher"], app.test_client()
    assert client.get("/version").json["store"] is None
    write_bundle(tmp_path / "first", ["dark", "middle", "bright"])
    assert switcher.load().classifier.classes == ("dark", "middle", "bright")
    with pytest.raises(SwitchConflict, match="follows no store"):
        switcher.load(parse_reference("tiny@prod"))
    with pytest.raises(ModelNotFound, match="has 'tiny' alone"):
        switcher.resolve("other")


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of single threads")
@pytest.mark.parametrize("engine", ENGINES)
def test_threads_of_a_later_model_have_the_usual_priority(engine):
    """It is loaded at the lowest, which a thread that it started would keep."""
    settings = Settings.from_env({"ENGINE": engine})
    first = Classifier.load(settings)
    later = Classifier.load(settings, first.decode_turns)
    try:
        threads = (thread.id for thread in psutil.Process().threads())
        found = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads if psutil.pid_exists(thread)}
        assert found == {os.getpriority(os.PRIO_PROCESS, os.getpid())}
    finally:
        first.close()
        later.close()
