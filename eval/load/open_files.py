"""How many files this process may have open: each connection is one.

Beyond its limit the system refuses this machine's own connections, which would count as the target's failures.
"""

from __future__ import annotations

import resource

from eval.errors import EvalError

OTHER_FILES = 100  # beside the connections: logs, samples, workers


def raise_file_limit(connections: int) -> int:
    """Raise the soft limit to what so many connections need, or as far as it goes; returns how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = connections + OTHER_FILES
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == unlimited else soft - OTHER_FILES


def allow_connections(in_flight: int, targets: int) -> None:
    """For so many connections to one target at a time, which are kept for a while when the next one has its turn.

    Raises EvalError where not even those to one are allowed.
    """
    if (allowed := raise_file_limit(in_flight * targets)) < in_flight:
        raise EvalError(
            f"this process may have {max(allowed, 0):,} connections, and --in-flight is {in_flight:,}: give a lower"
            f" one, or raise the limit of open files (ulimit -Hn {in_flight + OTHER_FILES})"
        )
