"""A target's twins with either engine: their names, what starts them, what they hold, how much is shipped for them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from infra import models
from infra.artifact import REPOSITORY, deployment_files
from infra.errors import NotMeasured, TwinError
from infra.local.artifact_size import installed_bytes, measure_artifact
from infra.local.staging import stage
from infra.local.start_commands import START_COMMANDS
from infra.local.twins import local_twins
from infra.targets import TARGETS, read_stack
from service.engines.names import engine_named, read_engines, titled, twin_name, twin_names
from service.settings import ENGINES
from tests.conftest import descendants
from tests.helpers.bundles import write_bundle

pytestmark = pytest.mark.integration

# Names


def test_twins_of_a_target_are_adjacent_and_torchs_has_no_suffix():
    assert twin_names(["heroku", "aws_ec2"], ENGINES) == ["heroku", "heroku-onnx", "aws_ec2", "aws_ec2-onnx"]
    assert twin_names(["heroku"], ["onnx"]) == ["heroku-onnx"]


@pytest.mark.parametrize("engine", ENGINES)
def test_twin_name_is_a_valid_stack_name_and_says_its_engine(engine):
    name = twin_name("gcp_function", engine)
    assert read_stack(name)[0] is TARGETS["gcp_function"]
    assert engine_named(name) == engine


def test_only_the_other_engine_is_part_of_a_title():
    assert [titled("Heroku", engine) for engine in (*ENGINES, None)] == ["Heroku", "Heroku (ONNX int8)", "Heroku"]


def test_engines_are_read_once_each_in_one_order():
    assert read_engines("onnx, torch,onnx") == ["torch", "onnx"]


@pytest.mark.parametrize(
    ("text", "says"), [("torch,tflite", "'tflite' is not an engine; there are torch, onnx"), (",", "names no engine")]
)
def test_an_engine_that_is_none_is_refused_with_those_that_are(text, says):
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        read_engines(text)


# Starting


@pytest.mark.parametrize("name", TARGETS)
def test_start_commands_of_both_engines_differ_only_in_engine(name, tmp_path):
    torch, onnx = (START_COMMANDS[name](stage(tmp_path / each, each, target=name), 4711, each) for each in ENGINES)
    assert torch.command == onnx.command
    assert torch.env.items() ^ onnx.env.items() == {("ENGINE", "torch"), ("ENGINE", "onnx")}


def version(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/version", timeout=10) as answer:
        return json.load(answer)


def test_twins_of_a_target_run_together_each_with_its_own_engine(tmp_path):
    events: list[str] = []
    with local_twins(["heroku"], tmp_path, on_event=events.append, engines=ENGINES) as twins:
        assert twins.failures == {}
        assert [twin.name for twin in twins.running] == ["heroku", "heroku-onnx"]
        assert [version(twin.url)["engine"] for twin in twins.running] == list(ENGINES)
        torch, onnx = twins.running
        assert onnx.peak_memory_mib() < torch.peak_memory_mib()
        if sys.platform == "linux":
            shipped = {path.name for path in Path(f"/proc/{onnx.pid}/cwd").resolve().glob("models/*/*")}
            assert shipped == {"model.json", "int8.onnx", "self_test.json", "reference.json"}
            service = psutil.Process(onnx.pid)
            loaded = [Path(f"/proc/{one.pid}/maps").read_text() for one in (service, *service.children(recursive=True))]
            assert "onnxruntime" in "".join(loaded) and "libtorch" not in "".join(loaded)
            clock = onnx.cpu_clock()
            for _ in range(20):
                version(onnx.url)
            assert clock.lap_ms() > 0  # of the child that answers: its parent only waits
        assert (tmp_path / "heroku-onnx.log").stat().st_size > 0
    assert descendants() == []
    assert any(event.startswith("Heroku (ONNX int8): ready after") for event in events)


def test_a_twin_serves_the_model_of_its_name_alone(tmp_path, monkeypatch):
    write_bundle(tmp_path / "models" / "rows", ["no", "yes"], features=["width"], name="rows")
    monkeypatch.setattr(models, "MODELS_DIR", tmp_path / "models")
    with local_twins(["heroku"], tmp_path / "logs", engines=["onnx"], model="rows") as twins:
        assert twins.failures == {}
        (twin,) = twins.running
        assert (twin.name, twin.title) == ("heroku-onnx", "Heroku")  # the model has no other engine to tell apart
        assert version(twin.url)["model"]["name"] == "rows"
        body = urllib.request.Request(f"{twin.url}/predict", b"[10]", {"Content-Type": "application/json"})
        with urllib.request.urlopen(body, timeout=10) as answer:
            assert json.load(answer)["label"] == "yes"


def test_an_unknown_model_of_twins_is_one_line(tmp_path):
    with pytest.raises(TwinError, match=r"^no model is called 'rowz'; models/ has "), local_twins(model="rowz"):
        pass


def test_env_of_a_twin_is_looked_up_by_its_own_name(tmp_path):
    env = {"heroku-onnx": {"MODEL_DIR": "models/none-of-this-name"}}
    with local_twins(["heroku"], tmp_path, env, engines=["onnx"]) as twins:
        assert twins.running == []
        assert list(twins.failures) == ["heroku-onnx"]


def test_the_program_refuses_an_unknown_engine():
    command = [sys.executable, "-m", "infra.local", "--engines", "tflite"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "'tflite' is not an engine; there are torch, onnx" in ran.stderr


# Sizes


def install(folder: Path, name: str, version: str, size: int, *requires: str) -> None:
    """A distribution with one file of that size, a compiled one beside it, and what it requires."""
    (folder / f"{name}.py").write_bytes(b"#" * size)
    (folder / f"{name}.pyc").write_bytes(b"#" * 1000)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "RECORD").write_text(f"{name}.py,,\n{name}.pyc,,\n")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Made-up libraries that need one another."""
    install(
        tmp_path, "made_one", "1.0", 10, "made-two>=1", "made-three; python_version < '3'", "made-four; extra == 'x'"
    )
    install(tmp_path, "made_two", "2.0", 200, "made_one")
    install(tmp_path, "made_four", "4.0+cpu", 4000)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("requirements", "size"),
    [
        pytest.param("# so\nmade-two==2.0 # why\n", 210, id="and what it needs"),
        pytest.param("made_one==1.0\nMade.Two==2.0\n", 210, id="each once"),
        pytest.param("made_one[x]==1.0\n", 4210, id="with an extra"),
        pytest.param("made_four==4.0+cpu\n", 4000, id="the very build"),
        pytest.param("made_two; sys_platform == 'none'\n", 0, id="not on this machine"),
    ],
)  # fmt: skip
def test_library_size_counts_dependencies_and_no_compiled_files(environment, requirements, size):
    assert installed_bytes(requirements) == size


