"""`make pulumi`: installs the pulumi program, in the version of the SDK that infra/requirements.txt pins.

Pulumi's own SDK does the work: it fetches Pulumi's install script, which puts the program and its language hosts
into ~/.pulumi/versions/VERSION and touches no shell profile. Run again, it changes nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pulumi.automation import InvalidVersionError, PulumiCommand
from semver import VersionInfo

REQUIREMENTS = Path(__file__).resolve().parents[2] / "infra" / "requirements.txt"
SOURCE = "get.pulumi.com"
BY_HAND = "https://www.pulumi.com/docs/install/"
SHOW_EVERY_S = 5


def main() -> int:
    """Installs the program. Returns the exit code: 1 when it could not be installed."""
    version = pinned_version(REQUIREMENTS.read_text(encoding="utf-8"))
    root = Path.home() / ".pulumi" / "versions" / version
    program = root / "bin" / "pulumi"
    there = program.exists()
    try:
        with ticking(f"pulumi {version}: fetching from {SOURCE}, a few minutes on a slow line", quiet=there):
            PulumiCommand.install(root=str(root), version=VersionInfo.parse(version))
    except (OSError, InvalidVersionError, subprocess.CalledProcessError) as error:
        print(f"pulumi {version} could not be installed from {SOURCE}: {reason(error)}; "
              f"with a network, try again, or see {BY_HAND}", file=sys.stderr)  # fmt: skip
        return 1
    print(f"pulumi {version} {'is already' if there else 'is now'} in {root}; make finds it there")
    print(f'for your own shell: export PATH="{program.parent}:$PATH"')
    return 0


def pinned_version(requirements: str) -> str:
    """The version of the SDK in the requirements."""
    return next(line.partition("==")[2] for line in requirements.splitlines() if line.startswith("pulumi=="))


def reason(error: Exception) -> str:
    """The error in one line; for a failed script, its last one."""
    if isinstance(error, subprocess.CalledProcessError):
        output = error.output.decode(errors="replace") if isinstance(error.output, bytes) else str(error.output or "")
        lines = output.strip().splitlines()
        return lines[-1] if lines else f"the install script ended with {error.returncode}"
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def ticking(text: str, *, quiet: bool) -> Iterator[None]:
    """Prints the text, and every few seconds the time since."""
    if quiet:
        yield
        return
    ended = threading.Event()
    started_at = time.monotonic()

    def tick() -> None:
        while not ended.wait(SHOW_EVERY_S):
            print(f"... {time.monotonic() - started_at:.0f} s", flush=True)

    print(text, flush=True)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
