"""The commands around the programs: make's targets, with stand-ins for pulumi, pip and uv; how pulumi is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from pulumi.automation import _cmd

from infra.targets import TARGETS
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

VERSION = "3.272.0"
OWN_PROVIDERS = "--skip-plugin-pre-install"  # else the program downloads the provider of every SDK in .venv
COMMANDS = {
    "refresh": f"pulumi refresh {OWN_PROVIDERS} --stack heroku",
    "drift": f"pulumi preview {OWN_PROVIDERS} --refresh --expect-no-changes --stack heroku",
    "unlock": "pulumi cancel --stack heroku",
    "outputs": "pulumi stack output --stack heroku",
    "down": f"pulumi destroy {OWN_PROVIDERS} --stack heroku",
}


@pytest.fixture(autouse=True)
def _make_is_here(needs_tool):
    needs_tool("make")


@pytest.fixture
def project(tmp_path) -> Path:
    """What make needs of the project, with an environment that is said to be there already."""
    folder = tmp_path / "project"
    (folder / "infra").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "infra" / "requirements.txt", folder / "infra")
    for name in ("requirements-demo.txt", "requirements-torch.txt"):
        shutil.copy(ROOT / name, folder)
    for stamp in (".venv/.infra", ".venv/.demo"):
        write_program(folder / stamp, "")
    write_program(folder / "cloudtrial", f'#!/bin/sh\necho "$0" "$@" >> {tmp_path}/called\n')
    write_program(folder / ".venv/bin/python", f'#!/bin/sh\necho python "$@" >> {tmp_path}/called\n')
    return folder


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def stand_in(project, folder="bin", answer="", name="pulumi"):
    """A pulumi that writes down how it was called."""
    write_program(project.parent / folder / "pulumi",
                  f'#!/bin/sh\necho {name} "$@" >> {project.parent}/called\n{answer}\n')  # fmt: skip


def make(project, *arguments, **variables):
    """The outcome of make, and how the stand-ins were called."""
    path = os.pathsep.join((str(project.parent / "bin"), "/usr/bin", "/bin"))
    env = {"PATH": path, "HOME": str(project.parent), "LC_ALL": "C"} | variables
    command = [shutil.which("make"), *arguments]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    called = project.parent / "called"
    return done, called.read_text().splitlines() if called.exists() else []


@pytest.mark.parametrize("stack", ["aws_ec2", "gcp_function-prod", "me/cloudtrial/heroku"])
@pytest.mark.parametrize("command", ["up", "preview"])
def test_up_and_preview_select_the_stack_or_make_it_and_go_on(project, command, stack):
    stand_in(project)
    done, called = make(project, command, f"STACK={stack}")
    assert done.returncode == 0, done.stderr
    assert called == [
        f"./cloudtrial preflight {stack} --prerequisites --",
        f"pulumi stack select --create {stack}",
        f"pulumi {command} {OWN_PROVIDERS} --stack {stack}",
    ]


def test_down_creates_no_stack_and_names_the_leftovers_command(project):
    stand_in(project)
    done, called = make(project, "down", "STACK=heroku", "ARGS=--yes")
    assert done.returncode == 0 and called == [f"pulumi destroy {OWN_PROVIDERS} --stack heroku --yes"]
    assert "make leftovers STACK=heroku" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_on_a_stack_create_none_and_report_failure(project, command):
    stand_in(project)
    done, called = make(project, command, "STACK=heroku", "ARGS=--yes")
    assert done.returncode == 0 and called == [f"{COMMANDS[command]} --yes"]
    stand_in(project, answer="exit 3")
    done, _ = make(project, command, "STACK=heroku")
    assert done.returncode != 0


def test_a_pulumi_that_fails_ends_it_there(project):
    stand_in(project, answer="exit 255")
    done, called = make(project, "up", "STACK=heroku", "PREREQUISITES=skip")
    assert done.returncode != 0 and called == ["pulumi stack select --create heroku"]


@pytest.mark.parametrize("command", ["up", "preview"])
def test_what_is_missing_ends_it_before_pulumi_runs(project, command):
    stand_in(project)
    write_program(project / "cloudtrial", f'#!/bin/sh\necho "$0" "$@" >> {project.parent}/called\nexit 1\n')
    done, called = make(project, command, "STACK=heroku", "ARGS=--yes -c a:b=c")
    assert done.returncode != 0 and called == ["./cloudtrial preflight heroku --prerequisites -- --yes -c a:b=c"]
    _, called = make(project, command, "STACK=heroku", PREREQUISITES="skip")
    assert called[1:] == ["pulumi stack select --create heroku", f"pulumi {command} {OWN_PROVIDERS} --stack heroku"]


@pytest.mark.parametrize("stack", ["", "azure", "aws", "aws_ec2x"])
@pytest.mark.parametrize("command", [*COMMANDS, "up", "preview", "preflight", "logs", "leftovers"])
def test_missing_or_unknown_stack_is_one_line_and_starts_nothing(project, command, stack):
    stand_in(project)
    done, called = make(project, command, f"STACK={stack}")
    assert done.returncode != 0 and called == []
    assert done.stderr.count("\n") == 1 and f"STACK is '{stack}'" in done.stderr
    assert all(name in done.stderr for name in TARGETS)


SMUGGLED = ["{};touch {}", "{}&touch {}", "{}|touch {}", "{}\ntouch {}", "{} `touch {}`", "{}>{}", "{} $(touch {})",
            "{}$(shell touch {})", "{}$$(touch {})"]  # fmt: skip


@pytest.mark.parametrize("value", SMUGGLED)
@pytest.mark.parametrize("variable", ["STACK", "ARGS", "RUN", "LIMIT", "MODEL", "PREREQUISITES"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_no_value_reaches_a_shell_as_more_than_arguments(project, variable, value, by):
    stand_in(project)
    mark = project.parent / "mark"
    given = {"STACK": "heroku", variable: value.format("heroku-x", mark)}
    command = {"RUN": "report", "LIMIT": "demo", "MODEL": "twins"}.get(variable, "down")
    if by == "argument":
        done, called = make(project, command, *(f"{name}={text}" for name, text in given.items()))
    else:
        done, called = make(project, command, **given)
    assert done.returncode != 0 and called == [] and not mark.exists()
    assert f"{variable} holds what a shell would read as more than arguments" in done.stderr


@pytest.mark.parametrize(
    "stack", ["heroku x", "heroku'x", 'heroku"x', "heroku\\x", "heroku*", "heroku-X", "heroku-{a,b}"]
)
def test_stack_of_other_characters_is_refused(project, stack):
    stand_in(project)
    done, called = make(project, "up", f"STACK={stack}")
    assert done.returncode != 0 and called == [] and f"STACK is '{stack}'" in done.stderr


def test_arguments_in_quotes_stay_whole(project):
    _, called = make(project, "preflight", "STACK=heroku", 'ARGS=--images "a b" --x=(y)')
    assert called == []  # parentheses are a shell's, too, and it refuses them
    _, called = make(project, "preflight", "STACK=heroku", "ARGS=--images 'a b' --x=y")
    assert called == ["./cloudtrial preflight heroku --images a b --x=y"]


def test_missing_pulumi_names_the_command_that_installs_it(project):
    done, called = make(project, "up", "STACK=heroku")
    assert done.returncode != 0 and called == []
    assert done.stderr.count("\n") == 1 and "make pulumi installs it" in done.stderr


def test_the_installed_pulumi_goes_before_any_other(project):
    stand_in(project)
    stand_in(project, f".pulumi/versions/{VERSION}/bin", name="pinned")
    _, called = make(project, "preview", "STACK=heroku", "PREREQUISITES=skip")
    assert called == ["pinned stack select --create heroku", f"pinned preview {OWN_PROVIDERS} --stack heroku"]


def test_the_other_commands_run_their_programs(project):
    stand_in(project)
    make(project, "leftovers", "STACK=aws_ec2", "ARGS=--region us-east-1")
    make(project, "preflight", "STACK=aws_ec2", "ARGS=--no-twin")
    make(project, "logs", "STACK=heroku-prod", "ARGS=--tail")
    _, called = make(project, "pulumi")
    assert called == [
        "./cloudtrial leftovers --stack aws_ec2 --region us-east-1",
        "./cloudtrial preflight aws_ec2 --no-twin",
        "./cloudtrial logs heroku-prod --tail",
        "python scripts/setup/install_pulumi.py",
    ]


def test_deploying_without_make_installs_the_same():
    """With no .venv, `pulumi up` makes it from the root's requirements.txt."""
    first, *lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert lines == ["-r infra/requirements.txt"]
    assert first.startswith("# What deploying needs, and only that") and "make demo" in first
    options = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["runtime"]["options"]
    assert options == {"toolchain": "pip", "virtualenv": ".venv"}