@pytest.mark.parametrize(
    ("requirements", "says"),
    [
        ("made_two==2.1", "made_two is 2.0 here, and not made_two==2.1"),
        ("made_two==2.0+cpu", r"made_two is 2.0 here, and not made_two==2.0\+cpu"),
        ("made_five==1", "made_five is not installed here"),
        ("made two", "'made two' in an .in file is not one requirement"),
        ("-r other.txt", "'-r other.txt' in an .in file is not one requirement"),
    ],
    ids=["version", "build", "missing", "garbage", "another file"],
)
def test_library_size_needs_the_shipped_versions_installed(environment, requirements, says):
    with pytest.raises(NotMeasured, match=says):
        installed_bytes(requirements)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_shipped_for_an_engine_has_a_size(engine):
    size = measure_artifact(engine, "heroku")
    assert size.files_bytes == sum(path.stat().st_size for path in deployment_files(engine=engine).values())
    assert (size.installed_bytes is None) == bool(size.reason)


def test_onnx_twins_libraries_have_the_shipped_versions_here():
    server, function = (measure_artifact("onnx", target) for target in ("heroku", "gcp_function"))
    assert (server.reason, function.reason) == (None, None)
    assert all(20e6 < size.installed_bytes < 300e6 for size in (server, function))
    assert server.installed_bytes != function.installed_bytes  # each has a server of its own
