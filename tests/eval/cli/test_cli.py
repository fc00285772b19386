from __future__ import annotations

import html
import json
import os
import resource
import shutil
import stat
import subprocess
import sys

import pytest

from eval.__main__ import main
from eval.errors import EndpointError
from eval.samples.store import read_run
from eval.targets.endpoints import parse_target, target_for_name
from eval.targets.stacks import remote_targets
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import closed_port, fake_endpoint

pytestmark = pytest.mark.integration


def run(*arguments, limit=20):
    return main(["run", "--images", "golden", "--limit", str(limit), *map(str, arguments)])


def test_a_run_writes_its_files_and_prints_paths_and_verdict(tmp_path, capsys):
    with fake_endpoint() as fake:
        assert run("--target", f"heroku={fake.url}", "--out", tmp_path) == 0
    printed = capsys.readouterr().out.splitlines()
    names = ("report.html", "report.md", "report.json")
    for name in names:
        assert (tmp_path / name).stat().st_size > 100
    verdict = json.loads((tmp_path / "report.json").read_text())["verdict"]
    assert printed[-3:] == [verdict["answer"], verdict["condition"], (tmp_path / "report.html").as_uri()]


def test_json_log_is_objects_alone_up_to_the_verdict(tmp_path, capsys):
    with fake_endpoint() as fake:
        assert run("--target", f"heroku={fake.url}", "--out", tmp_path, "--json-log") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    verdict = json.loads((tmp_path / "report.json").read_text())["verdict"]
    assert verdict["answer"] in [line.get("message") for line in printed]
    assert {"progress": "Requests", "failed": 0} in [
        {k: line.get(k) for k in ("progress", "failed")} for line in printed
    ]


def test_default_out_is_under_reports_and_linked_as_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with fake_endpoint() as fake:
        assert run("--target", f"a={fake.url}") == 0
    latest = tmp_path / "reports" / "latest"
    assert latest.is_symlink()
    assert latest.resolve().name == read_run(latest).id


def test_a_second_run_into_the_same_folder_is_refused(tmp_path, capsys):
    with fake_endpoint() as fake:
        run("--target", f"a={fake.url}", "--out", tmp_path)
        capsys.readouterr()
        assert run("--target", f"a={fake.url}", "--out", tmp_path) == 1
    assert (
        capsys.readouterr().err
        == f"{tmp_path} has a run already (run.json): select another folder with --out, or remove it\n"
    )


def test_the_report_can_be_written_again(tmp_path, capsys):
    with fake_endpoint() as fake:
        run("--target", f"a={fake.url}", "--out", tmp_path)
    before = (tmp_path / "report.json").read_text()
    (tmp_path / "report.json").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.json").read_text() == before


def test_the_command_line_is_recorded(tmp_path):
    with fake_endpoint() as fake:
        run("--target", f"a={fake.url}", "--out", tmp_path, "--seed", "7", "--step", "4")
        done = read_run(tmp_path)
        assert done.command[:2] == ["./cloudtrial", "run"] and f"a={fake.url}" in done.command
    assert (done.seed, done.config["step_s"]) == (7, 4.0)


def test_nobody_to_be_reached_is_exit_1_with_the_reasons(tmp_path, capsys):
    assert run("--target", f"a=http://127.0.0.1:{closed_port()}", "--out", tmp_path) == 1
    assert verdicts(tmp_path, capsys)[0].startswith("a was not measured: not reached before the run: connect: ")
    assert not read_run(tmp_path).complete


def verdicts(folder, capsys):
    """The condition of the answer, which was printed, and which all three reports have too."""
    sentence = capsys.readouterr().out.splitlines()[-2]
    assert json.loads((folder / "report.json").read_text())["verdict"]["condition"] == sentence
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    return [sentence, html.unescape(page), html.unescape(markdown.replace("\\", ""))]


