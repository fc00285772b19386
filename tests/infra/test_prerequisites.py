"""What `make preview` and `make up` lack on a machine: all of it at once, a line each, before anything is created."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import google.oauth2.credentials
import pytest
from google.auth.credentials import AnonymousCredentials

from infra import stored_model
from infra.errors import StackError
from infra.preflight import google_access
from infra.preflight.__main__ import DOES_NOT_FIT, FITS, MISUSED, main
from infra.preflight.prerequisites import find_missing
from infra.targets import TARGETS
from tests.conftest import ROOT
from tests.helpers.http_server import http_server, send
from tests.helpers.infra.stored_models import push

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
ACCOUNT = "deployer@example-project.iam.gserviceaccount.com"
USER = {"type": "authorized_user", "client_id": "id", "client_secret": "secret", "refresh_token": "token"}
FEDERATED = {  # what google-github-actions/auth writes
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/github",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"url": "https://token.example", "format": {"type": "json", "subject_token_field_name": "v"}},
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A fresh one, without a network: an empty home, none of the variables, no program on PATH."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "PULUMI_", "HEROKU_", "NETRC")):
            monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # it is no virtual machine
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))

    def connect(*_):
        raise AssertionError("a check went to the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tmp_path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def program(machine, name, script):
    write(machine / "bin" / name, f"#!/bin/sh\n{script}\n")
    (machine / "bin" / name).chmod(0o755)


def log_in(machine, monkeypatch):
    write(machine / ".pulumi/credentials.json", {"current": "file://~", "accessTokens": {"file://~": ""}})
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")


def lacks(lines):
    """What the lines are about, by their beginnings."""
    starts = {"pulumi is not": "login", "no PULUMI_CONFIG_PASS": "passphrase", "aws:region": "region",
              "no AWS": "credentials", "gcp:project": "project", "no Google": "credentials", "Docker": "docker",
              "no docker": "docker", "cloudtrial:appName": "app", "no HEROKU": "key", "no gcloud": "gcloud",
              "no aws program": "aws",
              }  # fmt: skip
    return [next(short for start, short in starts.items() if line.startswith(start)) for line in lines]


FRESH = {
    "aws_ec2": ["login", "region", "credentials"],
    "aws_sagemaker": ["login", "region", "credentials", "aws", "docker"],
    "gcp_cloudrun": ["login", "project", "credentials", "docker"],
    "gcp_function": ["login", "project", "credentials"],
    "heroku": ["login", "app", "key"],
}


@pytest.mark.parametrize("stack", TARGETS)
def test_a_fresh_machine_is_told_all_that_it_lacks(machine, stack):
    lines = find_missing(stack, (), machine)
    assert lacks(lines) == FRESH[stack] and not any("\n" in line for line in lines)


@pytest.mark.parametrize("stack", TARGETS)
def test_a_machine_that_has_all_is_told_nothing(machine, monkeypatch, stack):
    log_in(machine, monkeypatch)
    settings = {"aws:region": "us-east-1", "gcp:project": "example-project", "cloudtrial:appName": "example"}
    write(machine / f"Pulumi.{stack}.yaml", {"config": settings})
    for name, value in {**KEYS, "HEROKU_API_KEY": "key"}.items():
        monkeypatch.setenv(name, value)
    write(machine / ".config/gcloud/application_default_credentials.json", USER)
    program(machine, "docker", "exit 0")
    assert find_missing(stack, (), machine) == []


def test_the_advice_makes_the_stack_that_it_configures(machine):
    line = next(line for line in find_missing("me/cloudtrial/heroku-x", (), machine) if "appName" in line)
    stack = "me/cloudtrial/heroku-x"
    assert line.endswith(f"pulumi stack select --create {stack} && pulumi config set cloudtrial:appName YOUR-NAME")


@pytest.mark.parametrize(
    "arguments", [["-c", "cloudtrial:appName=a"], ["--yes", "--config", "cloudtrial:appName=a=b"],
                  ["--config=cloudtrial:appName=a", "--yes"]])  # fmt: skip
def test_settings_given_to_pulumi_count(machine, arguments):
    assert lacks(find_missing("heroku", arguments, machine)) == ["login", "key"]
    assert lacks(find_missing("heroku", ["-c", "cloudtrial:size=basic", "-c"], machine)) == FRESH["heroku"]


def test_a_model_that_is_not_there_is_one_of_the_lines(machine):
    lines = find_missing("heroku", ["-c", "cloudtrial:model=vgg"], machine)
    assert "no model is called 'vgg'" in lines[1] and len(lines) == 4


def test_a_broken_stack_file_is_a_line(machine):
    write(machine / "Pulumi.heroku.yaml", "config: 3")
    (line,) = find_missing("heroku", (), machine)
    assert "has to hold settings below `config:`" in line


def test_the_command_fails_with_a_line_for_each_lack(machine, monkeypatch, capsys):
    assert main(["heroku", "--prerequisites", "--", "--yes"], machine) == DOES_NOT_FIT
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and [line.partition(": ")[0] for line in lines[:-1]] == ["missing"] * 3
    assert lines[-1] == "Nothing was created. To go on without this check: PREREQUISITES=skip"
    log_in(machine, monkeypatch)
    monkeypatch.setenv("HEROKU_API_KEY", "key")
    assert main(["heroku", "--prerequisites", "--", "-c", "cloudtrial:appName=a"], machine) == FITS
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert main(["azure", "--prerequisites"], machine) == MISUSED
    with pytest.raises(StackError):
        find_missing("azure", (), machine)


# Pulumi's login


@pytest.mark.parametrize(
    ("env", "current", "token", "lack"),
    [
        pytest.param({}, "", "", "login", id="none"),
        pytest.param({"PULUMI_ACCESS_TOKEN": "t"}, "", "", None, id="token"),
        pytest.param({}, "https://api.pulumi.com", "t", None, id="logged-in"),
        pytest.param({}, "https://api.pulumi.com", "", "login", id="logged-out"),
        pytest.param({}, "file://~", "", "passphrase", id="local"),
        pytest.param({"PULUMI_BACKEND_URL": "s3://bucket"}, "", "", "passphrase", id="bucket"),
        pytest.param({"PULUMI_BACKEND_URL": "s3://bucket", "PULUMI_CONFIG_PASSPHRASE_FILE": "f"}, "", "", None,
                     id="passphrase-file"),
        pytest.param({"PULUMI_CONFIG_PASSPHRASE": ""}, "file://~", "", None, id="empty-passphrase"),
    ],
)  # fmt: skip
def test_login_and_passphrase(machine, monkeypatch, env, current, token, lack):
    write(machine / ".pulumi/credentials.json", {"current": current, "accessTokens": {current: token}})
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert lacks(find_missing("heroku", (), machine)) == [*filter(None, [lack]), "app", "key"]


def test_a_key_of_a_cloud_or_a_terminal_needs_no_passphrase(machine, monkeypatch):
    monkeypatch.setenv("PULUMI_BACKEND_URL", "gs://bucket")
    write(machine / "Pulumi.heroku.yaml", "secretsprovider: gcpkms://projects/p\nconfig: {}\n")
    assert "passphrase" not in lacks(find_missing("heroku", (), machine))
    write(machine / "Pulumi.heroku.yaml", "config: {}\n")
    assert "passphrase" in lacks(find_missing("heroku", (), machine))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert "passphrase" not in lacks(find_missing("heroku", (), machine))


# AWS


@pytest.mark.parametrize("way", ["environment", "file", "oidc", "sso", "setting"])
def test_every_way_to_give_aws_credentials_counts(machine, monkeypatch, way):
    settings = ["-c", "aws:region=us-east-1"]
    match way:
        case "environment":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        case "file":
            write(machine / ".aws/credentials", "[work]\naws_access_key_id = a\naws_secret_access_key = b\n")
            settings += ["-c", "aws:profile=work"]
        case "oidc":
            monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/deployer")
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", write(machine / "token", "t"))
        case "sso":
            write(machine / ".aws/config", "[profile work]\nsso_start_url = https://a.example\nsso_region = us-east-1\n"
                  "sso_account_id = 123456789012\nsso_role_name = r\nregion = us-east-1\n")  # fmt: skip
            monkeypatch.setenv("AWS_PROFILE", "work")
            settings = []
        case "setting":
            settings += ["-c", "aws:accessKey=a"]
    assert lacks(find_missing("aws_ec2", settings, machine)) == ["login"]


@pytest.mark.parametrize(("skip", "lacking"), [("", []), ("false", []), ("true", ["credentials"])])
def test_a_virtual_machines_own_role_counts_unless_skipped(machine, monkeypatch, skip, lacking):
    role = {"role_name": "r", "access_key": "a", "secret_key": "b", "token": "t", "expiry_time": "2999-01-01T00:00:00Z"}
    monkeypatch.setattr("botocore.utils.InstanceMetadataFetcher.retrieve_iam_role_credentials", lambda self: role)
    settings = ["-c", "aws:region=us-east-1", *(["-c", f"aws:skipMetadataApiCheck={skip}"] if skip else [])]
    assert lacks(find_missing("aws_ec2", settings, machine)) == ["login", *lacking]


def test_an_unknown_profile_is_named(machine):
    lines = find_missing("aws_ec2", ["-c", "aws:profile=wrok", "-c", "aws:region=us-east-1"], machine)
    assert lines[-1] == "no AWS credentials: The config profile (wrok) could not be found"


# Google


def test_federated_credentials_count_without_a_call(machine, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", write(machine / "gha-creds.json", FEDERATED))
    monkeypatch.setattr(google_access, "missing_apis", lambda *_: iter(()))
    assert lacks(find_missing("gcp_function", ["-c", "gcp:project=p"], machine)) == ["login"]


@pytest.mark.parametrize("name", google_access.OWN_VARIABLES)
def test_the_providers_own_variables_count(machine, monkeypatch, name):
    monkeypatch.setenv(name, "value")
    assert lacks(find_missing("gcp_function", ["-c", "gcp:project=p"], machine)) == ["login"]


def test_a_key_file_that_is_gone_is_named(machine, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/gone.json")
    (line,) = [line for line in find_missing("gcp_function", (), machine) if "Google" in line]
    assert "/gone.json" in line and "gcloud auth application-default login" in line


def test_gcloud_is_needed_where_only_invited_callers_may_ask(machine):
    arguments = ["-c", "cloudtrial:invoker=user:me@example.org"]
    assert lacks(find_missing("gcp_function", arguments, machine))[-1] == "gcloud"
    program(machine, "gcloud", "exit 0")
    assert "gcloud" not in lacks(find_missing("gcp_function", arguments, machine))


class Deployer(AnonymousCredentials):
    """A service account's credentials that need no token."""

    service_account_email = ACCOUNT


