"""What the scripts that end `up` have in common: how they wait, and how they ask.

infra/readiness.py puts this text in place of their import of it, so it uses the standard library alone.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

POLL_S = float(os.environ.get("POLL_S") or "5")
SUCCESSES_NEEDED = 3  # in a row: the version before may still answer in between, or one of several instances


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another server's answer proves nothing, and urllib would show it the token: the redirect is an HTTPError."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def output_of(command: Sequence[str]) -> str:
    """What a program prints. Raises OSError with its words where it fails, or takes a minute."""
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    except subprocess.TimeoutExpired as error:
        raise OSError(str(error)) from None
    if done.returncode:
        raise OSError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def wait(look: Callable[[], str], timeout_s: float) -> str:
    """Looks until there was no problem several times. Returns "", or the last problem when the time is up."""
    deadline = time.monotonic() + timeout_s
    successes, last = 0, ""
    while successes < SUCCESSES_NEEDED:
        found = look()
        successes = successes + 1 if found == "" else 0
        if found and found != last:
            print(f"not yet: {found}", flush=True)
        last = found or last
        if found and time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)
    return ""
