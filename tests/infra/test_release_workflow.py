"""The workflows that release a model: stage by stage, a person only where one is undecided, a weekly retraining."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
import yaml

from release.plan import STAGES
from tests.conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
RELEASE, STAGE = (yaml.safe_load((FOLDER / name).read_text()) for name in ("release.yml", "release_stage.yml"))
JOBS = RELEASE["jobs"]
(CALLED,) = STAGE["jobs"].values()
RIGHTS = {"contents": "read", "id-token": "write"}
OFF = "vars.RELEASE_STACKS != ''"


def run_of(job: dict, word: str) -> str:
    """The script of the step that has this word."""
    return next(step["run"] for step in job["steps"] if word in step.get("run", ""))


@pytest.fixture
def program(tmp_path):
    """Stands for the commands of a step: writes down what it is called with, and ends as it is told."""

    def run_step(script: str, code: int = 0, output: str = "", **env: str) -> tuple[int, str, list[str]]:
        calls, outputs = tmp_path / "calls", tmp_path / "outputs"
        for file in (calls, outputs):
            file.write_text("")
        fake = tmp_path / "cloudtrial"
        fake.write_text(f'#!/bin/sh\necho "$*" >>{calls}\necho {output}\nexit {code}\n')
        fake.chmod(0o755)
        env = {"PATH": os.environ["PATH"], "GITHUB_OUTPUT": str(outputs), "GITHUB_RUN_ID": "7", **env}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.returncode, outputs.read_text(), calls.read_text().splitlines()

    return run_step


def test_a_retraining_goes_all_the_way_to_a_model(program):
    retrain = run_of(JOBS["retrain"], "finetune").replace("scripts/setup/fetch_data", "./cloudtrial fetch_data")
    env = {"RETRAIN_DATA": "s3://b/d", "RETRAIN_BASE": "efficientnet_lite0", "RETRAIN_MODEL": "mine"}
    code, _, calls = program(retrain, **env)
    assert (code, [call.split()[0] for call in calls]) == (0, ["fetch_data", "finetune", "export", "promote"])


def test_it_is_off_until_a_variable_names_stacks():
    assert (
        OFF in JOBS["beta"]["if"]
        and OFF in JOBS["retrain"]["if"]
        and "vars.RETRAIN_DATA != ''" in JOBS["retrain"]["if"]
    )
    assert {name for name, job in JOBS.items() if OFF not in job["if"]} == {*JOBS} - {"beta", "retrain"}
    others = [JOBS[name]["if"] for name in JOBS if name not in ("beta", "retrain")]
    assert all("needs.beta" in condition or "needs.gamma" in condition for condition in others)  # after one that ran


def test_it_starts_by_hand_and_every_week_never_for_a_request():
    triggers = RELEASE[True]  # YAML 1.1 reads `on` so
    assert set(triggers) == {"schedule", "workflow_dispatch"} and len(triggers["schedule"]) == 1
    assert set(STAGE[True]) == {"workflow_call"}
    assert RELEASE["concurrency"] == "release"  # the short form cancels nothing in progress


def test_each_stage_has_an_environment_of_its_own():
    environments = {name: job["with"]["environment"] for name, job in JOBS.items() if "with" in job}
    assert environments == {name: name for name in ("beta", "beta-undecided", "gamma", "gamma-undecided", "prod")}
    assert CALLED["environment"] == "${{ inputs.environment }}" and JOBS["retrain"]["environment"] == "retrain"
    assert [name for name in environments if "undecided" not in name] == list(STAGES)


def test_a_person_is_asked_only_where_a_stage_is_undecided():
    for stage in ("beta", "gamma"):
        asked = JOBS[f"{stage}-undecided"]
        assert asked["if"] == f"!cancelled() && needs.{stage}.outputs.code == '3'" and asked["with"]["approve"] is True
        after = JOBS[{"beta": "gamma", "gamma": "prod"}[stage]]
        assert f"(needs.{stage}.outputs.code == '0' || needs.{stage}-undecided.result == 'success')" in after["if"]
    assert not any(JOBS[stage]["with"].get("approve") for stage in STAGES)


def test_jobs_have_the_rights_that_they_need_alone():
    assert RELEASE["permissions"] == STAGE["permissions"] == {}
    assert all(job["permissions"] == RIGHTS for job in (*JOBS.values(), CALLED))
    holders = [step for step in CALLED["steps"] if "secrets." in str(step)]
    assert len(holders) == 1 and "./cloudtrial release" in holders[0]["run"]
    assert "secrets." not in str(JOBS["retrain"])


@pytest.mark.parametrize("job", [CALLED, JOBS["retrain"]], ids=["stage", "retrain"])
def test_no_expression_reaches_a_shell_and_actions_are_pinned(job):
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), step
        uses = step.get("uses", "./")
        assert uses.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", uses), uses


@pytest.mark.parametrize(("code", "passes"), [(0, True), (3, True), (1, False), (2, False)])
def test_promoted_and_undecided_pass_worse_fails(code, passes, program, tmp_path):
    (tmp_path / "releases" / "gamma").mkdir(parents=True)
    plan = {"model": "iris", "reference": "iris@candidate", "version": "0123456789ab"}
    (tmp_path / "releases" / "gamma" / "release.json").write_text(json.dumps(plan), encoding="utf-8")
    env = {"STAGE": "gamma", "CANDIDATE": "iris@candidate", "RELEASE_STACKS": "heroku", "RELEASE_MARGIN": "1pp"}
    env |= {"APPROVE": "false", "API_TOKEN": "", "PULUMI_CONFIG_PASSPHRASE": "x"}
    status, outputs, calls = program(run_of(CALLED, "cloudtrial"), code, **env)
    assert status == (0 if passes else code)
    assert outputs == f"code={code}\n" + ("candidate=iris@0123456789ab\n" if passes else "")
    what = "release --model iris@candidate --stages gamma --stacks heroku"
    assert calls == [f"{what} --images images --margin 1pp --out releases/gamma"]


@pytest.mark.parametrize(
    ("deployed", "refused"),
    [
        ("", False),
        ('["gcp_cloudrun-staging", "aws_ec2-prod", "heroku", "heroku-prod2"]', False),
        ('["gcp_cloudrun-staging", "heroku-prod"]', True),
        ('["gcp_cloudrun-beta"]', True),
    ],
)
def test_a_stack_that_main_deploys_is_not_released(deployed, refused, program):
    """A push of `main` would deploy what is committed in the middle of a release."""
    uses = [step.get("uses", "") for step in CALLED["steps"]]
    guard, credentials = (uses.index(""), uses.index("./.github/actions/cloud"))
    assert guard < credentials and CALLED["steps"][guard]["env"] == {"DEPLOY_STACKS": "${{ vars.DEPLOY_STACKS }}"}
    stacks = {"RELEASE_STACKS": "gcp_cloudrun,heroku", "DEPLOY_STACKS": deployed}
    status, _, _ = program(CALLED["steps"][guard]["run"], **stacks)
    assert status == int(refused)


def test_every_stage_has_the_version_that_the_first_one_had():
    """The alias may be moved while a person is asked."""
    candidates = {name: job["with"]["candidate"] for name, job in JOBS.items() if "with" in job}
    of = "${{{{ needs.{}.outputs.candidate }}}}".format
    assert "inputs.candidate" in candidates.pop("beta")
    assert candidates == {"beta-undecided": of("beta"), "gamma": of("beta"), "gamma-undecided": of("gamma"),
                          "prod": of("gamma")}  # fmt: skip
    assert STAGE[True]["workflow_call"]["outputs"]["candidate"]["value"] == "${{ jobs.stage.outputs.candidate }}"


def test_approval_goes_on_with_the_folder_of_the_stage(program):
    env = {"STAGE": "gamma", "APPROVE": "true", "API_TOKEN": "x" * 16, "PULUMI_ACCESS_TOKEN": "x"}
    status, outputs, (call,) = program(run_of(CALLED, "cloudtrial"), **env)
    assert (status, outputs) == (0, "code=0\n")
    assert call.startswith("release approve releases/gamma --token-env API_TOKEN --reason approved in run 7")
    download = next(step for step in CALLED["steps"] if "download-artifact" in step.get("uses", ""))
    upload = next(step for step in CALLED["steps"] if "upload-artifact" in step.get("uses", ""))
    assert download["with"]["name"] == upload["with"]["name"] == "release-${{ inputs.stage }}"
    assert upload["with"]["path"].startswith(download["with"]["path"])


def test_a_forgotten_secret_is_no_empty_passphrase(program):
    env = {"PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_ACCESS_TOKEN": "", "API_TOKEN": ""}
    status, _, calls = program(run_of(CALLED, "cloudtrial"), **env)
    assert status != 0 and calls == []


def test_what_is_retrained_becomes_the_candidate(program):
    script = run_of(JOBS["retrain"], "store push")
    status, outputs, calls = program(script, output="flowers@0123456789ab", RETRAIN_MODEL="flowers")
    assert (status, outputs) == (0, "candidate=flowers@0123456789ab\n")
    assert calls == [
        "store push models/flowers",
        "store alias flowers@0123456789ab candidate --reason trained in run 7",
    ]
    assert JOBS["beta"]["with"]["candidate"].startswith("${{ needs.retrain.outputs.candidate ||")
    failed, outputs, calls = program(script, code=1, RETRAIN_MODEL="flowers")
    assert failed and outputs == "" and len(calls) == 1


def credentials_action() -> dict:
    """The step that gets AWS's credentials, of the jobs' common action."""
    steps = yaml.safe_load((ROOT / ".github" / "actions" / "cloud" / "action.yml").read_text())["runs"]["steps"]
    return next(step for step in steps if "aws-actions/" in step.get("uses", ""))


def test_the_push_has_credentials_that_are_newer_than_training():
    """Nothing renews AWS's, which last an hour."""
    steps = JOBS["retrain"]["steps"]
    trained, pushed = (
        next(place for place, step in enumerate(steps) if word in step.get("run", ""))
        for word in ("finetune", "store push")
    )
    (renewed,) = steps[trained + 1 : pushed]
    assert renewed["uses"] == credentials_action()["uses"] and renewed["if"] == "vars.AWS_ROLE != ''"
    first = next(step["with"] for step in steps if step.get("uses") == "./.github/actions/cloud")
    again = {"role-to-assume": first["aws-role"], "aws-region": first["aws-region"], "mask-aws-account-id": True}
    assert renewed["with"] == again


def test_a_stages_credentials_last_as_long_as_its_job_may():
    sent = next(step["with"] for step in CALLED["steps"] if step.get("uses") == "./.github/actions/cloud")
    assert sent.get("aws-role-duration-seconds", 3600) >= CALLED["timeout-minutes"] * 60
    assert credentials_action()["with"]["role-duration-seconds"] == "${{ inputs.aws-role-duration-seconds }}"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("s3://data/images", "aws s3 sync --only-show-errors s3://data/images here"),
        ("gs://data/images", "gcloud storage rsync --recursive --no-user-output-enabled gs://data/images here"),
        ("https://example.org", None),
    ],
)
def test_data_is_fetched_by_the_clouds_own_commands(url, wanted, tmp_path):
    for name in ("aws", "gcloud"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(ROOT / "scripts" / "setup" / "fetch_data"), url, "here"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == ((0, f"{wanted}\n") if wanted else (2, ""))
