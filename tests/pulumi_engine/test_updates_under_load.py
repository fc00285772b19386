"""Answers lost, by count, while `make up` fails and while it passes, under the real pulumi: one request every 10 ms."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.pulumi_engine.live_cloud import LiveCloud, live_cloud
from tests.pulumi_engine.live_servers import Stream, stream_of_requests
from tests.pulumi_engine.pulumi_project import PulumiProject, failed, passed, pulumi_project

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.pulumi]

UP = ("up", "--yes", "--skip-preview")


@dataclass(frozen=True)
class Deployment:
    """A stack with its first version, under load."""

    project: PulumiProject
    live: LiveCloud

    def change_code(self) -> None:
        """Another version of what is shipped."""
        with (self.project.root / "service" / "server.py").open("a", encoding="utf-8") as source:
            source.write("# another version\n")

    def up(self, name: str, *, fails: bool = False) -> tuple[Stream, str]:
        """`make up`, which has to fail or to pass, and what its requests met with meanwhile."""
        with stream_of_requests(self.live.front) as stream:
            done = self.project.make(*UP)
        text = failed(done) if fails else passed(done).text
        print(f"| {self.project.stack} | {name} | {len(stream.answers)} | {stream.lost} | {len(stream.versions)} |")
        return stream, text

    @property
    def serving(self) -> str:
        """Who answers now."""
        assert self.live.front.version
        return self.live.front.version.git_sha


@contextmanager
def deployment(stack, tmp_path):
    with live_cloud(tmp_path / "checkout") as live, pulumi_project(stack, tmp_path, live.cloud) as project:
        project.up()
        yield Deployment(project, live)


def lose_nothing(deployed: Deployment) -> str:
    """A version that never gets ready, then a good one; both lose nothing. Returns what the failed one printed."""
    first = deployed.serving
    deployed.change_code()
    deployed.live.broken = True
    stream, text = deployed.up("never ready", fails=True)
    assert (stream.lost, stream.versions, deployed.serving) == (0, [first], first)
    deployed.change_code()
    deployed.live.broken = False
    stream, _ = deployed.up("good")
    assert (stream.lost, stream.versions) == (0, [first, deployed.serving]) and deployed.serving != first
    return text


def test_ec2_loses_no_answer(tmp_path):
    with deployment("aws_ec2", tmp_path) as deployed:
        text = lose_nothing(deployed)
        assert "The VM before it still serves." in text and "pulumi up --replace" in text
        assert len(deployed.live.versions) == 1  # the VM before, and the one that failed, are gone


@pytest.mark.parametrize("stack", ["gcp_cloudrun", "gcp_function"])
def test_google_loses_no_answer(stack, tmp_path):
    with deployment(stack, tmp_path) as deployed:
        text = lose_nothing(deployed)
        assert "is not ready and cannot serve traffic" in text


def test_heroku_loses_those_of_one_restart_alone(tmp_path):
    with deployment("heroku", tmp_path) as deployed:
        first = deployed.serving
        deployed.project.set("cloudtrial:engine", "onnx")
        deployed.live.build_fails = True
        stream, _ = deployed.up("another engine, whose build fails", fails=True)
        assert (stream.lost, stream.versions, deployed.serving) == (0, [first], first)
        deployed.live.build_fails = False
        deployed.change_code()
        stream, _ = deployed.up("another engine")
        assert stream.versions == [first, deployed.serving] and stream.gaps == 1
        deployed.change_code()
        deployed.live.broken = True
        stream, text = deployed.up("never ready", fails=True)
        assert stream.gaps == 1 and stream.answers[-1] is None  # Heroku has no other dyno: the error says what to do
        assert "heroku rollback --app cloudtrial-example" in text
