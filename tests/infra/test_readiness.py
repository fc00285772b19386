"""The end of `up`: wait_ready.py as Pulumi runs it, and the commit that an endpoint has to report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import readiness
from infra.git_sha import deployed_git_sha
from tests.helpers.http_server import http_server, send

SENT = {"MODEL_SHA256": "ab" * 32, "GIT_SHA": "c0" * 20}
VERSION = {"model": {"sha256": "ab" * 32}, "git_sha": "c0" * 20}
SCRIPT = readiness.script_text(readiness.SCRIPT)

Answer = Callable[[str, int], tuple[int, object]]  # path, number of the request -> status, body


def wait_for(answer: Answer, *, timeout_s: float = 60, **env: str) -> tuple[subprocess.CompletedProcess[str], list]:
    """The script's process, and the requests that it sent as (path, headers)."""
    requests: list[tuple[str, dict[str, str]]] = []

    def respond(request, _):
        requests.append((request.path, dict(request.headers)))
        status, body = answer(request.path, len(requests))
        send(request, status, json.dumps(body))

    with http_server(respond) as port:
        env = {"URL": f"http://127.0.0.1:{port}", "POLL_S": "0.01", "ADVICE": "Look there.", **SENT, **env}
        env |= {"TIMEOUT_S": str(timeout_s)}
        if "HOST" in env:
            Path(env["ADDRESS_FILE"]).write_text(f"127.0.0.1:{port}\n", encoding="utf-8")
            env["URL"] = f"http://{env['HOST']}"
        return subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True), requests


def good(path: str, number: int) -> tuple[int, object]:
    return 200, VERSION if path == "/version" else {}


def test_the_wait_ends_after_three_successes_in_a_row():
    statuses = iter([502, 200, 200, 503, 200, 200, 200])
    done, requests = wait_for(lambda path, _: (200, VERSION) if path == "/version" else (next(statuses), {}))
    assert done.returncode == 0, done.stderr
    assert [path for path, _ in requests] == [
        "/readyz", *2 * ["/readyz", "/version"], "/readyz", *3 * ["/readyz", "/version"]
    ]  # fmt: skip
    assert "not yet: /readyz answered status 502" in done.stdout
    assert done.stdout.endswith("ready, with the model and the code that were sent\n")


def test_timed_out_wait_names_the_last_error_and_the_advice():
    done, requests = wait_for(lambda *_: (503, {}), timeout_s=0.3)
    assert done.returncode == 1 and len(requests) > 1
    assert "not ready within 0 s; last: /readyz answered status 503" in done.stderr and "Look there." in done.stderr


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (VERSION | {"git_sha": "dead"}, f"/version reports git_sha dead, and {SENT['GIT_SHA']} was sent"),
        (VERSION | {"git_sha": None}, "/version reports git_sha None"),
        (VERSION | {"model": {"sha256": "ef"}}, f"/version reports model ef, and {SENT['MODEL_SHA256']} was sent"),
        ({"model": VERSION["model"]}, "/version has no 'git_sha'"),
        ("<html>", "/version has no"),
    ],
    ids=["older-code", "no-commit", "other-model", "no-field", "no-version"],
)
def test_an_endpoint_that_serves_another_version_is_a_failure(version, says):
    done, _ = wait_for(lambda path, _: (200, version if path == "/version" else {}), timeout_s=0.1)
    assert done.returncode == 1 and says in done.stderr


def test_the_old_version_may_answer_for_a_while():
    done, _ = wait_for(lambda path, number: (200, VERSION if number > 4 else VERSION | {"git_sha": "dead"}))
    assert done.returncode == 0 and "another version answers" in done.stdout


def test_nothing_that_listens_is_named(tmp_path):
    env = {"URL": "http://127.0.0.1:9", "TIMEOUT_S": "0", "POLL_S": "0.01", **SENT}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "refused" in done.stderr


def test_the_token_opens_a_closed_status_and_is_not_printed():
    done, requests = wait_for(good, API_TOKEN="a-token-nobody-may-see")
    assert done.returncode == 0, done.stderr
    assert {headers["Authorization"] for _, headers in requests} == {"Bearer a-token-nobody-may-see"}
    assert "a-token-nobody-may-see" not in done.stdout + done.stderr


def gcloud(folder: Path, *lines: str) -> str:
    """A PATH whose gcloud runs these lines."""
    program = folder / "gcloud"
    program.write_text("\n".join(("#!/bin/sh", *lines, "")), encoding="utf-8")
    program.chmod(0o755)
    return str(folder)


def test_an_invited_caller_sends_the_token_of_gcloud(tmp_path):
    path = gcloud(tmp_path, 'test "$*" = "auth print-identity-token" && echo an-identity-token')
    done, requests = wait_for(good, IDENTITY_TOKEN="gcloud", PATH=path, API_TOKEN="the-services-own")
    assert done.returncode == 0, done.stderr
    assert requests[0][1]["X-Serverless-Authorization"] == "Bearer an-identity-token"
    assert requests[0][1]["Authorization"] == "Bearer the-services-own"
    assert "an-identity-token" not in done.stdout + done.stderr