def test_an_address_with_the_path_too_much_is_the_verdict(tmp_path, capsys):
    with fake_endpoint("gone") as fake:
        assert run("--target", f"mine={fake.url}", "--out", tmp_path, limit=10) == 1
    why = f"404: there is no '/predict/predict'; images are posted to {fake.url}/predict: give the address"
    assert all(f"mine was not measured: {why}" in text for text in verdicts(tmp_path, capsys))


@pytest.mark.parametrize(("mode", "why"), [("broken", "500: Internal error"), ("hangup", "the connection was closed")])
def test_when_everything_fails_the_reason_is_the_verdict(tmp_path, capsys, mode, why):
    with fake_endpoint(mode) as fake:
        assert run("--target", f"mine={fake.url}", "--out", tmp_path, limit=10) == 1
    assert all(f"mine answered none of 10: {why}" in text for text in verdicts(tmp_path, capsys))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--limit", "0"], "'0' is not a whole number of at least 1"),
        (["--limit", "many"], "'many' is not a whole number of at least 1"),
        (["--warmup", "-1"], "'-1' is not a whole number of at least 0"),
        (["--timeout-s", "0"], "'0' is not a number of seconds above 0"),
        (["--scenario", "steady"], "'steady' is not a scenario; there are single, poisson, ramp"),
        (["--scenario", ","], "names no scenario; there are single, poisson, ramp"),
        (["--images"], "expected one argument"),
    ],
    ids=["none", "words", "negative", "no time", "scenario", "no scenario", "no value"],
)
def test_wrong_usage_is_exit_2_and_says_what_is_expected(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", *arguments])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_missing_folder_exits_1_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--target", "a=http://127.0.0.1:9", "--images", "nowhere"]) == 1
    assert capsys.readouterr().err == "there is no folder nowhere: name one that holds CLASS/* or test/CLASS/*\n"
    assert list(tmp_path.iterdir()) == []


def test_reporting_on_what_is_no_run_is_exit_1(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path} is not a run: it has no run.json\n"


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    assert "./cloudtrial run --stacks aws_ec2,heroku" in text
    assert "Exit codes: 0 done, 1 failed or no request answered, 2 wrong usage, 130 Ctrl-C,\n143" in text


def test_a_seed_that_a_record_could_not_hold_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--seed", "1700000000000000000"])
    assert "'1700000000000000000' is not a whole number from 0 to 1000000000000" in capsys.readouterr().err


def test_prices_prints_the_dated_table(capsys):
    assert main(["prices"]) == 0
    assert "sha256" in capsys.readouterr().out


# Endpoints


@pytest.mark.parametrize(
    ("given", "kept"), [("/", ""), ("/predict/", "/predict"), ("/api/predict/", "/api/predict/"), ("/v1/", "/v1/")]
)
def test_an_address_of_this_service_alone_loses_its_last_slash(given, kept):
    assert parse_target(f"mine=http://127.0.0.1:8080{given}").url == f"http://127.0.0.1:8080{kept}"


@pytest.mark.parametrize(
    ("name", "target"),
    [("aws_ec2", "aws_ec2"), ("aws_ec2-prod", "aws_ec2"), ("mine", None), ("aws_ec2prod", None)],
)
def test_an_endpoint_named_for_a_target_is_priced_as_it(name, target):
    assert target_for_name(name) == target


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://a.example", "expected NAME=URL"),
        ("a=ftp://a.example", "expected http://HOST"),
        ("a=a.example", "expected http://HOST"),
        ("a=http://a.example:port", "is not an address"),
        ("a=https://me:secret@a.example", "the address of 'a.example' has a user, a query or a fragment"),
        ("a=https://a.example?key=secret", "the address of 'a.example' has a user, a query or a fragment"),
        ("a|b=http://a.example", "'a|b' cannot name an endpoint"),
        ("reference=http://a.example", "'reference' cannot name an endpoint"),
    ],
    ids=["no name", "scheme", "no scheme", "port", "user", "query", "bar", "reference"],
)
def test_unusable_url_error_says_why_and_hides_secrets(text, says):
    with pytest.raises(EndpointError) as error:
        parse_target(text)
    assert says in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("other", [("--target", "heroku=http://127.0.0.1:2"), ("--local",)], ids=["address", "twin"])
