"""Starts a worker process of a run, on the connection that it has inherited. Not a command for users."""

from __future__ import annotations

import socket
import sys

from eval.event_loop import run_with_exact_timers
from eval.load.workers.worker import serve

if __name__ == "__main__":
    run_with_exact_timers(serve(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2])))
