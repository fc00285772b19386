"""infra/artifact.py: the same files are the same bytes, wherever and whenever they are packed."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import artifact, models
from infra.errors import ModelError
from infra.models import choose_engine, read_model
from service.settings import ENGINES
from tests.helpers.infra.small_bundles import model_json, write_bundle

FILES = {
    "service/app.py": b"app",
    "service/main.py": b"entry",
    "service/requirements.txt": b"torch",
    "service/requirements-onnx.txt": b"onnxruntime",
    f"service/static/{'longer-than-a-plain-tar-header-' * 4}.css": b"c",
}
BUNDLE = {"weights.safetensors": bytes(range(256)) * 40, "network.onnx": b"integers", "self_test.json": b"{}"}
BUNDLE |= {"model.json": model_json("net", BUNDLE)}
MODEL = {f"models/net/{name}": data for name, data in BUNDLE.items()}
ONNX, TORCH = "models/net/network.onnx", "models/net/weights.safetensors"
OTHER_MODEL = {f"models/other/{name}": data for name, data in BUNDLE.items()}
SHIPPED = FILES | {name: data for name, data in MODEL.items() if name != ONNX}
FUNCTIONS_LOCK = "infra/gcp_function/requirements.txt"
ROOT_FILES = {"main.py": b"entry", "requirements.txt": b"torch"}

WRITERS = [
    pytest.param(artifact.write_tar_gz, "out.tar.gz", id="tar.gz"),
    pytest.param(artifact.write_zip, "out.zip", id="zip"),
]


def make_project(folder: Path, *, upside_down: bool = False) -> Path:
    """A small project. Upside down: made in another order, by another umask, at another time, with litter."""
    litter = {}
    if upside_down:
        litter = dict.fromkeys(("service/__pycache__/app.cpython-311.pyc", "models/.DS_Store"), b"x")
        litter |= {"models/net/float32.onnx": b"only measured"}
    mask = os.umask(0o077 if upside_down else 0o022)
    try:
        for name, content in sorted({**FILES, **MODEL, **OTHER_MODEL, **litter}.items(), reverse=upside_down):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if upside_down:
                os.utime(path, (1, 1))
                path.chmod(0o700)
    finally:
        os.umask(mask)
    return folder


@pytest.fixture
def pack_in(monkeypatch) -> Callable[..., artifact.Artifact]:
    """Pack the project in a folder with one of the writers."""

    def pack(folder: Path, write: Callable[..., artifact.Artifact], name: str, **options) -> artifact.Artifact:
        monkeypatch.setattr(artifact, "REPOSITORY", folder)
        monkeypatch.setattr(models, "MODELS_DIR", folder / "models")
        return write(name, artifact.deployment_files(**{"model": "net"} | options))

    return pack


def members(archive: Path) -> dict[str, bytes]:
    """What an archive holds, by name."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name) for name in opened.namelist()}
    with tarfile.open(archive) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened.getmembers()}


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_folder_order_umask_time_and_litter_change_no_byte(tmp_path, pack_in, write, name):
    here, there = make_project(tmp_path / "here"), make_project(tmp_path / "far" / "there", upside_down=True)
    first, second = pack_in(here, write, name), pack_in(there, write, name)
    assert first == second
    assert first.path == f"./.build/{name}"
    assert (here / first.path).read_bytes() == (there / second.path).read_bytes()
    assert first.sha256 == hashlib.sha256((here / first.path).read_bytes()).hexdigest()


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_an_archive_holds_what_is_shipped_and_lifted_by_name(tmp_path, pack_in, write, name):
    project = make_project(tmp_path, upside_down=True)
    packed = pack_in(project, write, name)
    held = members(project / packed.path)
    assert held == SHIPPED | ROOT_FILES
    assert list(held) == sorted(held)


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_each_engine_gets_its_own_model_file_and_requirements(tmp_path, pack_in, write, name):
    project = make_project(tmp_path, upside_down=True)
    packed = pack_in(project, write, name, engine="onnx")
    expected = FILES | MODEL | ROOT_FILES | {"requirements.txt": b"onnxruntime"}
    assert members(project / packed.path) == {k: v for k, v in expected.items() if k != TORCH}


def test_the_model_that_is_named_is_shipped_alone(tmp_path, pack_in):
    project = make_project(tmp_path)
    held = members(project / pack_in(project, artifact.write_zip, "out.zip", model="other").path)
    of_models = {name: data for name, data in held.items() if name.startswith("models/")}
    assert of_models == {name: data for name, data in OTHER_MODEL.items() if not name.endswith("onnx")}


def test_a_model_of_one_engine_is_shipped_for_it_without_a_word(tmp_path, pack_in):
    project = make_project(tmp_path)
    write_bundle(project / "models", "rows", {"onnx": b"small"}, tabular=True)
    held = members(project / pack_in(project, artifact.write_zip, "out.zip", model="rows").path)
    assert held["models/rows/network.onnx"] == b"small" and held["requirements.txt"] == b"onnxruntime"


def test_an_unknown_model_is_an_error_with_those_that_are_there(tmp_path, pack_in):
    project = make_project(tmp_path)
    with pytest.raises(ModelError, match=r"^no model is called 'nest'; models/ has net, other$"):
        pack_in(project, artifact.write_zip, "out.zip", model="nest")


