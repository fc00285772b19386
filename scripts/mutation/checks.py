"""The checks that have to catch a mutant, and the copies of the project on which they run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.targets import TARGETS
from tests.helpers.infra.program_runs import REQUIRED, WEB_STACKS
from tests.offline_engine.engine import ProgramResult, run_program
from tests.offline_engine.policy_check import find_violations

COPIED_PATHS = (
    "__main__.py",
    "Pulumi.yaml",
    "pyproject.toml",
    ".github",
    "eval",
    "infra",
    "scripts",
    "service",
    "store",
    "tests",
    "training",
)
MODELS = "models"
KEPT_WEIGHTS_BYTES = 4096  # no check computes with them, and they are packed hundreds of times

# A mutant's group -> the stack that runs for it. Shared code runs in the stack that uses most of it.
STACK_OF: Mapping[str, str] = {
    "aws_ec2": "aws_ec2",
    "vm_files": "aws_ec2",
    "aws_sagemaker": "aws_sagemaker",
    "gcp_cloudrun": "gcp_cloudrun",
    "gcp_function": "gcp_function",
    "heroku": "heroku",
    "shared": "aws_ec2",
    "operations": "heroku",
}

OF_EVERY_STACK = ("operations", "shared")  # groups whose tests are of all stacks

BUDGET = {"cloudtrial:budgetUsd": "20", "cloudtrial:billingAccount": "0123AB-4567CD-89EF01"}

# Beside the required settings: all that make a program create more
OPTIONAL_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "aws_ec2": {
        "cloudtrial:domain": "classifier.example.com",
        "cloudtrial:certificateEmail": "you@example.com",
        "cloudtrial:hostedZoneId": "Z0123456789ABC",
        "cloudtrial:budgetUsd": "50",
        "cloudtrial:budgetEmail": "you@example.com",
    },
    "gcp_cloudrun": BUDGET,
    "gcp_function": BUDGET,
    "heroku": {"cloudtrial:build": "container"},
}
TOKEN = {"cloudtrial:apiToken": "a-token-nobody-may-see"}

TESTS: Mapping[str, Sequence[str]] = {
    "aws_ec2": ("programs/test_aws_ec2.py", "programs/test_model_store.py", "programs/test_stacks.py"),
    "aws_sagemaker": (
        *("programs/test_aws_sagemaker.py", "test_sagemaker_readiness.py"),
        *("programs/test_model_store.py", "programs/test_stacks.py"),
    ),
    "gcp_cloudrun": ("programs/test_gcp_cloudrun.py", "programs/test_model_store.py", "programs/test_stacks.py"),
    "gcp_function": ("programs/test_gcp_function.py", "programs/test_model_store.py", "programs/test_stacks.py"),
    "heroku": ("programs/test_heroku.py", "programs/test_model_store.py", "programs/test_stacks.py"),
    "vm_files": ("test_vm_files.py", "test_vm_nginx.py", "programs/test_aws_ec2.py"),
    "shared": (
        *("test_artifact.py", "test_readiness.py", "test_vm_readiness.py"),
        *("programs/test_model_store.py", "programs/test_stacks.py"),
    ),
    "operations": ("test_prerequisites.py", "test_logs.py", "test_workflows.py"),
}
MOTO_TESTS: Mapping[str, Sequence[str]] = {
    "aws_ec2": ("programs/test_moto.py",),
    "aws_sagemaker": ("programs/test_moto_sagemaker.py",),
}

CHECKS = ("engine", "policy", "tests", "moto", "pyright")
ERROR = re.compile(r"[\w.]+(Error|Exception): ")
FAILED_TEST = re.compile(r"^FAILED \S+?::(?:test_)?(?P<name>\w+)", re.MULTILINE)
ERRORED_TEST = re.compile(r"^ERROR (?P<test>\S+)(?: - (?P<error>.+))?$", re.MULTILINE)  # in a fixture, or an import
TYPE_ERROR = re.compile(r"error: .*\((report\w+)\)")
MAX_REASON_CHARS = 100
LIMIT_S = 900  # of one check, which takes seconds, or minutes on a busy machine
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # none is needed, and they take a second
    "COLUMNS": "400",  # so that pytest's summary is not cut
}
NOTHING_FAILED, TESTS_FAILED, COLLECTION_FAILED = 0, 1, 2  # pytest's exit codes


class CheckError(RuntimeError):
    """A check could not run."""


@dataclass(frozen=True)
class Detection:
    """One check that caught a mutant."""

    check: str  # of CHECKS
    by: str  # the error, the rule or the first test

    def __str__(self) -> str:
        return f"{self.check} ({self.by})"


def make_copy(folder: Path) -> Path:
    """A copy of all that programs and checks read, complete, so that its own tests check its own programs."""
    folder.mkdir(parents=True)
    for path in (*map(REPOSITORY.joinpath, COPIED_PATHS), *REPOSITORY.glob("Pulumi.*.yaml")):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder / path.name)
    for path in (path for path in (REPOSITORY / MODELS).rglob("*") if path.is_file()):
        copy = folder / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        copy.write_bytes(content if path.suffix == ".json" else content[:KEPT_WEIGHTS_BYTES])
    return folder


def detections(copy: Path, group: str, changed: str = "") -> Iterator[Detection]:
    """Yields every check that fails on the copy.

    If a program does not run, no other check can. Pyright, by far the slowest, checks the `changed` file when all other
    checks pass.
    """
    runs = run_stack(copy, STACK_OF[group])
    if stopped := next(_by_engine(runs), None):
        yield stopped
        return
    detected = False
    for detection in chain(
        _by_policy(runs), _by_pytest("tests", copy, group, TESTS), _by_pytest("moto", copy, group, MOTO_TESTS)
    ):
        detected = True
        yield detection
    if not detected:
        yield from _by_pyright(copy, changed)


def run_stack(copy: Path, stack: str) -> list[ProgramResult]:
    """A preview with what the stack requires, and an `up` with everything."""
    required = REQUIRED[stack]
    return [
        run_program(copy, stack, required, preview=True),
        run_program(
            copy, stack, {**required, **OPTIONAL_SETTINGS.get(stack, {})}, secrets=TOKEN if stack in WEB_STACKS else {}
        ),
    ]


def _by_engine(runs: Sequence[ProgramResult]) -> Iterator[Detection]:
    for run in runs:
        if run.exit_code != 0 or run.errors:
            lines = [line.strip() for error in run.errors or (run.output,) for line in error.splitlines()]
            errors = [line for line in lines if ERROR.match(line)] or list(filter(None, lines))
            yield Detection("engine", shortened(errors[-1] if errors else f"exit code {run.exit_code}"))


def _by_policy(runs: Sequence[ProgramResult]) -> Iterator[Detection]:
    try:
        rules = [violation.rule for run in runs for violation in find_violations(run.resources.values())]
    except ValueError as error:  # a policy document that is no JSON; it ends the pack, too
        rules = [type(error).__name__]
    if rules:
        yield Detection("policy", ", ".join(dict.fromkeys(rules)))


def _by_pytest(check: str, copy: Path, group: str, files: Mapping[str, Sequence[str]]) -> Iterator[Detection]:
    if group not in files:
        return
    others = () if group in OF_EVERY_STACK else (name for name in TARGETS if name != STACK_OF[group])
    selected = ["-k", " and ".join(f"not {name}" for name in others)]
    if failed := first_failure(copy, [f"tests/infra/{name}" for name in files[group]], selected):
        yield Detection(check, failed)


def first_failure(copy: Path, files: Sequence[str], options: Sequence[str] = ()) -> str | None:
    """The first test of these files that fails in the copy, or the error that kept it from being run; None when all
    pass.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(copy), "--basetemp", str(copy / ".pytest"), *options, *files]
    try:
        completed = _run(command, copy)
    except subprocess.TimeoutExpired:
        return f"not finished within {LIMIT_S} s"
    if completed.returncode == NOTHING_FAILED:
        return None
    if completed.returncode in (TESTS_FAILED, COLLECTION_FAILED):
        if failed := FAILED_TEST.search(completed.stdout):
            return failed["name"]
        if failed := ERRORED_TEST.search(completed.stdout):
            return shortened(failed["error"] or failed["test"])
    raise CheckError(
        f"pytest ended with {completed.returncode}: {shortened(completed.stdout + completed.stderr, 2000)}"
    )


def _by_pyright(copy: Path, changed: str) -> Iterator[Detection]:
    if changed.endswith(".py"):
        command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, changed]
        if kinds := TYPE_ERROR.findall(_run(command, copy).stdout):
            yield Detection("pyright", ", ".join(dict.fromkeys(kinds)))


def _run(command: Sequence[str], copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the command. Raises TimeoutExpired after LIMIT_S, and kills all that it started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CLOUDTRIAL_"))}
    with subprocess.Popen(
        command,
        cwd=copy,
        env=environment | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        encoding="utf-8",
    ) as process:
        try:
            output, errors = process.communicate(timeout=LIMIT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def shortened(text: str, max_chars: int = MAX_REASON_CHARS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 3]}..."
