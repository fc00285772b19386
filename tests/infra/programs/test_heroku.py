"""infra/heroku: the app, its build in both modes, and what is sent."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from pathlib import Path

import pytest
import yaml

from infra.artifact import REPOSITORY, deployment_files
from infra.local.dockerfile import instructions
from infra.local.procfile import read_procfile
from service.settings import ENGINES
from tests.helpers.infra.program_runs import REQUIRED, TOKEN, make_checkout, refused, rehearse, well
from tests.offline_engine.engine import ProgramResult, run_program

pytestmark = pytest.mark.integration

APP = "heroku:app/app:App"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("heroku") / "checkout")


def run_and_unpack(checkout: Path, build: str, engine: str = "torch") -> tuple[ProgramResult, bytes]:
    """A run, and the tarball that it wrote."""
    config = REQUIRED["heroku"] | {"cloudtrial:build": build, "cloudtrial:engine": engine}
    run = well(run_program(checkout, "heroku", config, secrets={"cloudtrial:apiToken": TOKEN}))
    return run, (checkout / run.single("Build").inputs["source"]["path"]).read_bytes()


@pytest.fixture(scope="module")
def buildpack(checkout) -> tuple[ProgramResult, bytes]:
    return run_and_unpack(checkout, "buildpack")


@pytest.fixture(scope="module")
def container(checkout) -> tuple[ProgramResult, bytes]:
    return run_and_unpack(checkout, "container")


def files_in(tarball: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


def test_buildpack_app_names_its_stack_and_buildpack(buildpack):
    app = buildpack[0].single(APP).inputs
    assert app["name"] == "cloudtrial-example"
    assert (app["stack"], app["buildpacks"], app["region"]) == ("heroku-24", ["heroku/python"], "us")
    assert app["configVars"] == {}  # a restart of the old slug must be able to run with all of them


def test_the_container_app_has_no_buildpack(container):
    app = container[0].single(APP).inputs
    assert app["stack"] == "container"
    assert "buildpacks" not in app


def test_the_token_is_in_the_sensitive_map_alone(buildpack):
    app = buildpack[0].single(APP)
    assert app.unwrapped_inputs["sensitiveConfigVars"] == {"API_TOKEN": TOKEN}
    assert TOKEN not in app.cleartext


def test_without_a_token_the_sensitive_map_is_empty_not_absent():
    """Heroku's provider leaves the variables of a map that goes away on the app."""
    app = well(rehearse("heroku")).single(APP)
    assert app.unwrapped_inputs["sensitiveConfigVars"] == {}


def test_the_address_is_apps_own_without_a_slash_and_no_secret(buildpack):
    run = buildpack[0]
    assert run.outputs["url"] + "/" == run.single(APP).outputs["webUrl"]


@pytest.mark.parametrize("mode", ["buildpack", "container"])
def test_build_belongs_to_the_app_and_names_the_source_checksum(mode, request):
    run, tarball = request.getfixturevalue(mode)
    build, app = run.single("Build"), run.single(APP)
    assert build.inputs["appId"] == app.id
    assert build.inputs["source"] == {
        "path": "./.build/heroku.tar.gz",
        "version": hashlib.sha256(tarball).hexdigest()[:12],
    }


def test_the_dyno_waits_for_the_build(buildpack):
    run = buildpack[0]
    web = run.single("Formation")
    assert web.inputs == {"appId": run.single(APP).id, "type": "web", "size": "basic", "quantity": 1}
    assert run.single("Build").urn in web.dependencies


def test_region_size_and_dynos_come_from_the_settings():
    run = well(rehearse("heroku", {"region": "eu", "size": "standard-2x", "dynos": "3", "revision": "r7"}))
    assert run.single(APP).inputs["configVars"]["REVISION"] == "r7"
    assert run.single(APP).inputs["region"] == "eu"
    assert (run.single("Formation").inputs["size"], run.single("Formation").inputs["quantity"]) == ("standard-2x", 3)
    assert (run.outputs["region"], run.outputs["size"]) == ("eu", "standard-2x")


def test_the_buildpack_finds_its_files_at_the_root(buildpack):
    held = files_in(buildpack[1])
    assert set(held) == {*deployment_files(), ".python-version", "Procfile"}
    assert b"torch==" in held["requirements.txt"] and b"+cpu" in held["requirements.txt"]
    assert b"functions-framework" not in held["requirements.txt"]
    procfile = read_procfile(held["Procfile"].decode(), {"PORT": "5000"})
    assert procfile.command == ("python", "-m", "service.server") and "service/server.py" in held


def test_the_buildpack_gets_the_python_of_the_image(buildpack):
    wanted = files_in(buildpack[1])[".python-version"].decode().strip()
    base = next(
        rest for name, rest in instructions((REPOSITORY / "service" / "Dockerfile").read_text()) if name == "FROM"
    )
    assert base.startswith(f"python:{wanted}-")


