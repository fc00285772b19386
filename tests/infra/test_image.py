"""The images of Cloud Run and of SageMaker, really built from what is shipped, and run as these run them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from infra.artifact import deployment_files
from infra.local.health import free_ports, wait_until_ready
from service.model import load_bundle
from service.settings import ENGINES
from tests.helpers.class_folders import write_class_folders
from tests.helpers.infra.debian_trees import TOLERANCES, assert_answers_as_reference, choose_torch, prepare, workplace
from tests.helpers.infra.image_build import Builder, base_of, family
from tests.helpers.infra.program_runs import REQUIRED, make_checkout, well
from tests.helpers.running_service import Server
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.root

USER_ID = 10001
START_TIMEOUT_S = 300  # on a cold disk and a busy machine
SAGEMAKER_GRACE_S = 30  # from SIGTERM to SIGKILL
OTHERS_LIBRARY = {"torch": "onnxruntime", "onnx": "torch"}


@pytest.fixture(scope="module")
def ground(complain, needs_tool, say):
    """The Debian trees and their torch."""
    if (torch := choose_torch()) is None:
        complain("PyTorch's CPU index cannot be reached, and a torch for Python 3.11 would have to stand in")
    say(torch.said)
    return prepare(complain, needs_tool, "buildah"), torch


@pytest.fixture(scope="module")
def builder(ground, needs_tool):
    """buildah, with the base that both images share. Torch's stand-in is mounted into both; only one installs it."""
    trees, torch = ground
    with workplace("image") as folder:
        builder = Builder(needs_tool("buildah"), folder, torch)
        builder.make_base(trees / "image")
        yield builder


def shipped(engine, checkout):
    """The Dockerfile, its context, its arguments, and what the platform sets, as the program registers them."""
    root = make_checkout(checkout, with_weights=True)
    config = REQUIRED["gcp_cloudrun"] | {"cloudtrial:engine": engine}
    run = well(run_program(root, "gcp_cloudrun", config))
    (image,) = [each.unwrapped_inputs for each in run.of_type("docker-build:index:Image")]
    (service,) = [each.unwrapped_inputs for each in run.of_type("gcp:cloudrunv2/service:Service")]
    (container,) = service["template"]["containers"]
    env = {each["name"]: each["value"] for each in container["envs"]}
    return root / image["dockerfile"]["location"], root / image["context"]["location"], image["buildArgs"], env


@pytest.mark.parametrize("engine", ENGINES)
def test_image_serves_from_read_only_files_as_its_own_user(engine, ground, builder, needs_tool, tmp_path, say):
    dockerfile, context, args, env = shipped(engine, tmp_path / "checkout")
    (port,) = free_ports(1)
    builder.build(dockerfile, context, args)
    assert builder.config()["User"] == str(USER_ID)
    assert f"ENGINE={engine}" in builder.config()["Env"]
    installed = builder.installed()
    assert engine in " ".join(installed) and OTHERS_LIBRARY[engine] not in installed
    with builder.run(needs_tool("systemd-nspawn"), env | {"PORT": str(port)}) as process:
        wait_until_ready(port, [process], START_TIMEOUT_S)
        assert_answers_as_reference(port, TOLERANCES[engine])
        servers = [each for each in family(process) if "service.server" in each.cmdline()]
        assert servers and {each.uids() for each in servers} == {(USER_ID,) * 3}
        mounts = [line.split() for line in Path(f"/proc/{servers[0].pid}/mounts").read_text().splitlines()]
        writable = {place for _, place, _, options, *_ in mounts if "rw" in options.split(",")}
        assert "/tmp" in writable and not [place for place in writable if place.startswith(("/app", "/usr", "/var"))]
        assert "/" not in writable
    base = base_of(dockerfile)
    say(f"{engine}: built on a stand-in for {base}, Debian with its own Python; ran read-only as user {USER_ID}")
    assert not any(map(psutil.Process.is_running, servers))


def test_sagemaker_image_trains_a_model_and_serves_it(ground, builder, needs_tool, tmp_path, say):
    context, ml, (port,) = tmp_path / "context", tmp_path / "ml", free_ports(1)
    for name, path in deployment_files(engine="torch", target="aws_sagemaker").items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_bytes(path.read_bytes())
    builder.build(context / "service" / "Dockerfile", context, {"ENGINE": "torch"}, stage="sagemaker")
    assert not builder.config().get("User") and builder.config()["Cmd"] == ["serve"]
    write_class_folders(ml / "input" / "data" / "train", {"ant": 12, "bee": 12})
    write_class_folders(ml / "input" / "data" / "test", {"ant": 6, "bee": 6}, seed=1)
    (ml / "model").mkdir()
    with builder.run(needs_tool("systemd-nspawn"), {}, ["train"], {"/opt/ml": ml}) as process:
        assert psutil.Process(process.pid).wait() == 0, process.log_tail()
    assert load_bundle(ml / "model").classes == ("ant", "bee")
    image = next((ml / "input" / "data" / "test" / "bee").iterdir()).read_bytes()
    settings = {"SAGEMAKER_BIND_TO_PORT": str(port)}
    with builder.run(needs_tool("systemd-nspawn"), settings, ["serve"], {"/opt/ml": ml}) as process:
        wait_until_ready(port, [process], START_TIMEOUT_S)
        reply = Server(port, None, None).post("/predict", image, "image/png")
        assert (reply.status, reply.json["label"], reply.json["model"]["name"]) == (200, "bee", "classifier")
        server = next(each for each in family(process) if each.cmdline()[1:3] == ["-m", "service.server"])
        server.terminate()
        assert psutil.Process(process.pid).wait(timeout=SAGEMAKER_GRACE_S) == 0, process.log_tail()
    say("SageMaker's image: `train` fine-tuned EfficientNet-Lite0 on 24 images, `serve` answered with that model")
