"""Where a release deploys: stacks, by the commands that are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eval.mock_server.profile import EndpointProfile
from eval.progress import Reporter
from release.environments.stacks import StackStages
from release.errors import ReleaseError
from release.measure import CANDIDATE, PRODUCTION, Meter
from release.plan import BETA, GAMMA, PROD
from service.model import load_bundle
from service.store_layout import version_of
from tests.helpers.mock_endpoint import pictures, running_mock_endpoint
from tests.helpers.quick_release import make_plan
from tests.helpers.store_bundles import plain_bundle

PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
[ "$1 $2" = "stack output" ] && echo '{{"url": "http://127.0.0.1:9/'"$5"'"}}'
exit {code}
"""


@pytest.fixture
def stacks(tmp_path, monkeypatch):
    """Stacks of two targets, deployed by programs that write down their arguments; `fail` lets one fail."""
    calls = tmp_path / "calls"
    folder = tmp_path / "bin"
    folder.mkdir()

    def program(name: str, code: int = 0) -> None:
        (folder / name).write_text(PROGRAM.format(calls=calls, code=code))
        (folder / name).chmod(0o755)

    program("make"), program("pulumi")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr("release.environments.stacks.ROOT", tmp_path)
    for stack in ("heroku-prod", "aws_ec2-prod"):
        commit_settings(tmp_path, stack)
    plan = make_plan("b" * 12, "a" * 12, stacks=True, places=("heroku", "aws_ec2"), store="s3://models")
    stages = StackStages(plan, tmp_path, lambda _: None)
    return stages, lambda: calls.read_text().splitlines() if calls.exists() else [], program


def commit_settings(folder: Path, stack: str, store: str = "s3://models", model: str = "tiny@prod") -> None:
    """The file of a stack's settings."""
    text = f"config:\n  cloudtrial:modelStore: {store}\n  cloudtrial:model: {model}\n"
    (folder / f"Pulumi.{stack}.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def bundle(tmp_path):
    return load_bundle(plain_bundle(tmp_path / "bundle"))


def up(target: str, stage: str, reference: str) -> list[str]:
    stack = f"{target}-{stage}"
    return [
        f"pulumi stack select --create {stack}",
        f"pulumi config set cloudtrial:modelStore s3://models --stack {stack}",
        f"pulumi config set cloudtrial:model {reference} --stack {stack}",
        f"make up STACK={stack} ARGS=--yes --non-interactive --color never",
    ]


def test_a_stages_stacks_get_the_version_and_make_up(stacks, bundle):
    stages, calls, _ = stacks
    version = version_of((bundle.folder / "model.json").read_bytes())
    addresses = stages.deploy(BETA, bundle)
    assert {place: address.url for place, address in addresses.items()} == {
        "heroku": "http://127.0.0.1:9/heroku-beta",
        "aws_ec2": "http://127.0.0.1:9/aws_ec2-beta",
    }
    deployed = [call for call in calls() if "stack output" not in call]
    assert deployed == up("heroku", BETA, f"tiny@{version}") + up("aws_ec2", BETA, f"tiny@{version}")


def test_production_follows_its_alias_gammas_stack_is_the_canary(stacks, bundle):
    stages, calls, _ = stacks
    assert stages.deploy(PROD, bundle)["heroku"].url.endswith(f"heroku-{GAMMA}")
    assert stages.production(bundle)["heroku"].url.endswith("heroku-prod")
    assert not any("make" in call for call in calls())
    stages.follow_production(bundle)
    deployed = [call for call in calls() if "stack output" not in call]
    assert deployed == up("heroku", PROD, "tiny@prod") + up("aws_ec2", PROD, "tiny@prod")


def test_stacks_are_priced_by_the_sizes_that_they_export(stacks, bundle, tmp_path):
    stages, _, _ = stacks
    plan = stages.plan = replace(stages.plan, places=("heroku",))
    meter = Meter(plan, Reporter())
    with running_mock_endpoint(EndpointProfile(median_ms=1.0)) as url:
        (tmp_path / "bin" / "pulumi").write_text(
            "#!/bin/sh\nsize=basic; [ $5 = heroku-prod ] && size=standard-2x\n"
            f'''echo '{{"url": "{url}", "size": "'"$size"'"}}'\n'''
        )
        addresses = {PRODUCTION: stages.production(bundle), CANDIDATE: stages.deploy(PROD, bundle)}
        assert meter.measure(tmp_path / "run", pictures(60), addresses) == ()
    (cost,) = meter.judge(tmp_path / "run", tmp_path / "run", ["cost"])
    assert (cost.production, cost.candidate) == (50.0, 7.0)


@pytest.mark.parametrize("stage", [BETA, PROD])
@pytest.mark.parametrize(
    "settings",
    [None, {"store": "s3://others"}, {"model": "tiny"}, {"model": "tiny@beta"}],
    ids=["no-file", "another-store", "a-folder", "another-alias"],
)
def test_production_that_would_go_back_is_refused_first(stacks, bundle, tmp_path, stage, settings):
    """What a release sets is in its checkout alone: the next deployment of `main` has what is committed."""
    stages, calls, _ = stacks
    (tmp_path / "Pulumi.aws_ec2-prod.yaml").unlink()
    if settings:
        commit_settings(tmp_path, "aws_ec2-prod", **settings)
    with pytest.raises(ReleaseError) as refused:
        stages.deploy(stage, bundle)
    message = str(refused.value)
    assert message.startswith("Pulumi.aws_ec2-prod.yaml: ") and message.endswith("then commit the file")
    assert "`pulumi config set cloudtrial:modelStore s3://models --stack aws_ec2-prod`" in message
    assert "`pulumi config set cloudtrial:model tiny@prod --stack aws_ec2-prod`" in message
    assert "heroku-prod" not in message and calls() == []


def test_a_release_that_ends_before_production_needs_no_file(stacks, bundle, tmp_path):
    stages, calls, _ = stacks
    (tmp_path / "Pulumi.aws_ec2-prod.yaml").unlink()
    stages.plan = replace(stages.plan, stages=(BETA, GAMMA))
    assert stages.deploy(BETA, bundle) and calls()


def test_a_failed_up_is_an_error_with_its_log(stacks, bundle, tmp_path):
    stages, _, program = stacks
    program("make", code=2)
    with pytest.raises(ReleaseError, match=r"make up STACK=heroku-beta .* ended with 2"):
        stages.deploy(BETA, bundle)
    assert "$ make up STACK=heroku-beta" in (tmp_path / "logs" / "stacks.log").read_text()


def test_a_missing_pulumi_says_how_to_get_it(stacks, bundle, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ReleaseError, match="needs the pulumi program on PATH: `make pulumi`"):
        stacks[0].deploy(BETA, bundle)