@pytest.fixture
def service_usage(monkeypatch):
    """Google's API of APIs; by name of the API, status and content of its answer."""
    answers, asked = {}, []

    def respond(request, _):
        asked.append(request.path)
        status, content = answers[request.path.rpartition("/")[2]]
        send(request, status, json.dumps(content))

    with http_server(respond) as port:
        monkeypatch.setattr(google_access, "SERVICE_USAGE", f"http://127.0.0.1:{port}/v1")
        yield answers, asked


ON, OFF = (200, {"state": "ENABLED"}), (200, {"state": "DISABLED"})
NOT_USABLE = (403, {"error": {"code": 403, "message": "...", "details": [{"reason": "SERVICE_DISABLED"}]}})
NOT_ALLOWED = (403, {"error": {"code": 403, "message": "Permission denied", "status": "PERMISSION_DENIED"}})


@pytest.mark.parametrize(
    ("answer", "lacking"), [(ON, False), (OFF, True), (NOT_USABLE, True), (NOT_ALLOWED, False)],
    ids=["on", "off", "service-usage-off", "not-allowed"])  # fmt: skip
def test_a_service_accounts_project_is_asked_for_two_apis(service_usage, answer, lacking):
    answers, asked = service_usage
    answers |= {google_access.APIS[0]: answer, google_access.APIS[1]: ON}
    lines = list(google_access.missing_apis(Deployer(), "another-project"))
    assert asked == [f"/v1/projects/example-project/services/{api}" for api in google_access.APIS]
    assert lines == lacking * [
        "project example-project lacks APIs: gcloud services enable cloudresourcemanager.googleapis.com"
        " serviceusage.googleapis.com --project example-project"
    ]