def test_the_demo_installs_no_pulumi(project):
    demo = (ROOT / "requirements-demo.txt").read_text()
    assert "pulumi" not in demo and "-r " not in demo
    (project / ".venv/.demo").unlink()
    write_program(project / ".venv/bin/pip", "")
    done, called = make(project, "demo", f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert called[-2].endswith("install -r requirements-torch.txt -r requirements-demo.txt")


def test_who_only_deploys_gets_no_torch(project):
    stand_in(project)
    (project / ".venv/.infra").unlink()
    write_program(project / ".venv/bin/pip", "")
    done, called = make(project, "up", "STACK=heroku", "PREREQUISITES=skip", f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert called[0] == "python -m pip --disable-pip-version-check install -r infra/requirements.txt"
    assert called[1:] == ["pulumi stack select --create heroku", f"pulumi up {OWN_PROVIDERS} --stack heroku"]
    assert (project / ".venv/.infra").exists()


# scripts/setup/venv

PIP = """#!/bin/sh
echo python "$@"
case "$*" in *--no-index*) exit {installed};; *--index-url*) echo ERROR: nothing there >&2; exit {reached};; esac
"""


def set_up(project, installed=1, reached=1, **env):
    """What a set-up says, with pip's own calls among it; pip finds torch installed, or at the index, with status 0."""
    write_program(project / ".venv/bin/python", PIP.format(installed=installed, reached=reached))
    write_program(project / ".venv/bin/pip", "")
    env = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **env}
    done = subprocess.run(
        [project / "scripts/setup/venv", "requirements-demo.txt"], cwd=project, env=env, capture_output=True, text=True
    )
    return done, done.stdout.splitlines()


REST = "python -m pip --disable-pip-version-check install -r requirements-torch.txt -r requirements-demo.txt"


def test_setup_says_which_torch_and_its_size_before_pip_runs(project):
    done, lines = set_up(project, reached=0)
    assert done.returncode == 0, done.stderr
    assert "CPU wheels, about 200 MB, from https://download.pytorch.org/whl/cpu" in lines[0]
    assert "--index-url https://download.pytorch.org/whl/cpu" in lines[1] and lines[-2] == REST


def test_setup_without_cpu_index_says_the_cuda_builds_size_first(project):
    done, lines = set_up(project)
    assert done.returncode == 0 and done.stderr == ""
    size = next(number for number, line in enumerate(lines) if "PyTorch from PyPI instead: on Linux 3.0 GB" in line)
    assert 1 < size < lines.index(REST)
    assert lines.index("    ERROR: nothing there") < size  # why, before where pip goes instead
    _, lines = set_up(project, TORCH_INDEX="pypi")
    assert "as TORCH_INDEX asks: on Linux 3.0 GB" in lines[0] and lines[-2] == REST


def test_sizes_in_setup_are_of_the_installed_versions(project):
    pins = (project / "requirements-torch.txt").read_text().splitlines()[-2:]
    script = (project / "scripts/setup/venv").read_text()
    assert f"# Of {' and '.join(pin.replace('==', ' ') for pin in pins)}," in script


def test_an_index_that_was_named_and_has_no_torch_is_an_error(project):
    done, lines = set_up(project, TORCH_INDEX="https://index.example")
    assert done.returncode == 1 and REST not in lines
    assert "ERROR: nothing there" in done.stderr and "TORCH_INDEX=https://index.example" in done.stderr


def test_setup_with_torch_installed_names_no_size(project):
    _, lines = set_up(project, installed=0)
    assert not any("MB" in line or "GB" in line for line in lines) and lines[-2] == REST


def test_setup_shows_pips_downloads(project):
    _, lines = set_up(project)
    assert len([line for line in lines if line.startswith("python")]) == 2
    assert not any("--quiet" in line for line in lines)


# scripts/setup/lock

UV = """#!/bin/sh
[ -z "$FAILS" ] || { echo "error: $FAILS" >&2; exit 1; }
while [ "$1" != --output-file ]; do shift; done
grep -q "^kept" "$2" && kept=kept
printf 'one==1\n    # via\n    #   -c /tmp/any\n    #   two\n%s\n# The following packages were excluded\n' "$kept" >"$2"
"""
WITH_TORCH = [f"{folder}/requirements.txt" for folder in ("service", "infra/gcp_function", "infra/aws_sagemaker")]
WITHOUT_TORCH = [
    *(f"{folder}/requirements-onnx.txt" for folder in ("service", "infra/gcp_function")),
    "infra/aws_ec2/requirements-store.txt",
    "eval/load/nodes/requirements-sender.txt",
]
LOCKS = [*WITH_TORCH, *WITHOUT_TORCH]


@pytest.fixture
def locked(project):
    """A project with locks, and a uv that keeps what they hold."""
    for folder in {(project / lock).parent for lock in LOCKS}:
        folder.mkdir(parents=True, exist_ok=True)
    for lock in LOCKS:
        (project / lock).write_text("kept\n")
    (project / "service/torch-cpu.txt").write_text("torch\n")
    write_program(project / ".venv/bin/uv", UV)
    return project


def lock(project, **env):
    env = {"PATH": "/usr/bin:/bin", **env}
    return subprocess.run([project / "scripts/setup/lock"], env=env, capture_output=True, text=True)


def test_lock_is_torchs_lines_plus_uvs_update_of_the_old_lock(locked):
    done = lock(locked)
    assert done.returncode == 0, done.stderr
    body = "one==1\n    # via\n    #   two\nkept\n"
    assert {(locked / name).read_text() for name in WITH_TORCH} == {f"torch\n{body}"}
    assert {(locked / name).read_text() for name in WITHOUT_TORCH} == {body}


def test_a_uv_that_fails_changes_no_lock(locked):
    done = lock(locked, FAILS="PyPI cannot be reached")
    assert done.returncode != 0 and "PyPI cannot be reached" in done.stderr
    assert {(locked / name).read_text() for name in LOCKS} == {"kept\n"}


def test_help_lists_the_commands_and_the_targets(project):
    done, _ = make(project, "help")
    for command in ("pulumi", "preflight", "preview", "up", "logs", "leftovers", *COMMANDS):
        assert f"make {command} " in done.stdout
    assert " ".join(TARGETS_IN_ORDER) in done.stdout


TARGETS_IN_ORDER = next(
    line.partition(":=")[2].split()
    for line in (ROOT / "Makefile").read_text().splitlines()
    if line.startswith("TARGETS :=")
)


def test_make_knows_the_same_targets_as_the_programs():
    assert set(TARGETS_IN_ORDER) == set(TARGETS)


# scripts/setup/install_pulumi.py


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """The script as a module, in a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("install_pulumi", ROOT / "scripts" / "setup" / "install_pulumi.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def install_script(monkeypatch, text):
    """What the SDK fetches and runs."""
    fetched = []

    def fetch(url, path):
        fetched.append(url)
        Path(path).write_text(f"#!/bin/sh\n{text}\n")

    monkeypatch.setattr(_cmd, "_download_to_file", fetch)
    return fetched


PUTS_IT_THERE = f"""mkdir -p "$3/bin"; echo "$@" > "$3/arguments"
printf '#!/bin/sh\\necho v{VERSION}\\n' > "$3/bin/pulumi"; chmod +x "$3/bin/pulumi"
"""


def test_pulumi_is_installed_once_in_the_version_of_the_sdk(installer, tmp_path, monkeypatch, capsys):
    fetched = install_script(monkeypatch, PUTS_IT_THERE)
    root = tmp_path / ".pulumi" / "versions" / VERSION
    assert installer.main() == 0
    assert (root / "arguments").read_text().split() == [
        "--no-edit-path", "--install-root", str(root), "--version", VERSION]  # fmt: skip
    output = capsys.readouterr().out
    assert output.startswith(f"pulumi {VERSION}: fetching from") and f"is now in {root}" in output
    assert installer.main() == 0
    assert len(fetched) == 1 and f"pulumi {VERSION} is already in {root}" in capsys.readouterr().out


def test_no_network_is_one_line(installer, monkeypatch, capsys):
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert installer.main() == 1
    errors = capsys.readouterr().err
    assert f"pulumi {VERSION} could not be installed from get.pulumi.com: " in errors and "refused" in errors
    assert errors.count("\n") == 1


def test_failed_install_script_is_reported_by_its_last_line(installer, monkeypatch, capsys):
    install_script(monkeypatch, "echo fetching; echo 'error: the disk is full' >&2; exit 3")
    assert installer.main() == 1
    errors = capsys.readouterr().err
    assert "error: the disk is full" in errors and errors.count("\n") == 1


def test_installed_pulumi_that_is_too_old_is_reported(installer, monkeypatch, capsys):
    install_script(monkeypatch, PUTS_IT_THERE.replace(VERSION, "3.1.0"))
    assert installer.main() == 1
    assert "your current CLI version is 3.1.0" in capsys.readouterr().err


def test_the_pinned_version_is_that_of_the_installed_sdk(installer):
    from importlib.metadata import version

    assert installer.pinned_version((ROOT / "infra" / "requirements.txt").read_text()) == version("pulumi") == VERSION
