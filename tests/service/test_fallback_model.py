"""The start of a service whose alias leads to a damaged version: what it serves instead, and where it says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.app import create_app
from service.errors import BundleError, SettingsError
from service.settings import Settings
from service.store_layout import alias_dir, record_file, version_dir
from tests.helpers.bundles import fail_when_run, write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.running_service import START_TIMEOUT_S, metrics_without_instance, ready_service, started_service

NAME = "tiny"
REFUSED = 'classifier_model_switches_total{outcome="refused"}'


@dataclass(frozen=True)
class Store:
    """A store's folder, whose alias prod leads from one version to another one."""

    root: Path
    good: str
    bad: str

    @property
    def env(self) -> dict[str, str]:
        return {"MODEL_STORE": str(self.root), "MODEL": f"{NAME}@prod", "MODEL_POLL_S": "0"}

    def damage_file(self) -> None:
        with (self.root / version_dir(NAME, self.bad) / "float32.onnx").open("ab") as file:
            file.write(b" ")

    def damage_manifest(self) -> None:
        (self.root / version_dir(NAME, self.bad) / "model.json").write_text("{}", encoding="utf-8")

    def remove_manifest(self) -> None:
        (self.root / version_dir(NAME, self.bad) / "model.json").unlink()

    def damage_record(self, number: int = 2) -> None:
        (self.root / alias_dir(NAME, "prod") / record_file(number)).write_text("{", encoding="utf-8")


@pytest.fixture
def store(tmp_path) -> Store:
    root = tmp_path / "store"
    good, bad = (
        add_version(root, NAME, write_bundle(tmp_path / str(weight), ["dark", "bright"], weight=weight))
        for weight in (20, 30)
    )
    point(root, NAME, "prod", good)
    point(root, NAME, "prod", bad)
    return Store(root, good, bad)


@pytest.mark.parametrize(
    ("damage", "refused", "why"),
    [
        (Store.damage_file, "tiny@prod {bad}", "float32.onnx has sha256"),
        (Store.damage_manifest, "tiny@prod", "not that of its version; fetch it again"),
        (Store.remove_manifest, "tiny@prod", "has no version {bad} of tiny, to which prod points"),
        (Store.damage_record, "tiny@prod", "0000000002.json is no record of an alias"),
    ],
    ids=["file", "manifest", "no manifest", "record"],
)
def test_it_serves_what_the_alias_led_to_before(store, damage: Callable[[Store], None], refused, why, capsys):
    damage(store)
    app = create_app(settings=Settings.from_env(store.env))
    client, switcher = app.test_client(), app.extensions["model_switcher"]
    assert client.get("/version").json["store"] == {"name": NAME, "alias": "prod", "version": store.good, "number": 1}
    assert client.get("/readyz").json == {"status": "ready", "refused": refused.format(bad=store.bad)}
    assert metrics_without_instance(client.get("/metrics").text)[REFUSED] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"service: {refused.format(bad=store.bad)} is not taken: ")
    assert why.format(bad=store.bad) in line and line.endswith(f"; serves tiny {store.good}")

    switcher.look()  # what is known to be bad is not said again
    assert capsys.readouterr().err == "" and client.get("/readyz").json["refused"]
    newer = add_version(store.root, NAME, write_bundle(store.root.parent / "newer", ["dark", "bright"], weight=40))
    point(store.root, NAME, "prod", newer)
    switcher.look()
    assert client.get("/version").json["store"]["version"] == newer
    assert client.get("/readyz").json == {"status": "ready"}


def needs_torch(folder: Path) -> Path:
    """A bundle for PyTorch alone, whose weights nobody reads here."""
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    manifest["engines"] = {"torch": {"file": "float32.onnx", "precision": "float32"}}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "why"),
    [(fail_when_run, "cannot predict with onnx"), (needs_torch, "torch")],
    ids=["cannot run", "engine"],
)
def test_it_serves_the_one_before_where_the_engine_fails(store, change, why, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "service.engines.torch_engine", raising=False)
    worse = change(write_bundle(tmp_path / "worse", ["dark", "bright"], weight=50))
    point(store.root, NAME, "prod", add_version(store.root, NAME, worse))
    client = create_app(settings=Settings.from_env(store.env)).test_client()
    assert client.get("/version").json["store"]["version"] == store.bad  # which is good here
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not taken: " in line and why in line and line.endswith(f"; serves tiny {store.bad}")


