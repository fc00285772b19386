"""Executes a command pinned to some cores, which ends with the process that started it.

    python pinned_exec.py PARENT_PID CPU,CPU,... COMMAND [ARGUMENT...]

Run as a script, because only a process itself can ask the kernel for a signal when its parent dies. The kernel
counts the parent *thread*: start twins from one that lives as long as they shall.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, cpus: str, *command: str) -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(",")])
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit("the process that started this one is gone")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