def test_a_caller_who_is_not_invited_is_told_what_is_not_proven(tmp_path):
    path = gcloud(tmp_path, "echo an-identity-token")
    done, _ = wait_for(lambda *_: (403, {}), timeout_s=0.1, IDENTITY_TOKEN="gcloud", PATH=path)
    assert done.returncode == 0 and "NOT PROVEN" in done.stdout


def test_credentials_without_an_identity_prove_nothing(tmp_path):
    """Of a federated pipeline, in gcloud's words: Google has found the service ready."""
    says = "ERROR: (gcloud.auth.print-identity-token) No identity token can be obtained from the current credentials."
    done, requests = wait_for(good, IDENTITY_TOKEN="gcloud", PATH=gcloud(tmp_path, f"echo '{says}' >&2", "exit 1"))
    assert (done.returncode, requests) == (0, []) and "NOT PROVEN" in done.stdout


def test_403_without_an_invitation_is_a_failure():
    done, _ = wait_for(lambda *_: (403, {}), timeout_s=0.1)
    assert done.returncode == 1 and "status 403" in done.stderr


@pytest.mark.parametrize("lines", [("echo log in first >&2", "exit 1"), None], ids=["logged-out", "no-gcloud"])
def test_without_a_token_of_gcloud_the_reason_is_named(tmp_path, lines):
    path = gcloud(tmp_path, *lines) if lines else str(tmp_path)
    done, requests = wait_for(good, IDENTITY_TOKEN="gcloud", PATH=path)
    assert done.returncode == 1 and requests == []  # waiting would not help
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("cloudtrial:invoker lets in those with an identity")
    assert ("log in first" if lines else "gcloud is not installed (https://") in done.stderr


def test_a_revision_that_is_not_ready_fails_over_the_old_one():
    """The old one answers as ever: where only a setting was changed, with the same model and commit."""
    done, requests = wait_for(good, CREATED_REVISION="a-00002-xyz", READY_REVISION="a-00001-abc")
    assert done.returncode == 1 and requests == []
    assert done.stderr == "a-00002-xyz did not get ready; a-00001-abc still serves\nLook there.\n"


def test_a_host_can_be_asked_at_an_address_of_its_own(tmp_path):
    done, requests = wait_for(good, HOST="classifier.invalid", ADDRESS_FILE=str(tmp_path / "address"))
    assert done.returncode == 0, done.stderr
    assert {headers["Host"] for _, headers in requests} == {"classifier.invalid"}


def test_an_answer_elsewhere_is_not_the_endpoints_own():
    """It is not even asked: it would see the token."""
    asked: list[str] = []

    def elsewhere(request, _):
        asked.append(request.headers["Authorization"])
        send(request, 200, "{}")

    with http_server(elsewhere) as old:
        leads_on = f"http://127.0.0.1:{old}/readyz"
        with http_server(lambda request, _: send(request, 308, Location=leads_on)) as port:
            env = {"URL": f"http://127.0.0.1:{port}", "TIMEOUT_S": "0", "POLL_S": "0.01", "API_TOKEN": "secret", **SENT}
            done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and asked == []
    assert f"/readyz answered status 308, and leads on to {leads_on}" in done.stderr


def test_the_script_is_whole_wherever_it_is_run(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "KeyError: 'URL'"


# The commit


@pytest.fixture
def repository(tmp_path) -> Path:
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "shipped.py", "one")
    return tmp_path


def git(repository: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ["git", *who, "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def commit(repository: Path, name: str, content: str) -> str:
    (repository / name).write_text(content, encoding="utf-8")
    git(repository, "add", name)
    git(repository, "commit", "--quiet", "--message", content)
    return git(repository, "rev-parse", "HEAD")


def sha_of(repository: Path) -> str:
    return deployed_git_sha({"service/shipped.py": repository / "shipped.py"}, repository)


def test_the_sha_is_the_last_commit_of_what_is_shipped(repository):
    shipped = commit(repository, "shipped.py", "two")
    later = commit(repository, "README.md", "three")
    assert sha_of(repository) == shipped != later


def test_what_is_not_committed_is_dirty_with_its_content(repository):
    clean = sha_of(repository)
    seen = {clean}
    for content in ("three", "four"):
        (repository / "shipped.py").write_text(content, encoding="utf-8")
        seen.add(sha_of(repository))
    assert len(seen) == 3
    assert all(name.startswith(f"{clean}-dirty-") for name in seen - {clean})


def test_a_shipped_file_that_is_deleted_is_another_deployment(repository):
    (repository / "service").mkdir()
    for name in ("service/a.py", "service/b.py"):
        before = commit(repository, name, name)

    def sha() -> str:
        return deployed_git_sha({f"service/{p.name}": p for p in (repository / "service").iterdir()}, repository)

    assert sha() == before
    git(repository, "rm", "--quiet", "service/b.py")
    assert sha().startswith(f"{before}-dirty-")
    git(repository, "commit", "--quiet", "--message", "less")
    assert sha() == git(repository, "rev-parse", "HEAD") != before


def test_outside_git_the_content_is_the_name(tmp_path):
    (tmp_path / "shipped.py").write_text("one", encoding="utf-8")
    first = sha_of(tmp_path)
    (tmp_path / "shipped.py").write_text("two", encoding="utf-8")
    assert first.startswith("unversioned-") and sha_of(tmp_path) != first