def test_duplicate_endpoint_names_fail_and_leave_nothing_behind(other, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--target", "heroku=http://127.0.0.1:1", *other) == 1
    assert capsys.readouterr().err == "two endpoints are called 'heroku': rename one\n"
    assert list(tmp_path.iterdir()) == []


def fake_pulumi(folder, monkeypatch, text):
    """A pulumi program that records how it was called."""
    program = folder / "pulumi"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/called\n{text}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_stack_is_asked_for_what_it_exports(tmp_path, monkeypatch):
    fake_pulumi(tmp_path, monkeypatch, """echo '{"url": "https://app.example/", "target": "heroku"}'""")
    (found,) = remote_targets((), ["me/cloudtrial/heroku-prod"], ()).endpoints
    assert (found.name, found.target, found.url) == ("heroku-prod", "heroku", "https://app.example")
    called = (tmp_path / "called").read_text()
    assert called == "stack output --json --stack me/cloudtrial/heroku-prod --non-interactive\n"


BAD_OUTPUTS = {
    "unknown": ("echo 'error: no stack named heroku' >&2; exit 255", "stack heroku: error: no stack named heroku"),
    "escape": (r"printf 'error: \033[2J' >&2; exit 255", "stack heroku: error: \ufffd[2J"),
    "not up": ("echo '{}'", "stack heroku exports no url; run `pulumi up --stack heroku` first"),
    "list": ("echo '[1]'", "stack heroku exports no url"),
    "no JSON": ("echo 'url: 1'", "stack heroku exports no url"),
    "deep": ("head -c 200000 /dev/zero | tr '\\0' '['", "stack heroku exports no url"),
    "number": ("""echo '{"url": 8080}'""", "stack heroku, output url: 8080 is not an address: expected text"),
    "scheme": ("""echo '{"url": "file:///etc/passwd"}'""", "expected http://HOST[:PORT] or https://HOST[:PORT]"),
    "no host": ("""echo '{"url": "https:///predict"}'""", "expected http://HOST[:PORT] or https://HOST[:PORT]"),
    "user": ("""echo '{"url": "https://me:word@a.example"}'""", "output url: the address of 'a.example' has a user"),
    "line": (r"""printf '{"url": "https://a.exa\\u000ample"}'""", "has characters that none has"),
    "backslash": (r"""printf '{"url": "https://a.example\\\\b.example"}'""", "has characters that none has"),
    "long": ("""printf '{"url": "https://a.example/%0600d"}' 0""", "or more than 500"),
}


@pytest.mark.parametrize(("text", "says"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_a_stack_without_an_address_costs_only_its_target(tmp_path, monkeypatch, capsys, text, says):
    fake_pulumi(tmp_path, monkeypatch, text)
    with pytest.raises(EndpointError) as error:
        remote_targets((), ["heroku"], ())
    assert says in str(error.value) and str(error.value).isprintable() and "word" not in str(error.value)
    found = remote_targets((), ["heroku"], ["mine=http://127.0.0.1:8080"])
    assert [endpoint.name for endpoint in found.endpoints] == ["mine"]
    assert found.start_failures == {"heroku": str(error.value)}


def test_a_stacks_failure_is_recorded_beside_what_is_measured(tmp_path, monkeypatch, capsys):
    fake_pulumi(tmp_path, monkeypatch, "echo '{}'")
    with fake_endpoint() as fake:
        arguments = ("--target", f"a={fake.url}", "--stacks", "heroku", "--out", tmp_path / "run")
        assert run(*arguments, limit=2) == 0
    stack = read_run(tmp_path / "run").targets[1]
    assert (stack.name, stack.target, stack.twin, stack.engine) == ("heroku", "heroku", False, None)
    assert stack.failure == "stack heroku exports no url; run `pulumi up --stack heroku` first"
    assert f"heroku is left out: {stack.failure}\n" in capsys.readouterr().out


@pytest.mark.parametrize("stack", ["--cwd=/tmp", "a/b/c/d", "heroku;id", "her\x1boku", "x" * 101])
def test_what_names_no_stack_reaches_no_program(tmp_path, monkeypatch, stack):
    fake_pulumi(tmp_path, monkeypatch, "echo '{}'")
    with pytest.raises(EndpointError, match="expected STACK or ORGANISATION/PROJECT/STACK"):
        remote_targets((), [stack], ())
    assert not (tmp_path / "called").exists()


def test_missing_pulumi_error_says_where_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("--stacks", "heroku,aws_ec2") == 1
    error = capsys.readouterr().err
    assert "--stacks heroku needs the pulumi program on PATH: `make pulumi`" in error and "--target NAME=URL" in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A finished run, and a file beside it."""
    folder = tmp_path_factory.mktemp("small") / "run"
    with fake_endpoint() as fake:
        assert run("--target", f"a={fake.url}", "--out", folder, limit=2) == 0
    (folder.parent / "file").write_text("x")
    return folder


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "run --images golden --limit 2 --target a=http://127.0.0.1:9 --out FILE",
            "cannot write into FILE: File exists",
        ),
        ("run --target a=http://127.0.0.1:9 --images FILE", "there is no folder FILE: name one"),
        ("run --resume FILE", "cannot read FILE/run.json: Not a directory"),
        ("report FILE", "cannot read FILE/run.json: Not a directory"),
        ("report RUN/run.json", "cannot read RUN/run.json/run.json: Not a directory"),
        ("report --trend RUN FILE", "cannot read FILE/run.json: Not a directory"),
        ("samples FILE", "cannot read FILE/run.json: Not a directory"),
        ("compare RUN FILE", "cannot read FILE/run.json: Not a directory"),
    ],
    ids=["out", "images", "resume", "report", "run.json", "trend", "samples", "compare"],
)
def test_a_file_in_place_of_a_folder_is_one_line(small_run, command, says, capsys):
    names = {"FILE": str(small_run.parent / "file"), "RUN": str(small_run)}
    for name, path in names.items():
        command, says = command.replace(name, path), says.replace(name, path)
    assert main(command.split()) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith(says) and error.count("\n") == 1


def test_a_folder_for_the_reports_of_one_run_is_refused(small_run, tmp_path, capsys):
    assert main(["report", str(small_run), "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("--out is where --trend writes; the reports of one run are written into")


def test_a_full_disk_leaves_no_half_written_report(small_run, tmp_path, capsys):
    shutil.copytree(small_run, tmp_path / "run")
    page_bytes = (tmp_path / "run" / "report.html").stat().st_size
    for path in (tmp_path / "run").glob("report.*"):
        path.write_text("an earlier report")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (page_bytes - 1, limits[1]))
    try:
        assert main(["report", str(tmp_path / "run")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err == f"cannot write into {tmp_path / 'run'}: File too large\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_outlives_the_reader_of_its_output(tmp_path, monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe, fake_endpoint() as fake:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run("--target", f"a={fake.url}", "--out", tmp_path, limit=2) == 0
    assert read_run(tmp_path).complete and (tmp_path / "report.html").exists()


def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "eval", "prices"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "the output: No space left on device\n")


@pytest.mark.parametrize("command", [["prices"], ["cost", "heroku"]], ids=["prices", "cost"])
def test_closed_pipe_ends_a_command_without_a_traceback(command):
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `head` does
    with os.fdopen(write_end, "wb") as pipe:
        done = subprocess.run([sys.executable, "-m", "eval", *command], cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
