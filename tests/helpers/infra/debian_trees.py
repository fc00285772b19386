"""What the real boot and the real build stand on: Debian trees, torch and pip's settings in them, and a reference."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from infra.artifact import REPOSITORY
from infra.aws_ec2.user_data import HTTPS_PACKAGES
from tests.helpers.running_service import Server

CACHE = Path("/var/cache/cloudtrial")  # outlives the run: a tree takes minutes to make
SCRIPT = REPOSITORY / "scripts" / "setup" / "debian_root"
CLOUD_CONFIG = REPOSITORY / "infra" / "aws_ec2" / "cloud-config.yaml"
REQUIREMENTS = REPOSITORY / "service" / "requirements.txt"
GOLDEN = REPOSITORY / "eval" / "golden" / "resnet18-cifar10"
ACME_SERVER = "pebble"  # Debian's package of Let's Encrypt's own server for tests

STAND_IN = "/opt/stand-in"  # in a tree: what no real machine has
TORCH_SETTINGS = f"{STAND_IN}/pip"  # a folder with the settings by which pip installs the stand-in for torch
MORE_SETTINGS = "/etc/xdg/pip"  # where pip looks for a folder of settings beside /etc/pip.conf
IMAGE_PYTHON = (3, 11)  # of the tree `image`
INDEX_TIMEOUT_S = 10
# Of a probability: another processor, perhaps another build of torch; 8-bit integers are not the reference's floats.
TOLERANCES = {"torch": 1e-3, "onnx": 0.15}
LOG_TAIL = 3000


@dataclass(frozen=True)
class Torch:
    """How the trees come by torch."""

    said: str  # for the log
    mounts: tuple[tuple[Path, str], ...] = ()  # folders of this machine, and where the tree has them


def prepare(complain, needs_tool, *tools: str) -> Path:
    """The trees' folder; the test is skipped where they cannot be had."""
    if os.geteuid() != 0:
        complain("needs root: a system is booted, or an image built")
    for tool in ("debootstrap", "systemd-nspawn", *tools):
        needs_tool(tool)
    return make_trees()


