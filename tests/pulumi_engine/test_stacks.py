"""Every stack's life under the real pulumi: the Makefile's own commands, over clouds that are invented."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from eval.targets.stacks import stack_endpoint
from tests.helpers.infra.program_runs import STACKS, TOKEN, WEB_STACKS
from tests.pulumi_engine.fake_cloud import FakeCloud
from tests.pulumi_engine.pulumi_project import (
    Done,
    PulumiProject,
    find_pulumi,
    passed,
    pulumi_project,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.pulumi]

NO_CHANGES = "--expect-no-changes"


@dataclass(frozen=True)
class Deployed:
    """A stack that has been deployed once, and what its commands printed."""

    project: PulumiProject
    preview: Done
    up: Done


@pytest.fixture(scope="module", params=STACKS)
def deployed(request, tmp_path_factory):
    with pulumi_project(request.param, tmp_path_factory.mktemp(request.param), FakeCloud()) as project:
        if request.param in WEB_STACKS:
            project.set("cloudtrial:apiToken", TOKEN, secret=True)
        if request.param == "aws_ec2":
            project.set("cloudtrial:allowTokenOverHttp", "true")
        yield Deployed(project, passed(project.make("preview")), project.up())


@pytest.fixture
def project(deployed):
    return deployed.project


def test_up_creates_what_the_preview_said(deployed):
    created = {step.removeprefix("create ") for step in deployed.project.cloud.log if step.startswith("create ")}
    assert created == {step.removeprefix("+ ") for step in deployed.preview.steps} and created


def test_second_preview_has_no_changes(project):
    passed(project.make("preview", NO_CHANGES))


def test_refresh_and_drift_find_nothing(project):
    passed(project.make("refresh", "--yes", NO_CHANGES))
    passed(project.make("drift"))


def test_secret_is_encrypted_in_the_state_and_printed_nowhere(deployed):
    project = deployed.project
    secret = TOKEN if project.stack in WEB_STACKS else "ecr-password"  # of the registry
    shown = (deployed.preview, deployed.up, project.make("outputs"), project.pulumi("stack", "export"))
    assert all(secret not in text for text in (*(done.text for done in shown), project.state_text()))
    assert '"ciphertext"' in project.state_text()
    assert secret in passed(project.pulumi("stack", "export", "--show-secrets")).text


def test_eval_reads_the_stacks_outputs(project, monkeypatch):
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    endpoint = stack_endpoint(str(find_pulumi()), project.stack)
    assert endpoint.target == project.stack and re.match(r"https?://\S+$", endpoint.url)


def test_down_leaves_nothing(project):
    """Runs last of a stack's tests."""
    passed(project.make("down", "--yes"))
    assert not project.cloud.resources and not project.resources()
