"""The workflow that deploys: what starts it, with which rights, and how a pull request's stack comes and goes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml

from infra.artifact import REPOSITORY
from infra.preflight.deployment_spec import read_deployment_spec
from infra.stackfile import read_secret_keys, read_settings
from infra.targets import TARGETS
from scripts.setup import pull_request_stack
from tests.conftest import ROOT

DEPLOY = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy.yml").read_text())
JOBS = DEPLOY["jobs"]
TRIGGERS = DEPLOY[True]  # YAML 1.1 reads `on` so
WITH_CREDENTIALS = ("preview", "try", "close", "deploy")
CHANGING = ("try", "close", "deploy")  # a stack
OF_REQUESTS = ("preview", "try", "close")
OWN_BRANCH = "github.event.pull_request.head.repo.full_name == github.repository"
# What a stranger may write: https://docs.github.com/en/actions/concepts/security/script-injections
UNTRUSTED = re.compile(
    r"\$\{\{[^}]*(github\.(event\.(pull_request\.(title|body|head)|head_commit|commits|issue)|head_ref)|inputs\.)"
)


def steps(job):
    return JOBS[job]["steps"]


def script(job):
    return "\n".join(step.get("run", "") for step in steps(job))


ACTIONLINT = shutil.which("actionlint")
# No skipped test: where all tools are said to be there, as on CI, that would be a failure.
TESTS_LEFT_OUT = (
    "" if ACTIONLINT else "left out: actionlint's reading of the workflows (https://github.com/rhysd/actionlint)"
)

if ACTIONLINT:

    def test_actionlint_finds_nothing():
        path = os.pathsep.join((str(ROOT / ".venv" / "bin"), os.environ["PATH"]))  # shellcheck is there
        workflows = sorted(
            map(str, (ROOT / ".github" / "workflows").iterdir())
        )  # named, as a copy is no Git repository
        done = subprocess.run(
            [ACTIONLINT, *workflows], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_starts_it():
    assert set(TRIGGERS) == {"push", "pull_request", "workflow_dispatch"}  # never pull_request_target
    assert TRIGGERS["push"] == {"branches": ["main"]}
    assert set(TRIGGERS["pull_request"]["types"]) == {"opened", "synchronize", "reopened", "closed"}
    assert TRIGGERS["workflow_dispatch"]["inputs"]["pull_request"]["type"] == "number"


@pytest.mark.parametrize("job", WITH_CREDENTIALS)
def test_it_is_off_until_a_variable_names_a_stack(job):
    variable = "PULL_REQUEST_TARGET" if job in ("try", "close") else "DEPLOY_STACKS"
    assert JOBS[job]["if"].startswith(f"vars.{variable} != ''")


@pytest.mark.parametrize("job", OF_REQUESTS)
def test_requests_of_forks_and_bots_get_no_credentials(job):
    assert OWN_BRANCH in JOBS[job]["if"] and "github.actor != 'dependabot[bot]'" in JOBS[job]["if"]
    assert JOBS[job]["environment"] == ("preview" if job == "preview" else "pull-request")


def test_only_main_deploys_with_a_stages_credentials():
    assert JOBS["deploy"]["if"].endswith("github.event_name == 'push'")
    assert JOBS["deploy"]["environment"] == "${{ matrix.stack }}"
    strategy = JOBS["deploy"]["strategy"]
    assert strategy["max-parallel"] == 1 and strategy.get("fail-fast", True)
    assert strategy["matrix"] == {"stack": "${{ fromJSON(vars.DEPLOY_STACKS) }}"}


def test_each_job_has_the_rights_that_it_needs_alone():
    assert DEPLOY["permissions"] == {} and set(JOBS) == {*WITH_CREDENTIALS, "comment"}
    for job in WITH_CREDENTIALS:
        assert JOBS[job]["permissions"] == {"contents": "read", "id-token": "write"}
    assert JOBS["comment"]["permissions"] == {"pull-requests": "write"}
    comment = str(JOBS["comment"])
    assert "secrets." not in comment and "checkout" not in comment and "environment" not in JOBS["comment"]


@pytest.mark.parametrize("job", WITH_CREDENTIALS)
def test_secrets_reach_pulumis_step_alone(job):
    holders = [step for step in steps(job) if "secrets." in str(step)]
    assert len(holders) == 1 and "make" in holders[0]["run"]
    assert "secrets." not in str({key: value for key, value in JOBS[job].items() if key != "steps"})
    assert "secrets." not in str({key: value for key, value in DEPLOY.items() if key != "jobs"})
    assert not re.search(r"\b(ACCESS_KEY|GOOGLE_CREDENTIALS|CREDENTIALS_JSON)", str(JOBS).upper())  # by OIDC


@pytest.mark.parametrize("job", WITH_CREDENTIALS)
def test_a_forgotten_secret_is_no_empty_passphrase(job):
    run = next(step["run"] for step in steps(job) if "secrets." in str(step))
    before, _, _ = run.partition("make ")
    guard = next(line for line in before.splitlines() if "PULUMI_CONFIG_PASSPHRASE" in line)
    for env, passes in (({}, False), ({"PULUMI_CONFIG_PASSPHRASE": "x"}, True), ({"PULUMI_ACCESS_TOKEN": "x"}, True)):
        env = {"PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_ACCESS_TOKEN": "", **env}
        done = subprocess.run(["bash", "-ec", guard], env=env, capture_output=True, text=True)
        assert (done.returncode == 0) == passes, done.stderr
        assert passes or "this environment has neither secret" in done.stderr


@pytest.mark.parametrize("job", JOBS)
def test_no_ones_text_reaches_a_shell(job):
    for step in steps(job):
        assert "${{" not in step.get("run", ""), step
        assert not UNTRUSTED.search(str(step)), step


@pytest.mark.parametrize("job", WITH_CREDENTIALS)
def test_the_last_commit_of_a_shipped_file_can_be_found(job):
    checkout = next(step for step in steps(job) if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"] == {"persist-credentials": False, "fetch-depth": 0}


def test_no_two_jobs_change_a_stack_at_once_and_none_is_cut_off():
    for job in CHANGING:
        stack = JOBS[job]["env"]["STACK"]
        assert JOBS[job]["concurrency"] == f"stack-{stack}", job  # the short form cancels nothing in progress
    assert JOBS["try"]["env"]["STACK"] == "${{ vars.PULL_REQUEST_TARGET }}-pr${{ github.event.number }}"
    assert JOBS["close"]["env"]["STACK"].startswith("${{ vars.PULL_REQUEST_TARGET }}-pr${{ github.event.number ")


def test_a_preview_cancels_no_job_that_changes_a_stack():
    """A job that waits is cancelled when another of its group comes."""
    previews = JOBS["preview"]["concurrency"]
    assert previews == {"group": "preview-${{ matrix.stack }}-${{ github.event.number }}", "cancel-in-progress": True}
    assert all(JOBS[job]["concurrency"].startswith("stack-") for job in CHANGING)


def test_a_closed_requests_stack_is_destroyed_and_searched_for():
    lines = [line.strip() for line in script("close").splitlines()]
    order = ["pull_request_stack", "pulumi stack ls", "make down", "pulumi stack rm --yes --preserve-config",
             "make leftovers"]  # fmt: skip
    found = [next(number for number, line in enumerate(lines) if part in line) for part in order]
    assert found == sorted(found)
    assert DEPLOY["defaults"] == {"run": {"shell": "bash"}}  # a pulumi that fails in a pipe ends the step


def plans_as_commented(tmp_path, *texts):
    """What the step that writes the comment makes of plans."""
    for number, text in enumerate(texts):
        (tmp_path / f"plan-heroku-{number}.txt").write_text(text)
    gh = tmp_path / "gh"
    gh.write_text("#!/bin/sh\n")
    gh.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NUMBER": "12"}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script("comment")]
    subprocess.run(command, cwd=tmp_path, env=env, check=True)
    return (tmp_path / "comment.md").read_text()


def test_a_plan_stays_in_its_block_and_names_no_account(tmp_path):
    plan = "arn:aws:iam::123456789012:role/x\n```\n[click](https://evil.example)\n"
    comment = plans_as_commented(tmp_path, plan)
    assert comment.count("```") == 2 and comment.startswith("### plan-heroku-0.txt\n\n```\n")
    assert "arn:aws:iam::************:role/x" in comment
    assert comment.index("evil.example") < comment.rindex("```")


@pytest.mark.parametrize("count", [1, 9])
def test_long_plans_fit_a_comment_of_github(tmp_path, count):
    comment = plans_as_commented(tmp_path, *["x" * 100_000] * count)
    assert 50_000 < len(comment) < 65_536 and comment.count("```") == 2 * count


def test_packages_are_installed_before_there_are_credentials():
    action = yaml.safe_load((ROOT / ".github" / "actions" / "cloud" / "action.yml").read_text())["runs"]["steps"]
    uses = [
        step.get("uses", "make pulumi" if "make pulumi" in step.get("run", "") else "").partition("@")[0]
        for step in action
    ]
    clouds = ["aws-actions/configure-aws-credentials", "google-github-actions/auth"]
    assert uses == ["actions/setup-python", "make pulumi", *clouds]
    assert all(step["if"].startswith("inputs.") for step in action[2:])
    assert action[2]["with"]["mask-aws-account-id"] is True


# A pull request's own stack


@pytest.mark.parametrize("target", TARGETS)
def test_a_requests_stack_has_its_targets_settings(tmp_path, target):
    shutil.copy(REPOSITORY / f"Pulumi.{target}.yaml", tmp_path)
    assert pull_request_stack.main([f"{target}-pr12345"], tmp_path) == 0
    assert read_settings(f"{target}-pr12345", tmp_path) == read_settings(target, tmp_path)


def test_what_only_one_stack_can_have_is_left_out(tmp_path):
    (tmp_path / "Pulumi.heroku.yaml").write_text("""encryptionsalt: v1:abc
