"""`./cloudtrial logs`: the platform's own command, for the stack that is meant."""

from __future__ import annotations

import json
import shlex
import stat

import pytest

from infra.logs.__main__ import INSTALL, main

OUTPUTS = {"instance_id": "i-0123456789abcdef0", "region": "eu-west-1", "url": "http://192.0.2.1"}
JOURNAL = {"command": ["sudo journalctl --unit classifier --unit nginx --lines 200 --no-pager"]}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins on PATH, which write down how they are called; returns what makes more of them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(*names, script=""):
        for name in names:
            text = f'#!/bin/sh\nfor word; do echo "$word"; done > {tmp_path}/{name}.called\n{script}\n'
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(stat.S_IRWXU)

    return add


def settings(tmp_path, stack, text):
    (tmp_path / f"Pulumi.{stack}.yaml").write_text(f"config:\n  {text}\n", encoding="utf-8")


def called(tmp_path, name):
    return (tmp_path / f"{name}.called").read_text(encoding="utf-8").splitlines()


GOOGLE = "gcp:project: example-project\n  gcp:region: europe-west1"


@pytest.mark.parametrize(
    ("stack", "text", "command"),
    [
        ("aws_sagemaker-prod", "aws:region: eu-west-1", "aws logs tail"
         " /aws/sagemaker/Endpoints/cloudtrial-endpoint-prod-ml-m5-large --since 1h --region eu-west-1"),
        ("aws_sagemaker", "cloudtrial:size: serverless-2048", "aws logs tail"
         " /aws/sagemaker/Endpoints/cloudtrial-endpoint-serverless-2048 --since 1h --region us-east-1"),
        ("aws_sagemaker", "aws:profile: work", "aws logs tail"
         " /aws/sagemaker/Endpoints/cloudtrial-endpoint-ml-m5-large --since 1h --region us-east-1 --profile work"),
        ("heroku", "cloudtrial:appName: my-app", "heroku logs --app my-app --num 200"),
        ("gcp_cloudrun-prod", GOOGLE, "gcloud run services logs read cloudtrial-run-prod --project example-project"
         " --region europe-west1 --limit 200"),
        ("gcp_function", "gcp:project: example-project", "gcloud functions logs read cloudtrial-function --gen2"
         " --project example-project --region us-central1 --limit 200"),
    ], ids=["aws_sagemaker", "aws_sagemaker-serverless", "aws_sagemaker-profile", "heroku",
            "gcp_cloudrun", "gcp_function"],
)  # fmt: skip
def test_the_command_is_printed_run_and_its_status_kept(programs, tmp_path, capsys, stack, text, command):
    name, *words = command.split()
    programs(name, script="exit 3")
    settings(tmp_path, stack, text)
    assert main([stack, "--tail"], tmp_path) == 3
    assert capsys.readouterr().err == f"{command} --tail\n"
    assert called(tmp_path, name) == [*words, "--tail"]


def test_a_vms_journal_is_read_through_its_session(programs, tmp_path, capsys):
    programs("aws", "session-manager-plugin")
    programs("pulumi", script=f"echo '{json.dumps(OUTPUTS)}'")
    assert main(["me/cloudtrial/aws_ec2"], tmp_path) == 0
    assert called(tmp_path, "pulumi")[-1] == "me/cloudtrial/aws_ec2"
    words = called(tmp_path, "aws")
    assert words[:6] == ["ssm", "start-session", "--target", OUTPUTS["instance_id"], "--region", "eu-west-1"]
    assert words[6:9] == ["--document-name", "AWS-StartInteractiveCommand", "--parameters"]
    assert json.loads(words[9]) == JOURNAL
    assert shlex.split(capsys.readouterr().err) == ["aws", *words]


def test_a_vm_that_did_not_boot_is_asked_for_its_console(programs, tmp_path):
    programs("aws")
    programs("pulumi", script=f"echo '{json.dumps(OUTPUTS)}'")
    assert main(["aws_ec2", "--boot"], tmp_path) == 0
    assert called(tmp_path, "aws")[:4] == ["ec2", "get-console-output", "--instance-id", OUTPUTS["instance_id"]]


def prints_json(outputs):
    return f"echo '{json.dumps(outputs)}'"


@pytest.mark.parametrize(
    ("stack", "text", "pulumi", "says"),
    [
        ("azure", "", "", "names no target"),
        ("heroku", "a:b: c", "", "cloudtrial:appName of stack heroku is not known"),
        ("gcp_cloudrun", "a:b: c", "", "gcp:project of stack gcp_cloudrun is not known"),
        ("heroku", "cloudtrial:appName: --help", "", "cannot be '--help'"),
        ("heroku", "cloudtrial:appName: app", "", f"there is no heroku on PATH: {INSTALL['heroku']}"),
        ("aws_ec2", "a:b: c", "", "there is no pulumi on PATH: make pulumi"),
        ("aws_ec2", "a:b: c", prints_json(OUTPUTS), "there is no aws on PATH"),
        ("aws_ec2", "a:b: c", prints_json({}), "no output instance_id: deploy it first, make up STACK=aws_ec2"),
        ("aws_ec2", "a:b: c", prints_json({**OUTPUTS, "region": "-x"}), "region of stack aws_ec2 cannot be '-x'"),
        ("aws_ec2", "a:b: c", "echo nothing", "no JSON"),
        ("aws_ec2", "a:b: c", "echo error: no stack named >&2; exit 1", "stack aws_ec2: error: no stack named"),
    ],
)  # fmt: skip
def test_what_is_missing_is_one_line(programs, tmp_path, capsys, stack, text, pulumi, says):
    if pulumi:
        programs("pulumi", script=pulumi)
    settings(tmp_path, stack, text)
    assert main([stack], tmp_path) == 1
    errors = capsys.readouterr().err
    assert says in errors and errors.count("\n") == 1 and errors.startswith("logs: ")


def test_a_missing_session_plugin_names_the_way_without_it(programs, tmp_path, capsys):
    programs("aws")
    programs("pulumi", script=prints_json(OUTPUTS))
    assert main(["aws_ec2"], tmp_path) == 1
    assert "no session-manager-plugin on PATH" in (errors := capsys.readouterr().err) and "--boot" in errors


def test_only_a_vm_has_a_console(tmp_path, capsys):
    assert main(["heroku", "--boot"], tmp_path) == 1
    assert "--boot is of virtual machines, and heroku is a dyno" in capsys.readouterr().err