def test_the_apis_are_not_asked_for_a_person(service_usage):
    answers, asked = service_usage
    answers |= dict.fromkeys(google_access.APIS, OFF)
    person = google.oauth2.credentials.Credentials(token="t")
    assert list(google_access.missing_apis(person, "p")) == list(google_access.missing_apis(None, "p")) == asked == []


def test_without_a_network_the_apis_are_not_known(monkeypatch):
    monkeypatch.setattr(google_access, "SERVICE_USAGE", "http://127.0.0.1:9/v1")
    assert list(google_access.missing_apis(Deployer(), "p")) == []


# Docker


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        pytest.param("exit 0", True, id="daemon"),
        pytest.param("exit 1", False, id="no-daemon"),
        pytest.param('[ "$1" = buildx ] && echo "elsewhere  remote  running"', True, id="builder-elsewhere"),
        pytest.param('[ "$1" = buildx ] && echo "default  docker  error"', False, id="builder-of-the-daemon"),
    ],
)
def test_docker_or_a_builder_elsewhere_has_to_answer(machine, script, answers):
    program(machine, "docker", script)
    assert ("docker" not in lacks(find_missing("gcp_cloudrun", (), machine))) == answers


def test_a_setting_that_is_encrypted_counts(machine):
    write(machine / "Pulumi.heroku.yaml", {"config": {key: {"secure": "v1:a"} for key in
          ("heroku:apiKey", "cloudtrial:appName")}})  # fmt: skip
    assert lacks(find_missing("heroku", (), machine)) == ["login"]


