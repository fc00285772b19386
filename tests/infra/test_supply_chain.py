"""What is fetched while the project is built, tested and deployed: by a digest, a commit, a hash or a signature."""

from __future__ import annotations

import re

import pytest
import yaml

from infra.artifact import REPOSITORY
from infra.local.dockerfile import instructions
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
LOCKED = re.compile(r"--require-hashes --only-binary :all:")
# What installs Python packages on a VM or into an image. Heroku's and Google's builds run pip themselves: a lock whose
# lines have hashes makes it refuse all that has none.
INSTALLERS = ("infra/aws_ec2/bootstrap", "service/Dockerfile")


def jobs():
    for path in WORKFLOWS:
        yield from yaml.safe_load(path.read_text())["jobs"].items()


def test_every_action_is_named_by_commit_and_says_its_version():
    texts = [path.read_text() for path in (*WORKFLOWS, *ACTIONS)]
    lines = [line for text in texts for line in text.splitlines() if re.match(r"[ -]*uses:", line)]
    assert len(lines) > 10
    for line in lines:
        if workflow := re.fullmatch(r" +uses: \./(\.github/workflows/[a-z_]+\.yml)", line):
            assert ROOT / workflow[1] in WORKFLOWS
            continue
        own = re.fullmatch(r" +- uses: \./(\.github/actions/[a-z]+)", line)
        assert own or re.fullmatch(r"[ -]+uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
        assert not own or (ROOT / own[1] / "action.yml") in ACTIONS


def test_no_checkout_leaves_a_credential_and_no_job_may_write():
    """The deployments' rights: tests/infra/test_workflows.py."""
    for name, job in jobs():
        checkouts = [step for step in job.get("steps", ()) if step.get("uses", "").startswith("actions/checkout@")]
        assert {step["with"]["persist-credentials"] for step in checkouts} <= {False}, name
        assert job.get("permissions", {}).get("contents", "read") == "read"
    rights = {path.name: yaml.safe_load(path.read_text())["permissions"] for path in WORKFLOWS}
    assert rights.pop("test.yml") == {"contents": "read"}
    assert set(rights) == {"deploy.yml", "release.yml", "release_stage.yml"} and not any(rights.values())


def test_every_image_is_named_by_its_digest():
    images = [job["container"]["image"] for _, job in jobs() if "container" in job]
    stages = [rest for name, rest in instructions((REPOSITORY / "service/Dockerfile").read_text()) if name == "FROM"]
    own = {stage.split()[-1] for stage in stages} | {"${ENGINE}"}
    images += [stage.split()[0] for stage in stages if stage.split()[0] not in own]
    assert len(images) == 2
    for image in images:
        assert re.fullmatch(r"python:3\.11-[a-z-]+@sha256:[0-9a-f]{64}", image), image


@pytest.mark.parametrize("path", INSTALLERS)
def test_pip_installs_wheels_by_hash_alone(path):
    text = (REPOSITORY / path).read_text().replace("\\\n", " ")
    lines = [re.sub(" +", " ", line) for line in text.splitlines() if re.search(r"pip\"? install ", line)]
    assert lines and all(LOCKED.search(line) for line in lines), lines


def test_dependabot_watches_actions_images_and_packages():
    config = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    updates = config["updates"]
    watched = {each["package-ecosystem"]: each.get("directories", [each.get("directory")]) for each in updates}
    assert set(watched) == {"github-actions", "docker", "docker-compose", "pip"}
    assert [(ROOT / folder.strip("/") / "Dockerfile").is_file() for folder in watched["docker"]] == [True]
    assert [(ROOT / folder.strip("/") / "compose.yaml").is_file() for folder in watched["docker-compose"]] == [True]
    folders = {f"/{action.parent.relative_to(ROOT)}" for action in ACTIONS}
    assert set(watched["github-actions"]) == {"/", *folders}  # the first is that of the workflows
    for folder in watched["pip"]:
        assert [*(ROOT / folder.strip("/")).glob("requirements*")], folder


def test_the_workflow_audits_every_lock():
    runs = [step.get("run") for _, job in jobs() for step in job.get("steps", ())]
    assert "make audit" in runs and "make sbom" in runs
    script = (ROOT / "scripts" / "audit").read_text()
    locks = [path for each in ("service", "infra/*_*", "eval/**") for path in ROOT.glob(f"{each}/requirements*.txt")]
    assert len(locks) == 7 and all(str(lock.relative_to(ROOT)) in script for lock in locks)
    assert "--strict" in script  # a package that was not looked up is a failure
