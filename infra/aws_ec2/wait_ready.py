"""Waits until the new VM's service says that it is ready; EC2 says "running" minutes earlier.

`pulumi up` runs this text with `python3 -c` (see __main__.py), so it uses the standard library alone.
"""

import os
import sys
import time
import urllib.request

POLL_S = float(os.environ.get("POLL_S", "5"))
ANSWERS_NEEDED = 3  # in a row: the address may still lead to the VM before this one


def main(url: str, timeout_s: float) -> None:
    print(f"waiting until {url} says yes: the VM installs the service, for some minutes", flush=True)
    deadline = time.monotonic() + timeout_s
    answers, last = 0, ""
    while answers < ANSWERS_NEEDED:
        now = ask(url)
        answers = answers + 1 if now == "" else 0
        if now and now != last:
            print(f"not yet: {now}", flush=True)
        last = now or last
        if now and time.monotonic() > deadline:
            sys.exit(f"{url} was not ready within {timeout_s:.0f} s; last: {now}\n{os.environ.get('ADVICE', '')}")
        time.sleep(POLL_S)
    print("ready", flush=True)


def ask(url: str) -> str:
    """Why it is not ready; nothing when it is."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors; a certificate's may be a ValueError
        return str(error)


main(os.environ["URL"], float(os.environ["TIMEOUT_S"]))