config:
  cloudtrial:appName: a-name-of-thirty-characters-ab
  cloudtrial:domain: app.example.com
  cloudtrial:budgetUsd: 20
  cloudtrial:size: basic
  cloudtrial:apiToken:
    secure: v1:def
""")
    path = pull_request_stack.write_stack_file("heroku-pr12", tmp_path)
    content = yaml.safe_load(path.read_text())
    app = content["config"].pop("cloudtrial:appName")
    assert app == "a-name-of-thirty-characte-pr12" and len(app) == pull_request_stack.MAX_APP_CHARS
    assert content == {
        "encryptionsalt": "v1:abc",
        "config": {"cloudtrial:size": "basic", "cloudtrial:apiToken": {"secure": "v1:def"}},
    }


@pytest.mark.parametrize("over_http", [False, True])
def test_a_token_goes_with_the_domain_unless_http_may_carry_it(tmp_path, capsys, over_http):
    allowed = {"cloudtrial:allowTokenOverHttp": True} if over_http else {}
    config = SECRETS | allowed | {"cloudtrial:domain": "app.example.com", "cloudtrial:size": "t3.small"}
    content = {"encryptionsalt": "v1:abc", "config": config}
    (tmp_path / "Pulumi.aws_ec2.yaml").write_text(yaml.safe_dump(content))
    assert pull_request_stack.main(["aws_ec2-pr12"], tmp_path) == 0
    settings, secret = read_settings("aws_ec2-pr12", tmp_path), read_secret_keys("aws_ec2-pr12", tmp_path)
    assert (TOKEN in secret, "cloudtrial:protectStatus" in settings) == (over_http, over_http)
    read_deployment_spec("aws_ec2-pr12", settings, secret)  # raises TokenInClear for one that could not be deployed
    assert ("it has no domain, so no HTTPS" in capsys.readouterr().out) == (not over_http)


TOKEN = "cloudtrial:apiToken"
SECRETS = {"cloudtrial:apiToken": {"secure": "AAAB"}, "cloudtrial:protectStatus": True, "cloudtrial:size": "basic"}


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ({}, ["cloudtrial:size"]),
        ({"encryptionsalt": "v1:abc"}, list(SECRETS)),
        ({"secretsprovider": "gcpkms://key", "encryptedkey": "AAAA"}, list(SECRETS)),
    ],
    ids=["app.pulumi.com", "passphrase", "a-clouds-key"],
)
def test_secrets_that_only_one_stack_can_read_are_left_out(tmp_path, capsys, key, kept):
    """At app.pulumi.com each stack has a key of its own, which is in no file."""
    (tmp_path / "Pulumi.heroku.yaml").write_text(yaml.safe_dump({**key, "config": SECRETS}))
    assert pull_request_stack.main(["heroku-pr12"], tmp_path) == 0
    content = yaml.safe_load((tmp_path / "Pulumi.heroku-pr12.yaml").read_text())
    assert content == {**key, "config": {name: SECRETS[name] for name in kept}}
    left_out = "" if key else (
        "pull_request_stack: heroku-pr12 goes without cloudtrial:apiToken, cloudtrial:protectStatus:"
        " each stack has a key of its own\n"
    )  # fmt: skip
    assert capsys.readouterr().out == left_out


def test_a_secret_that_is_no_token_leaves_the_others(tmp_path):
    settings = {"cloudtrial:allowedOrigins": {"secure": "AAAB"}, "cloudtrial:protectStatus": True}
    (tmp_path / "Pulumi.heroku.yaml").write_text(yaml.safe_dump({"config": settings}))
    path = pull_request_stack.write_stack_file("heroku-pr12", tmp_path)
    assert yaml.safe_load(path.read_text()) == {"config": {"cloudtrial:protectStatus": True}}


@pytest.mark.parametrize("arguments", [["heroku"], ["azure-pr1"], ["heroku-pr1234567890"], []])
def test_no_other_stacks_file_is_written(tmp_path, capsys, arguments):
    assert pull_request_stack.main(arguments, tmp_path) == 1 and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.startswith("pull_request_stack: ")
