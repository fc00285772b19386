"""SageMaker's twin: `serve` of its image behind InvokeEndpoint, with the model that is mounted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from eval.targets.sagemaker.invoke import invoke_twin
from infra.artifact import REPOSITORY
from infra.errors import PlatformFileError
from infra.local.following.twin_store import TwinStore
from infra.local.invoke_endpoint.process import ENDPOINT, signed_example
from infra.local.running.starter import available_cores, cores_for
from infra.local.staging import stage
from infra.local.start_commands import aws_sagemaker_process, mounted_model
from infra.local.twins import local_twins
from infra.models import DEFAULT_MODEL
from infra.targets import AWS_SAGEMAKER
from service.schema import INSTANCE_ID, JSON_TYPE
from store.model_store import ModelStore
from tests.conftest import picture_bytes
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.sagemaker import aws_client

pytestmark = pytest.mark.integration

PNG = "image/png"


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    with local_twins(["aws_sagemaker"], tmp_path_factory.mktemp("logs"), engines=["onnx"]) as twins:
        assert twins.failures == {}
        yield twins.running[0]


def instance(twin) -> str:
    answer = invoke_twin(twin.url, picture_bytes(), PNG)
    assert answer.status == 200, answer.body
    return answer.headers[INSTANCE_ID]


def plain(twin, path: str, body: bytes | None = None) -> int:
    """The status of a request without a signature."""
    request = urllib.request.Request(f"http://127.0.0.1:{twin.port}{path}", body, {"Content-Type": PNG})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def environment(twin) -> dict[str, str]:
    return psutil.Process(twin.pid).environ()


def test_awss_own_client_is_answered(twin):
    client = aws_client(f"http://127.0.0.1:{twin.port}")
    answer = client.invoke_endpoint(EndpointName=ENDPOINT, ContentType=PNG, Body=picture_bytes())
    assert json.load(answer["Body"])["model"]["name"] == DEFAULT_MODEL
    assert f"instance_id={instance(twin)}" in answer["CustomAttributes"]


def test_the_command_that_twins_prints_is_answered(twin):
    command = signed_example(twin.port).replace("./cloudtrial", f"{sys.executable} {REPOSITORY / 'cloudtrial'}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "as the service takes them" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "status"), [("/predict", 404), ("/version", 404), (f"/endpoints/{ENDPOINT}/invocations", 403)]
)
def test_nothing_but_a_signed_invocation_passes(twin, path, status):
    assert plain(twin, path, picture_bytes()) == status


def test_without_a_mounted_model_the_images_own_is_served(twin):
    env = environment(twin)
    assert env["MODEL_DIR"].endswith(f"models/{DEFAULT_MODEL}") and not Path(env["SM_MODEL_DIR"]).exists()
    assert (env["ENGINE"], twin.proxy) == ("onnx", "InvokeEndpoint")


def test_the_front_is_awss_and_counts_for_nothing(twin):
    (front,) = twin.platform
    assert len(twin.processes) == 1
    assert 50 < twin.peak_memory_mib() == pytest.approx(twin.processes[0].peak_memory_mib())
    if available := getattr(psutil.Process(front.pid), "cpu_affinity", None):
        assert available() == available_cores()
        assert psutil.Process(twin.pid).cpu_affinity() == cores_for(AWS_SAGEMAKER, available_cores())


def test_sigterm_ends_serve_itself_and_the_front_stays(twin):
    before, front, address = instance(twin), twin.platform[0].pid, twin.url
    assert psutil.Process(twin.pid).cmdline()[1:] == ["-m", "service.server"]  # no shell is left to get the signal
    twin.stop()
    assert (twin.processes[0].exit_status(), twin.platform[0].exit_status()) == (0, None)
    assert plain(twin, "/ping") == 503
    twin.restart()
    assert (instance(twin) != before, twin.platform[0].pid, twin.url) == (True, front, address)


def test_a_twin_that_was_stopped_wholly_leaves_nothing(tmp_path):
    with local_twins(["aws_sagemaker"], tmp_path, engines=["onnx"]) as twins:
        (twin,) = twins.running
        assert all(process.members() for process in twin.everything)
        twin.stop(everything=True)
        assert not any(process.members() for process in twin.everything)
        assert (twin.alive(), twin.crashed()) == (False, False)
        twin.restart()
        assert instance(twin)


def test_a_stores_version_is_mounted_a_release_mounts_another(tmp_path):
    store = ModelStore.open(tmp_path / "store")
    followed = TwinStore(tmp_path / "store", "tiny@prod")

    def push(weight: float) -> str:
        folder = write_bundle(tmp_path / str(weight), ["dark", "bright"], weight=weight)
        version = store.push(folder).version
        store.move_alias("tiny", "prod", version, reason="a test")
        return version

    push(20.0)
    with local_twins(["aws_sagemaker"], tmp_path, engines=(), store=followed) as twins:
        (twin,) = twins.running
        env, before = environment(twin), ask_tiny(twin)
        assert env["MODEL_DIR"] == env["SM_MODEL_DIR"] == str(mounted_model(Path(env["HOME"]) / "app"))
        version = push(30.0)
        assert ask_tiny(twin) == before  # until the endpoint is updated
        assert twin.release() == version
        after = ask_tiny(twin)
        assert after["model"]["version"] != before["model"]["version"]
        assert after["label"] == before["label"] == "bright"


def ask_tiny(twin) -> dict:
    answer = invoke_twin(twin.url, one_coloured(255), PNG)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_a_model_of_rows_is_invoked_with_json(tmp_path):
    with local_twins(["aws_sagemaker"], tmp_path, engines=(), model="iris") as twins:
        assert twins.failures == {}
        answer = invoke_twin(twins.running[0].url, b"[5.1, 3.5, 1.4, 0.2]", JSON_TYPE)
        assert json.loads(answer.body)["label"] == "setosa"


def test_an_image_that_starts_another_program_is_refused(tmp_path):
    root = stage(tmp_path / "app", target="aws_sagemaker")
    (root / "service").unlink()
    (root / "service").mkdir()
    text = (REPOSITORY / "service" / "Dockerfile").read_text(encoding="utf-8")
    (root / "service" / "Dockerfile").write_text(text.replace('CMD ["serve"]', 'CMD ["answer"]'), encoding="utf-8")
    with pytest.raises(PlatformFileError, match="CMD answer: there is none in infra/aws_sagemaker"):
        aws_sagemaker_process(root, 4711)
