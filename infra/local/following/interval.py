"""Runs a command again and again, as a systemd timer starts its unit: interval.py SECONDS COMMAND [ARGUMENT...].

A command that fails is run again like one that does not. What it prints goes where this script's output goes.
"""

from __future__ import annotations

import subprocess
import sys
import time


def main(interval_s: str, *command: str) -> None:
    while True:
        time.sleep(float(interval_s))
        subprocess.run(command, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*sys.argv[1:])