def test_image_build_context_is_the_root_with_all_copied_files(container):
    """Heroku's context is the folder of the Dockerfile."""
    held = files_in(container[1])
    assert set(held) == {*deployment_files(), "heroku.yml", "Dockerfile"}
    manifest = yaml.safe_load(held["heroku.yml"])
    assert manifest["build"]["docker"] == {"web": "Dockerfile"}
    text = held["Dockerfile"].decode()  # a builder without BuildKit runs every stage of it
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE) == ["base", "torch", "common", "service"]
    copied = [rest.split()[:-1] for name, rest in instructions(text) if name == "COPY"]
    for source in (source for sources in copied for source in sources):
        assert any(name == source or name.startswith(f"{source}/") for name in held), source


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", ["buildpack", "container"])
def test_engine_model_and_commit_are_started_with_the_slug(mode, engine, checkout):
    run, tarball = run_and_unpack(checkout, mode, engine)
    held, sent = files_in(tarball), run.single("Command").inputs["environment"]
    line = held["Procfile"].decode() if mode == "buildpack" else yaml.safe_load(held["heroku.yml"])["run"]["web"]
    start = read_procfile(line if mode == "buildpack" else f"web: {line}", {})
    assert start.command == ("python", "-m", "service.server")
    assert start.env == {"ENGINE": engine, "MODEL_DIR": "models/resnet18-cifar10", "GIT_SHA": sent["GIT_SHA"]}
    assert sent["GIT_SHA"].startswith("unversioned-")  # the checkout is no repository of git


def test_up_ends_when_the_new_dyno_says_what_it_runs(buildpack):
    run = buildpack[0]
    ready = run.single("Command")
    env = ready.unwrapped_inputs["environment"]
    assert env["URL"] == run.outputs["url"]
    assert "heroku logs --app cloudtrial-example" in env["ADVICE"]
    assert ready.inputs["triggers"] == [env["GIT_SHA"], hashlib.sha256(buildpack[1]).hexdigest(), "basic"]
    assert run.single("Formation").urn in ready.dependencies
    assert "API_TOKEN" not in env


def test_a_closed_status_is_asked_with_the_token():
    ready = well(rehearse("heroku", {"protectStatus": "true"}, token=True)).single("Command")
    assert ready.unwrapped_inputs["environment"]["API_TOKEN"] == TOKEN and TOKEN not in ready.cleartext


@pytest.mark.parametrize("mode", ["buildpack", "container"])
def test_onnx_tarball_requires_no_torch_and_has_no_torch_weights(mode, checkout):
    run, tarball = run_and_unpack(checkout, mode, "onnx")
    held = files_in(tarball)
    assert run.single(APP).inputs["configVars"] == {}
    assert "models/resnet18-cifar10/int8.onnx" in held and "models/resnet18-cifar10/weights.safetensors" not in held
    assert b"onnxruntime==" in held["requirements.txt"] and b"torch==" not in held["requirements.txt"]


def test_the_onnx_engines_image_is_built_with_its_build_argument(checkout):
    held = files_in(run_and_unpack(checkout, "container", "onnx")[1])
    manifest = yaml.safe_load(held["heroku.yml"])
    assert manifest["build"] == {"docker": {"web": "Dockerfile"}, "config": {"ENGINE": "onnx"}}
    assert ("ARG", "ENGINE=torch") in instructions(held["Dockerfile"].decode())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param({"appName": "ab"}, "3 to 30", id="short-name"),
        pytest.param({"appName": "Trial"}, "a-z", id="capital-in-name"),
        pytest.param({"appName": "trial-"}, "no - last", id="dash-last"),
        pytest.param({"region": "us-east-1"}, "one of us, eu", id="region-of-another-cloud"),
        pytest.param({"size": "hobby"}, "one of eco, basic", id="size-no-longer-sold"),
        pytest.param({"dynos": "0"}, "from 1 to 10", id="no-dyno"),
        pytest.param({"dynos": "11"}, "from 1 to 10", id="dynos-by-mistake"),
        pytest.param({"dynos": "2"}, "one basic dyno", id="two-basic-dynos"),
        pytest.param({"dynos": "2", "size": "eco"}, "one eco dyno", id="two-eco-dynos"),
        pytest.param({"build": "docker"}, "one of buildpack, container", id="unknown-build"),
    ],
)
def test_invalid_setting_is_refused(config, reason):
    message = refused(rehearse("heroku", config))
    assert reason in message
    assert all(value in message for value in config.values() if value != "eco")


def test_missing_app_name_is_refused_with_the_command_to_set_it(checkout):
    assert "pulumi config set cloudtrial:appName" in refused(run_program(checkout, "heroku"))
