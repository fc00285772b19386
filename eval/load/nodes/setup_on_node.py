"""Runs on a node before its senders: unpacks their code, and makes the environment of their libraries, each once.

eval/load/nodes/prepare.py sends this text to the node's Python, then a line of JSON (Order) and the code as a zip file.
It imports the standard library alone, and says all that it has to say in lines of JSON on stdout: how far it is, why it
failed, or where Python and the code are.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

PROGRESS_INTERVAL_S = 2.0
ABANDONED_AFTER_S = 86400.0  # a folder that was begun so long ago, and never named, is nobody's any more


class Order(TypedDict):
    """What is wanted of a node."""

    code_sha256: str
    archive_bytes: int
    lock: str  # path in the code
    libraries: str | None  # name of their environment, but for Python and processor; None: this Python has them


class SetupFailed(Exception):
    """One line: what is missing, and how to get it."""


def main() -> int:
    """Do what the order says. Returns the exit code."""
    os.umask(0o077)
    order: Order = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read(order["archive_bytes"])
    folder = Path.home() / ".cache" / "cloudtrial" / "senders"
    say(progress="")  # the connection stands
    try:
        code = folder / order["code_sha256"]
        make_once(code, lambda aside: zipfile.ZipFile(io.BytesIO(data)).extractall(aside))
        python = Path(sys.executable)
        if order["libraries"]:  # a home may be shared by machines that differ
            environment = folder / f"{order['libraries']}-{sys.implementation.cache_tag}-{platform.machine()}"
            make_once(environment, lambda aside: install(aside, code / order["lock"]))
            python = environment / "bin" / "python"
    except SetupFailed as error:
        say(error=str(error))
        return 1
    except OSError as error:
        say(error=f"{error.filename or folder} cannot be written: {error.strerror or error}")
        return 1
    say(python=str(python), code=str(code))
    return 0


def make_once(folder: Path, make: Callable[[Path], object]) -> None:
    """Make it under another name and rename it: it is there whole or not at all, whoever else makes it meanwhile."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{folder.name}.*"):
        if time.time() - left.stat().st_mtime > ABANDONED_AFTER_S:
            shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        make(aside)
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def install(environment: Path, lock: Path) -> None:
    """A virtual environment with the libraries of the lock. Raises SetupFailed."""
    start = time.monotonic()
    if run([sys.executable, "-m", "venv", str(environment)], start).returncode:
        raise SetupFailed(
            f"{sys.executable} cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
        )
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    done = run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock)], start)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR:")] or ["no reason given"]
        raise SetupFailed(
            f"pip cannot install the senders' libraries ({errors[0].removeprefix('ERROR:').strip()}); a Python that has"
            " them can be named by CLOUDTRIAL_SENDER_PYTHON"
        )


def run(command: Sequence[str], start: float) -> subprocess.CompletedProcess[str]:
    """Run it, and say every two seconds how long the installation has lasted."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                say(progress=f"installing, {time.monotonic() - start:.0f} s")
                try:
                    code = process.wait(PROGRESS_INTERVAL_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()  # if nobody listens any more
            process.wait()
        output.seek(0)
        return subprocess.CompletedProcess(command, code, output.read().decode(errors="replace"))


def say(**message: str) -> None:
    """One line for the run."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