def test_it_runs_with_the_engine_that_is_installed(store, tmp_path, monkeypatch, capsys):
    """Where ENGINE is not set: the first of the version's two is not."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "service.engines.torch_engine", raising=False)
    both = write_bundle(tmp_path / "both", ["dark", "bright"], weight=50)
    manifest = json.loads((both / "model.json").read_text(encoding="utf-8"))
    manifest["engines"] = {"torch": manifest["engines"]["onnx"] | {"architecture": "a"}} | manifest["engines"]
    (both / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    version = add_version(store.root, NAME, both)
    point(store.root, NAME, "prod", version)
    client = create_app(settings=Settings.from_env(store.env)).test_client()
    served = client.get("/version").json
    assert (served["store"]["version"], served["engine"]) == (version, "onnx")
    assert capsys.readouterr().err == ""


def list_itself(store: Store) -> None:
    """A folder of records that nobody can list, whatever rights a test has."""
    folder = store.root / alias_dir(NAME, "prod")
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder)


def test_records_that_cannot_be_listed_are_as_if_damaged(store, tmp_path):
    own = write_bundle(tmp_path / "own", ["dark", "bright"])
    list_itself(store)
    app = create_app(settings=Settings.from_env(store.env | {"MODEL_DIR": str(own)}))
    assert app.test_client().get("/readyz").json == {"status": "ready", "refused": "tiny@prod"}


@pytest.mark.parametrize("damage", [Store.damage_file, Store.damage_record], ids=["file", "record"])
def test_without_an_earlier_one_it_serves_its_own_bundle(store, damage, tmp_path):
    damage(store)
    store.damage_record(1)
    own = write_bundle(tmp_path / "own", ["dark", "middle", "bright"])
    app = create_app(settings=Settings.from_env(store.env | {"MODEL_DIR": str(own)}))
    client = app.test_client()
    assert client.get("/version").json["store"] is None
    assert "tiny@prod" in client.get("/readyz").json["refused"]
    assert client.get("/openapi.json").status_code == 200
    newer = add_version(store.root, NAME, write_bundle(tmp_path / "newer", ["dark", "bright"], weight=40))
    point(store.root, NAME, "prod", newer)
    app.extensions["model_switcher"].look()
    assert client.get("/version").json["store"]["version"] == newer


def test_a_bundle_of_another_name_is_no_stand_in(store, tmp_path):
    store.damage_file()
    store.damage_record(1)
    other = write_bundle(tmp_path / "other", ["dark", "bright"], name="other")
    with pytest.raises(BundleError, match=r"float32\.onnx has sha256"):
        create_app(settings=Settings.from_env(store.env | {"MODEL_DIR": str(other)}))


def test_a_version_that_is_named_itself_has_no_stand_in(store):
    store.damage_file()
    settings = Settings.from_env(store.env | {"MODEL": f"{NAME}@{store.bad}"})
    with pytest.raises(BundleError, match=r"float32\.onnx has sha256"):
        create_app(settings=settings)


def test_an_alias_that_is_not_there_has_no_stand_in(store):
    with pytest.raises(SettingsError, match="has no tiny@prdo"):
        Settings.from_env(store.env | {"MODEL": f"{NAME}@prdo"})


@pytest.mark.integration
def test_a_real_service_starts_on_the_version_before(store, tmp_path):
    store.damage_manifest()
    with ready_service(tmp_path / "log", **store.env) as server:
        assert server.get("/readyz").json["refused"] == "tiny@prod"
        assert server.get("/version").json["store"]["version"] == store.good
    assert "is not taken" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.integration
@pytest.mark.parametrize("damage", [Store.damage_manifest, list_itself], ids=["manifest", "records"])
def test_a_real_service_with_nothing_to_serve_ends_in_one_line(store, tmp_path, damage):
    """No worker is started, which would be started again and say it again."""
    store.damage_record(1)
    damage(store)
    with started_service(tmp_path / "log", **store.env) as server:
        assert server.process.wait(START_TIMEOUT_S) == 1
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert line.startswith(f"service: MODEL_STORE: {store.root}")
