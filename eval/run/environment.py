"""The environment of the client: machine and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from service.system import processor

ROOT = Path(__file__).resolve().parents[2]
RECORDED_LIBRARIES = ("aiohttp", "numpy", "pillow", "scipy", "scikit-learn")


def collect_environment() -> dict[str, Any]:
    """Processor, cores, memory and operating system."""
    return {
        **processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",
        "arch": platform.machine(),
    }


def collect_versions() -> dict[str, str]:
    """Versions of Python and of the libraries, and this repository's commit if git is available."""
    version_of = {"python": platform.python_version()}
    for name in RECORDED_LIBRARIES:
        try:
            version_of[name] = version(name)
        except PackageNotFoundError:
            continue
    if sha := git_sha():
        version_of["git_sha"] = sha
    return version_of


def git_sha(repository: Path = ROOT) -> str | None:
    """The commit, with "-dirty" if files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=10, encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
