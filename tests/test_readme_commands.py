"""Every command of the fenced blocks of README and docs/, in order and once, run as written in a copy of the tree.

Placeholders are made true beforehand: DIR holds images, reports/A is a run, cat.png an image, example.org a service
that the test starts, pulumi a stand-in that exports its address. Long measurements get flags that make them short.
What needs an account or changes the machine stands in NOT_RUN with the reason, and is checked as far as that goes.
A command that is new in the README and does not work fails here until it does, or is listed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.__main__ import build_parser
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import Fake, fake_endpoint
from tests.helpers.http_server import http_server, send
from tests.helpers.running_service import SETTINGS, ready_service
from tests.helpers.synthetic_scenarios import write_full_run

pytestmark = pytest.mark.slow

LEFT_OUT = (".git", ".venv", ".build", "data", "runs", "reports", "__pycache__", ".*_cache")
STAMPS = "-o .venv/.demo -o .venv/.dev -o .venv/.infra"  # make leaves these, and so the environment, as they are

# What is added to the commands that begin so. The last of two equal flags counts.
FEW = "--warmup 1 --baseline-rtt 0"
SHORT = f"--limit 8 {FEW} --images golden --duration 2 --restarts 1"
ADDED = {
    "curl": "--fail --silent --show-error",
    "make demo": "LIMIT=8",
    "make preflight": "ARGS=--no-twin",
    "./cloudtrial run --resume": "",
    "./cloudtrial run": SHORT,
    "./cloudtrial run --local": f"{SHORT} --engines onnx",
    "./cloudtrial run --target mine=https://example.org --images DIR": f"--limit 8 {FEW}",
    "./cloudtrial run --target mine=https://example.org/v1/classify": f"--limit 8 {FEW}",
    "./cloudtrial run --local --engines": f"{SHORT} --engines onnx",
}

ACCOUNT, MACHINE = "needs a cloud account", "changes the machine"
NOT_RUN = {
    "git worktree add": "needs the history, which a copy of the tree lacks",
    "make test": "is the run that this test is part of",
    "make twins": "runs until Ctrl-C: `make demo` starts the same",
    "make pulumi": MACHINE,
    "make preview": ACCOUNT,
    "make up": ACCOUNT,
    "make down": ACCOUNT,
    "make leftovers": ACCOUNT,
    "make outputs": ACCOUNT,
    "make logs": ACCOUNT,
    "make drift": ACCOUNT,
    "make unlock": ACCOUNT,
    "make refresh": ACCOUNT,
    "gcloud": ACCOUNT,
    "for role in": ACCOUNT,
    "pulumi login": MACHINE,
    "pulumi stack select": ACCOUNT,
    "pulumi config set": ACCOUNT,
    "pulumi stack output": ACCOUNT,
    "$(pulumi stack output": ACCOUNT,
    "./cloudtrial run --local --engines torch,onnx --images data": "measures the example, for an hour",
    ".venv/bin/python -m scripts.benchmarks.checkouts": "measures for minutes, in a checkout that is not there",
    "./cloudtrial run --target mine=https://example.org --scenario max_rate": "searches for minutes",
    "./cloudtrial serve": "runs until Ctrl-C: the service that curl asks below was started so",
}


def commands(text: str) -> list[str]:
    """The command lines of the fenced blocks, without their comments; a line that ends with \\ goes on."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(block for language, block in blocks if language in ("", "sh")).replace("\\\n", " ").splitlines()
    return [" ".join(command.split()) for line in lines if (command := line.partition("#")[0].strip())]


PAPERS = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("method", "deploy", "own-service", "performance", "results", "store")),
]
TEXT = "".join(paper.read_text() for paper in PAPERS)
COMMANDS = list(dict.fromkeys(commands(TEXT)))


