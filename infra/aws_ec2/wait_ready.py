"""Waits until the new VM's service is ready; EC2 reports "running" minutes earlier.

`pulumi up` runs this file's text with `python3 -c` (see __main__.py), so it uses the standard library alone.
"""

import os
import sys
import time
import urllib.request

POLL_S = float(os.environ.get("POLL_S") or "5")
SUCCESSES_NEEDED = 3  # in a row: the address may still lead to the VM before this one


def main(url: str, timeout_s: float) -> None:
    print(f"waiting until {url} succeeds: the VM installs the service, which takes some minutes", flush=True)
    deadline = time.monotonic() + timeout_s
    successes, last = 0, ""
    while successes < SUCCESSES_NEEDED:
        problem = readiness_problem(url)
        successes = successes + 1 if problem == "" else 0
        if problem and problem != last:
            print(f"not yet: {problem}", flush=True)
        last = problem or last
        if problem and time.monotonic() > deadline:
            sys.exit(f"{url} was not ready within {timeout_s:.0f} s; last: {problem}\n{os.environ.get('ADVICE', '')}")
        time.sleep(POLL_S)
    print("ready", flush=True)


def readiness_problem(url: str) -> str:
    """Returns why the service is not ready; "" when it is."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return "" if response.status == 200 else f"status {response.status}"
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors; a certificate's may be a ValueError
        return str(error)


main(os.environ["URL"], float(os.environ["TIMEOUT_S"]))