def test_a_heroku_key_in_netrc_counts(machine):
    write(machine / ".netrc", "machine api.heroku.com login me@example.org password key\n")
    (machine / ".netrc").chmod(0o600)
    assert "key" not in lacks(find_missing("heroku", (), machine))


def test_the_check_needs_only_what_deploying_installs():
    """No NumPy, torch, or anything else of the demo's."""
    script = """
import sys
from infra.preflight.__main__ import main
for stack in ("aws_ec2", "heroku", "gcp_cloudrun"):
    main([stack, "--prerequisites"])
print("loaded:", *(name for name in ("numpy", "torch", "PIL", "flask", "pulumi", "aiohttp") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("profile", [None, "work"])
def test_sagemaker_needs_keys_in_the_environment_or_awss_program(machine, monkeypatch, profile):
    """By which `up` signs the calls that prove the endpoint; a profile's keys are found by AWS's program alone."""
    log_in(machine, monkeypatch)
    settings = {"aws:region": "us-east-1"} | ({"aws:profile": profile} if profile else {})
    write(machine / "Pulumi.aws_sagemaker.yaml", {"config": settings})
    (machine / ".aws").mkdir()
    keys = "aws_access_key_id = a\naws_secret_access_key = b\n"
    (machine / ".aws/credentials").write_text(f"[default]\n{keys}[work]\n{keys}", encoding="utf-8")
    program(machine, "docker", "exit 0")
    assert lacks(find_missing("aws_sagemaker", (), machine)) == ["aws"]
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert lacks(find_missing("aws_sagemaker", (), machine)) == (["aws"] if profile else [])
    program(machine, "aws", "exit 0")
    assert find_missing("aws_sagemaker", (), machine) == []


def test_a_store_or_an_alias_that_is_not_there_is_a_line(machine, monkeypatch):
    monkeypatch.setattr(stored_model, "FOLDER", machine / "pulled")
    version = push(machine / "store", b"weights")
    settings = ["-c", f"cloudtrial:modelStore={machine / 'store'}", "-c"]

    def said(*more):
        return [line for line in find_missing("heroku", [*settings, *more], machine) if "model" in line]

    assert said("cloudtrial:model=net@prod") == said(f"cloudtrial:model=net@{version}") == []
    (line,) = said("cloudtrial:model=net@gamma")
    assert line.startswith("cloudtrial:modelStore, cloudtrial:model: net has no alias 'gamma'") and "\n" not in line
    (line,) = said("cloudtrial:model=net@prod", "-c", f"cloudtrial:modelStore={machine / 'none'}")
    assert "no model is called 'net'" in line
    (line,) = said("cloudtrial:model=net")
    assert "use NAME@ALIAS or NAME@VERSION" in line
