"""Runs the Pulumi programs on the miniature engine, in a copy of what they need, so that nothing is written here."""

from __future__ import annotations

import functools
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from infra.artifact import REPOSITORY
from tests.offline_engine.engine import ProgramResult, run_program

NEEDED = ("Pulumi.yaml", "__main__.py", "service", "store", "models", "infra", "training")
# All but SageMaker, whose endpoints take signed calls alone: no token, no pages
WEB_STACKS = ("aws_ec2", "gcp_cloudrun", "gcp_function", "heroku")
STACKS = ("aws_ec2", "aws_sagemaker", "gcp_cloudrun", "gcp_function", "heroku")
# What a user has to set, because no default can be right
REQUIRED = {
    "aws_ec2": {"aws:region": "us-east-1"},
    "aws_sagemaker": {"aws:region": "us-east-1"},
    "gcp_cloudrun": {"gcp:project": "example-project"},
    "gcp_function": {"gcp:project": "example-project"},
    "heroku": {"cloudtrial:appName": "cloudtrial-example"},
}
TOKEN = "a-token-nobody-may-see"


def make_checkout(folder: Path, *, with_weights: bool = False) -> Path:
    """A copy of the project, as far as the programs read it; without the weights, which take a second to pack."""
    for path in (*map(REPOSITORY.joinpath, NEEDED), *REPOSITORY.glob("Pulumi.*.yaml")):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", "float32.onnx"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.name)
    if not with_weights:
        for weights in folder.glob("models/*/*.[os]*"):
            weights.write_bytes(b"weights")
    return folder


@functools.cache
def _shared_checkout() -> tuple[tempfile.TemporaryDirectory, Path]:
    holder = tempfile.TemporaryDirectory(prefix="cloudtrial-")  # kept alive by the cache, removed at exit
    return holder, make_checkout(Path(holder.name) / "checkout")


def rehearse(
    stack: str, config: Mapping[str, str] | None = None, *, token: bool | str = False, preview: bool = False
) -> ProgramResult:
    """Run a stack with what it requires, and `config` on top. Keys without a colon are ours. A token may be given."""
    given = {key if ":" in key else f"cloudtrial:{key}": value for key, value in (config or {}).items()}
    return _rehearse(stack, tuple(given.items()), token, preview)


@functools.cache
def _rehearse(stack: str, config: tuple[tuple[str, str], ...], token: bool | str, preview: bool) -> ProgramResult:
    settings = {**REQUIRED.get(stack.partition("-")[0], {}), **dict(config)}
    secrets = {"cloudtrial:apiToken": TOKEN if token is True else token} if token else {}
    if token and stack.startswith("aws_ec2") and "cloudtrial:domain" not in settings:
        settings = {"cloudtrial:allowTokenOverHttp": "true"} | settings
    return run_program(_shared_checkout()[1], stack, settings, secrets=secrets, preview=preview)


def well(run: ProgramResult) -> ProgramResult:
    """The run, when its program ended well."""
    assert run.exit_code == 0 and not run.errors, f"{run.errors}\n{run.output}"
    return run


def refused(run: ProgramResult) -> str:
    """Why the program refused; it must have done so in one line, before it registered anything."""
    assert run.exit_code != 0
    assert [r.type for r in run.resources.values()] in ([], ["pulumi:pulumi:Stack"])
    assert len(run.errors) == 1 and "Traceback" not in run.errors[0], run.errors
    return run.errors[0]


def packed(checkout: Path, stack: str) -> dict[str, bytes]:
    """What the last run of a stack in a checkout has packed, by name."""
    build = checkout / ".build"
    if stack == "gcp_function":
        with zipfile.ZipFile(build / "gcp_function.zip") as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    if stack in ("aws_sagemaker", "gcp_cloudrun"):
        root = build / stack
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with tarfile.open(build / f"{stack}.tar.gz") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
