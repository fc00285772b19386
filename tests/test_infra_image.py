"""The image that Cloud Run serves, really built from what its program ships, and run as that runs it."""

from __future__ import annotations

import psutil
import pytest
from debian_kit import assert_answers_as_reference, prepare, workplace
from image_kit import Builder, base_of, family
from infra_kit import REQUIRED, make_checkout, well

from infra.local.ready import free_ports, wait_until_ready
from infra.offline.engine import run_program

USER_ID = 10001
START_TIMEOUT_S = 300  # on a cold disk and a busy machine


@pytest.fixture(scope="module")
def ground(complain, needs_tool, say):
    """The Debian trees and their torch."""
    return prepare(complain, needs_tool, say, "buildah")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The Dockerfile, its context, and what the platform sets, as the program registers them."""
    root = make_checkout(tmp_path_factory.mktemp("image") / "checkout")
    run = well(run_program(root, "gcp_cloudrun", REQUIRED["gcp_cloudrun"]))
    (image,) = [each.plain for each in run.resources.values() if each.type == "docker-build:index:Image"]
    (service,) = [each.plain for each in run.resources.values() if each.type == "gcp:cloudrunv2/service:Service"]
    (container,) = service["template"]["containers"]
    env = {each["name"]: each["value"] for each in container["envs"]}
    return root / image["dockerfile"]["location"], root / image["context"]["location"], env


def test_the_unmodified_dockerfile_builds_and_classifies_as_its_own_user(ground, shipped, needs_tool, say):
    trees, torch = ground
    dockerfile, context, env = shipped
    (port,) = free_ports(1)
    with workplace("image") as folder:
        builder = Builder(needs_tool("buildah"), folder, torch)
        builder.make_base(trees / "image", base_of(dockerfile))
        builder.build(dockerfile, context)
        assert builder.config()["User"] == str(USER_ID)
        with builder.run(env | {"PORT": str(port)}) as process:
            wait_until_ready(port, [process], START_TIMEOUT_S)
            assert_answers_as_reference(port)
            servers = [each for each in family(process) if each.name() == "gunicorn"]
            assert servers and {each.uids() for each in servers} == {(USER_ID,) * 3}
    say(f"built on a stand-in for {base_of(dockerfile)}, Debian with its own Python; answered as user {USER_ID}")
    assert not any(map(psutil.Process.is_running, servers))
