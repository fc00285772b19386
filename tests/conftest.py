"""Fixtures that several parts share."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

ALL_TOOLS = "CLOUDTRIAL_ALL_TOOLS"  # set by .ci/run: nothing may be skipped

TOOLS = {
    "nginx": "apt-get install nginx-light",
    "chromium": "apt-get install chromium",
    "systemd-analyze": "apt-get install systemd",
}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is said to be installed, a skipped test is a failed run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(ALL_TOOLS) and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def needs_tool() -> Callable[[str], str]:
    """`needs_tool("nginx")` gives its path, or skips the test and says how to get it."""

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path is None:
            complain = pytest.fail if os.environ.get(ALL_TOOLS) else pytest.skip
            complain(f"{name} is not installed: {TOOLS[name]}")
        return path

    return find


def picture_bytes(mode: str = "RGB", size: tuple[int, int] = (32, 32), fmt: str = "PNG", **options) -> bytes:
    """A picture with some structure, encoded."""
    rng = np.random.default_rng(7)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    (image if mode == "RGB" else image.convert(mode)).save(buffer, fmt, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def png() -> bytes:
    """A 32x32 PNG."""
    return picture_bytes()


@pytest.fixture(scope="session")
def bundle_dir() -> Path:
    """The shipped model bundle."""
    return ROOT / "models" / "resnet18-cifar10"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The shipped golden set."""
    return ROOT / "eval" / "golden"