def test_an_engine_that_a_model_lacks_is_an_error_with_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "MODELS_DIR", tmp_path)
    write_bundle(tmp_path, "rows", {"onnx": b"small"}, tabular=True)
    with pytest.raises(ModelError, match=r"^rows has no engine 'torch'; it has onnx$"):
        choose_engine(read_model("rows"), "torch")
    (tmp_path / "rows" / "network.onnx").unlink()
    with pytest.raises(ModelError, match=r"^rows lacks network.onnx of its engine 'onnx': fetch the bundle again$"):
        choose_engine(read_model("rows"))


@pytest.mark.parametrize(("target", "lock"), [("heroku", b"torch"), ("gcp_function", b"torch and functions-framework")])
def test_cloud_functions_gets_a_lock_of_its_own(tmp_path, pack_in, target, lock):
    project = make_project(tmp_path)
    own = project / FUNCTIONS_LOCK
    own.parent.mkdir(parents=True)
    own.write_bytes(b"torch and functions-framework")
    packed = pack_in(project, artifact.write_zip, "out.zip", target=target)
    assert members(project / packed.path) == SHIPPED | ROOT_FILES | {"requirements.txt": lock}


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_one_byte_more_is_another_hash(tmp_path, pack_in, write, name):
    project = make_project(tmp_path)
    before = pack_in(project, write, name)
    (project / "service" / "app.py").write_bytes(b"app.")
    assert pack_in(project, write, name).sha256 != before.sha256


def test_a_tar_knows_no_owner_no_time_and_one_mode(tmp_path, pack_in):
    project = make_project(tmp_path, upside_down=True)
    packed = pack_in(project, artifact.write_tar_gz, "out.tar.gz")
    with tarfile.open(project / packed.path) as archive:
        facts = {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, m.isreg()) for m in archive.getmembers()}
    assert facts == {(0o644, 0, 0, "", "", 0, True)}
    assert (project / packed.path).read_bytes()[3:8] == bytes(5)  # gzip's flags and clock: no name, no time


def test_a_zip_knows_no_time_and_one_mode(tmp_path, pack_in):
    project = make_project(tmp_path, upside_down=True)
    packed = pack_in(project, artifact.write_zip, "out.zip")
    with zipfile.ZipFile(project / packed.path) as archive:
        facts = {(m.external_attr >> 16, m.create_system, m.date_time) for m in archive.infolist()}
    assert facts == {(0o644, 3, (1980, 1, 1, 0, 0, 0))}


def test_a_folder_holds_the_files_and_nothing_of_an_earlier_time(tmp_path, pack_in):
    project = make_project(tmp_path)
    first = pack_in(project, artifact.write_folder, "image")
    (project / "service" / "app.py").unlink()
    (project / first.path / "left-behind").write_text("x")
    second = pack_in(project, artifact.write_folder, "image")
    root = project / second.path
    held = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert held == {k: v for k, v in (SHIPPED | ROOT_FILES).items() if k != "service/app.py"}
    assert second.path == "./.build/image"
    assert second.sha256 != first.sha256


def test_folder_hash_depends_on_names_and_contents_only(tmp_path, pack_in):
    here, there = make_project(tmp_path / "here"), make_project(tmp_path / "there", upside_down=True)
    first, second = (pack_in(folder, artifact.write_folder, "image") for folder in (here, there))
    assert first == second
    copies = [p for p in (there / second.path).rglob("*") if p.is_file()]
    assert {p.stat().st_mode & 0o777 for p in copies} == {0o644}  # BuildKit's hash of a folder counts modes
    (there / "service" / "app.py").rename(there / "service" / "other.py")
    assert pack_in(there, artifact.write_folder, "image").sha256 != first.sha256


def test_extra_files_come_along_under_the_names_they_are_given(tmp_path, pack_in):
    project = make_project(tmp_path)
    extra = {".hidden": project / "service" / "app.py", "main.py": project / "service" / "app.py"}
    packed = pack_in(project, artifact.write_tar_gz, "out.tar.gz", extra=extra)
    assert members(project / packed.path) == SHIPPED | ROOT_FILES | {".hidden": b"app", "main.py": b"app"}


@pytest.mark.parametrize("engine", ENGINES)
def test_project_artifact_is_service_and_model_without_litter(engine):
    names = set(artifact.deployment_files(engine=engine))
    assert {"service/wsgi.py", "service/Dockerfile", "service/static/samples/ship.png"} <= names
    model = "models/resnet18-cifar10"
    assert {name for name in names if name.startswith("models/")} == {
        f"{model}/model.json",
        f"{model}/self_test.json",
        f"{model}/reference.json",
        f"{model}/{read_model('resnet18-cifar10').engine(engine).file}",
    }
    assert {name for name in names if "/" not in name} == {"main.py", "requirements.txt"}
    assert {name.partition("/")[0] for name in names if "/" in name} == {"service", "models"}
    assert not [name for name in names if name.endswith((".pyc", ".DS_Store"))]


def test_a_renamed_file_has_another_digest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"the same")
    assert artifact.digest({"service/a.py": path}) != artifact.digest({"service/b.py": path})