def listed(command: str, table: dict[str, str]) -> str | None:
    """The entry of the longest beginning that is listed; None where none is."""
    return table[max(found, key=len)] if (found := [start for start in table if command.startswith(start)]) else None


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The service, started as the README says; it stands for every deployed one."""
    log = tmp_path_factory.mktemp("service") / "log"
    with ready_service(log, command=("./cloudtrial", "serve"), ENGINE="onnx") as server:
        yield server


@pytest.fixture(scope="module")
def foreign_port() -> Iterator[int]:
    """A service of somebody else at /v1/classify, to which all images are cats."""

    def respond(request, _):
        is_prediction = (request.command, request.path) == ("POST", "/v1/classify")
        send(request, 200 if is_prediction else 404, '{"result": {"class": "cat"}}', Content_Type="application/json")

    with http_server(respond) as port:
        yield port


@pytest.fixture(scope="module")
def tree(tmp_path_factory, service) -> Iterator[Path]:
    """A copy of the project in which the README's placeholders are there."""
    folder = tmp_path_factory.mktemp("readme") / "cloudtrial"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / ".venv").symlink_to(sys.prefix)
    golden = sorted((folder / "eval" / "golden" / "resnet18-cifar10").glob("*.png"))
    for image in golden:
        class_folder = folder / "DIR" / "test" / image.stem.partition("-")[2]
        class_folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, class_folder)
    shutil.copy(golden[30], folder / "cat.png")
    pulumi = folder / "bin" / "pulumi"
    pulumi.parent.mkdir()
    pulumi.write_text(f"""#!/bin/sh\necho '{{"url": "http://127.0.0.1:{service.port}"}}'\n""")
    pulumi.chmod(0o755)
    for name in ("A", "B"):
        run = write_full_run(folder / "reports" / name, n_images=80, scenarios=("single",)) / "run.json"
        run.write_text(json.dumps(json.loads(run.read_text()) | {"id": name}))
    yield folder


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    """What the killed runs measure."""
    with fake_endpoint() as endpoint:
        yield endpoint


def start_and_kill(folder: Path, fake: Fake) -> None:
    """Leave a run that was killed in the middle as reports/latest."""
    options = f"--images golden --limit 20 {FEW} --scenario poisson,single --rate 50 --duration 1"
    words = shlex.split(f"./cloudtrial run --target a={fake.url} {options}")
    sent = len(fake.posts)
    with subprocess.Popen(words, cwd=folder, env=environment(folder), stdout=subprocess.PIPE) as process:
        fake.on_post = lambda count: process.kill() if count == sent + 30 else None
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def environment(folder: Path) -> dict[str, str]:
    """Nothing is activated, nothing of this machine's user is there, and no other host can be reached."""
    variables = {
        name: value for name, value in os.environ.items() if name not in (*SETTINGS, "CIFAR10_DIR", "VIRTUAL_ENV")
    }
    path = os.pathsep.join((str(folder / "bin"), os.environ["PATH"]))
    return variables | {"PATH": path, "HOME": str(folder / "home"), "https_proxy": "http://127.0.0.1:9"}


def call(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True)


@pytest.mark.parametrize("command", [command for command in COMMANDS if listed(command, NOT_RUN) is None], ids=str)
def test_a_command_of_the_readme_works_as_it_is_written(command, tree, fake, service, foreign_port, needs_tool):
    if not command.startswith("./"):
        needs_tool(shlex.split(command)[0])
    if "reports/latest" in command:
        start_and_kill(tree, fake)
    here = command.replace("localhost:8080", f"127.0.0.1:{service.port}")
    here = here.replace("https://example.org/v1/classify", f"http://127.0.0.1:{foreign_port}/v1/classify")
    here = here.replace("https://example.org", f"http://127.0.0.1:{service.port}")
    done = call(f"{leave_environment(here)} {listed(command, ADDED) or ''}", tree)
    undecided = 3 if command.startswith("./cloudtrial gate") else 0  # 80 images decide nothing
    assert done.returncode == undecided, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if listed(command, NOT_RUN)], ids=str)
def test_a_command_that_is_not_run_is_well_formed_at_least(command, tree):
    words = shlex.split(command)
    assert call(f"sh -n -c {shlex.quote(command)}", tree).returncode == 0
    if words[0] == "make":
        done = call(f"{leave_environment(command)} --dry-run", tree)
        assert done.returncode == 0, done.stderr
    elif words[:2] == ["./cloudtrial", "run"]:
        build_parser().parse_args(words[1:])


def leave_environment(command: str) -> str:
    """The command with make told that .venv is as it should be."""
    return re.sub(r"^make ", f"make {STAMPS} ", command)


def test_every_exception_is_of_a_command_that_is_still_there():
    assert len(COMMANDS) > 25
    for start in (*ADDED, *NOT_RUN):
        assert any(command.startswith(start) for command in COMMANDS), start


def test_every_command_named_in_a_sentence_is_there():
    named = set(re.findall(r"`\./cloudtrial ([a-z-]+)", TEXT))
    output = subprocess.run([ROOT / "cloudtrial", "--help"], capture_output=True, text=True, check=True).stdout
    assert named and {name for name in named if f"\n  {name} " not in output} == set()
