"""The project in a copy, with a state and a home of its own, and make's commands run there by the real pulumi."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers.infra.program_runs import REQUIRED, make_checkout
from tests.pulumi_engine.fake_cloud import FakeCloud
from tests.pulumi_engine.language_host import serve_language_host
from tests.pulumi_engine.provider import PACKAGES, serve_provider

TIMEOUT_S = 120
PASSPHRASE = "a-passphrase"
HOW_TO_GET_IT = "there is no pulumi program on PATH or in ~/.pulumi/versions: make pulumi installs it"
STEP = re.compile(r"^ *(\+-|\+|-|~) +([\w-]+:[\w:-]+) (\S+) (?:create|replace|delete|update)", re.MULTILINE)
LANGUAGE_HOST = "pulumi-language-python"  # part of a normal installation


def find_pulumi() -> Path:
    """The pulumi program; skips the test where there is none."""
    installed = sorted(Path.home().glob(".pulumi/versions/*/bin/pulumi"))
    if on_path := shutil.which("pulumi"):
        return Path(on_path)
    if not installed:
        pytest.skip(HOW_TO_GET_IT)
    return installed[-1]


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    exit_code: int
    text: str  # all that it printed

    @property
    def steps(self) -> list[str]:
        """What a preview would do: "+ Instance vm", "+- Instance vm", "~ Service service"."""
        lines = STEP.findall(self.text)
        return [f"{sign} {kind.rpartition(':')[2]} {name}" for sign, kind, name in lines if "pulumi:Stack" not in kind]


@dataclass(frozen=True)
class PulumiProject:
    """One stack of the project."""

    stack: str
    root: Path
    env: dict[str, str]
    cloud: FakeCloud

    def make(self, command: str, *arguments: str) -> Done:
        """Run a command of the Makefile for the stack."""
        return self._run("make", command, f"STACK={self.stack}", "PREREQUISITES=skip", f"ARGS={' '.join(arguments)}")

    def pulumi(self, *arguments: str) -> Done:
        """Run pulumi itself."""
        return self._run("pulumi", *arguments, "--stack", self.stack)

    def up(self) -> Done:
        """`make up` without a question; it has to pass."""
        return passed(self.make("up", "--yes", "--skip-preview"))

    def set(self, key: str, value: str, *, secret: bool = False) -> None:
        """Set one of the stack's settings."""
        passed(self.pulumi("config", "set", *(["--secret"] if secret else []), key, value))

    def resources(self) -> list[dict[str, Any]]:
        """What the state holds."""
        return json.loads(passed(self.pulumi("stack", "export")).text)["deployment"].get("resources", [])

    def urn(self, ending: str) -> str:
        """The only URN that ends so, such as "Instance::vm"."""
        (urn,) = {each["urn"] for each in self.resources() if each["urn"].endswith(ending)}
        return urn

    def state_text(self) -> str:
        """The state's files, as they lie on the disk."""
        files = (self.root.parent / "state").rglob("*")
        return "\n".join(path.read_text(encoding="utf-8") for path in files if path.is_file())

    def _run(self, *command: str) -> Done:
        done = subprocess.run(
            command, cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, encoding="utf-8", timeout=TIMEOUT_S,
        )  # fmt: skip
        return Done(done.returncode, done.stdout)


def passed(done: Done) -> Done:
    """The outcome, when the command ended well."""
    assert done.exit_code == 0, done.text
    return done


def failed(done: Done) -> str:
    """What a command that had to fail printed."""
    assert done.exit_code != 0, done.text
    return done.text


@contextmanager
def pulumi_project(stack: str, home: Path, cloud: FakeCloud, source: Path | None = None) -> Iterator[PulumiProject]:
    """A new stack with the settings that it requires. `source`: a checkout of its own, made already."""
    program = find_pulumi()
    root = _make_root(home / "checkout", source)
    (home / "state").mkdir()
    with ExitStack() as servers:
        port = servers.enter_context(serve_provider(cloud))
        env = {
            "PATH": os.pathsep.join((str(program.parent), os.environ["PATH"])),
            "HOME": str(home),
            "PULUMI_HOME": str(home / "pulumi"),
            "PULUMI_BACKEND_URL": f"file://{home}/state",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_DEBUG_PROVIDERS": ",".join(f"{name}:{port}" for name in PACKAGES),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        if not (program.parent / LANGUAGE_HOST).exists():
            env["PULUMI_DEBUG_LANGUAGES"] = f"python:{servers.enter_context(serve_language_host())}"
        project = PulumiProject(stack, root, env, cloud)
        passed(project.pulumi("stack", "init"))
        for key, value in REQUIRED[stack.partition("-")[0]].items():
            project.set(key, value)
        yield project


def _make_root(root: Path, source: Path | None) -> Path:
    """A checkout in which make finds the environment made."""
    if source:
        shutil.copytree(source, root, symlinks=True)
    else:
        make_checkout(root)
    shutil.copy(ROOT / "Makefile", root)
    shutil.copytree(ROOT / "scripts" / "setup", root / "scripts" / "setup")
    venv = root / ".venv"
    venv.mkdir()
    for path in (ROOT / ".venv").resolve().iterdir():
        if not path.name.startswith("."):  # the environment's own parts, without make's notes
            (venv / path.name).symlink_to(path)
    (venv / ".infra").touch()
    return root
