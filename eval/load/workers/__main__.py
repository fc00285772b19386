"""Starts a worker process of a run, which speaks with it over stdin and stdout. Not a command for users."""

from __future__ import annotations

import sys

from eval.event_loop import run_with_exact_timers
from eval.load.workers.shard import LOCAL
from eval.load.workers.worker import serve

if __name__ == "__main__":
    sys.exit(run_with_exact_timers(serve(is_local=LOCAL in sys.argv[1:])))
