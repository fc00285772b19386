"""How many files this process may have open: each connection is one.

Beyond its limit the system refuses this machine's own connections, which would count as the target's failures.
"""

from __future__ import annotations

import resource

from eval.errors import EvalError

OTHER_FILES = 100  # beside the connections: logs, samples, workers


def allow_connections(count: int) -> None:
    """Raise the soft limit as far as that many connections need. Raises EvalError where the hard limit is below."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise EvalError(
            f"up to {count:,} connections need {needed:,} open files, and this process may have {hard:,}: give a lower"
            f" --in-flight, or raise the limit (ulimit -Hn {needed})"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
