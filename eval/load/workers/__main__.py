"""Starts a worker process of a run, on the connection that it has inherited. Not a command for users."""

from __future__ import annotations

import socket
import sys

from eval.event_loop import run_with_exact_timers
from eval.load.workers.worker import serve

if __name__ == "__main__":
    connection, run_start, max_stall_s = sys.argv[1:]
    run_with_exact_timers(serve(socket.socket(fileno=int(connection)), float(run_start), float(max_stall_s)))