@functools.cache
def make_trees() -> Path:
    """The folder with the trees `image` and `vm`; made when it is not there, or when what it is made of has changed."""
    packages = [*yaml.safe_load(CLOUD_CONFIG.read_text())["packages"], *HTTPS_PACKAGES, ACME_SERVER]
    recipe = SCRIPT.read_bytes() + " ".join(packages).encode()
    folder = CACHE / f"debian-{hashlib.sha256(recipe).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked("debian"):
        if not folder.exists():
            for old in CACHE.glob("debian-*/"):
                shutil.rmtree(old)
            log = CACHE / "debian.log"
            with log.open("wb") as output:
                made = subprocess.run([SCRIPT, folder, *packages], stdout=output, stderr=subprocess.STDOUT)
            assert made.returncode == 0, f"{SCRIPT.name} failed:\n{log.read_text()[-LOG_TAIL:]}"
    return folder


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Alone on this machine, of all runs of these tests."""
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def workplace(name: str) -> Iterator[Path]:
    """An empty folder beside the trees, for one run at a time; what a killed run left there goes first."""
    with locked(name):
        folder = CACHE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


# torch


@functools.cache
def choose_torch() -> Torch | None:
    """PyTorch's CPU wheel where its index can be reached; else this environment's own torch stands in for it."""
    return from_index() or from_here()


def pinned() -> str:
    """The version in service/requirements.txt."""
    (version,) = re.findall(r"^torch==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    return version


def from_index() -> Torch | None:
    (index,) = re.findall(r"^--extra-index-url (\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=INDEX_TIMEOUT_S) as page:
            there = pinned().replace("+", "%2B") in page.read().decode()
    except OSError:
        return None
    return Torch(f"torch is the real one: {pinned()} from PyTorch's CPU index") if there else None


def from_here() -> Torch | None:
    if sys.version_info[:2] != IMAGE_PYTHON:
        return None
    torch = importlib.metadata.distribution("torch")
    home = Path(str(torch.locate_file("")))
    names = {file.parts[0] for file in torch.files or () if file.suffix == ".py"} | {"nvidia"}
    folders = sorted(home / name for name in names if (home / name).is_dir())
    said = (
        f"PyTorch's CPU index cannot be reached: torch {torch.version} of this test environment stands in for "
        f"{pinned()}. Its folders are mounted, and pip's settings name an empty wheel of that name, with its own "
        "sha256; all else is unmodified, and pip checks it by the lock's sha256. That PyTorch's own wheel has one of "
        "those, that it installs, and that the image deletes parts of it, is not shown here"
    )
    return Torch(said, tuple((folder, f"{STAND_IN}/torch/{folder.name}") for folder in folders))


def write_wheel(folder: Path) -> Path:
    """A wheel that pip takes for the pinned torch: it leads to the mounted one, and asks for what that one needs."""
    requires = [
        line
        for line in importlib.metadata.requires("torch") or ()
        if "extra ==" not in line and not line.startswith(("cuda-", "nvidia-", "triton"))
    ]
    about = f"torch-{pinned()}.dist-info"
    metadata = ["Metadata-Version: 2.1", "Name: torch", f"Version: {pinned()}"]
    files = {
        "torch-stand-in.pth": f"{STAND_IN}/torch\n",
        f"{about}/METADATA": "\n".join([*metadata, *(f"Requires-Dist: {line}" for line in requires), ""]),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: cloudtrial\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD"))
    path = folder / f"torch-{pinned()}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def write_torch_settings(folder: Path) -> None:
    """Settings in `folder`, TORCH_SETTINGS of a tree, that have pip install the stand-in.

    The lock has no sha256 of it. A requirement that names a file goes before one that names a version, and brings its
    own sha256; so pip checks that one, and all others by the lock.
    """
    wheel = write_wheel(folder)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "torch.txt").write_text(f"torch @ file://{TORCH_SETTINGS}/{wheel.name} --hash=sha256:{sha256}\n")
    (folder / "pip.conf").write_text(f"[install]\nrequirement = {TORCH_SETTINGS}/torch.txt\n")


# A tree's connection to the world


def furnish(tree: Path, torch: Torch) -> None:
    """Let pip in the tree reach what pip reaches here; put the stand-in for torch, where there is one, into the tree.

    It is installed where TORCH_SETTINGS is to be found at MORE_SETTINGS.
    """
    place = tree / STAND_IN.lstrip("/")
    place.mkdir(parents=True)
    settings = pip_settings() | {"disable-pip-version-check": "1"}
    if authorities := next(filter(os.path.isfile, certificate_files()), None):
        shutil.copyfile(authorities, place / "authorities.crt")
        settings["cert"] = f"{STAND_IN}/authorities.crt"
    if torch.mounts:
        folder = tree / TORCH_SETTINGS.lstrip("/")
        folder.mkdir()
        write_torch_settings(folder)
        settings["retries"] = "1"  # each further one would wait, for each package, for an index that does not answer
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc" / "pip.conf").write_text(
        "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
    )


def pip_settings() -> dict[str, str]:
    """Where pip looks for packages on this machine, by its own account; folders of this machine are left out."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for scope, name, value in re.findall(r"^([^.\n]+)\.([a-z-]+)=(.*)$", listed, re.MULTILINE):
        if scope in ("global", "install", ":env:") and name in (
            "index-url",
            "extra-index-url",
            "proxy",
            "trusted-host",
        ):
            words = [word for word in ast.literal_eval(value).split() if not word.startswith(("file:", "/"))]
            found |= {name: " ".join(words)} if words else {}
    return found


def certificate_files() -> Iterator[str]:
    """Where this machine may have the authorities that it trusts."""
    yield from (os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE") if os.environ.get(name))
    yield "/etc/ssl/certs/ca-certificates.crt"


# What a right answer is


def assert_answers_as_reference(port: int, tolerance: float) -> None:
    """One golden picture of each class, posted: label and probabilities are the reference's."""
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    for label, name in enumerate(manifest["classes"]):
        image = next(image for image in manifest["images"] if image["label"] == label)
        reply = Server(port, None, None).post(
            "/predict?probabilities=1", (GOLDEN / image["name"]).read_bytes(), "image/png"
        )
        assert reply.status == 200, reply.body
        assert reply.json["label"] == name
        assert reply.json["probabilities"] == pytest.approx(image["probabilities"], abs=tolerance)


if __name__ == "__main__":  # before they are needed
    make_trees()
