"""Whether there is a core for each worker. Pure."""

from __future__ import annotations

from eval.formatting import plural


def cores_warning(workers: int, cores: int, pinned: int, machine: str = "a machine") -> str | None:
    """What to say of workers that have no core each; None if they have. pinned: cores of the twins."""
    free = max(0, cores - pinned)
    if workers <= free:
        return None
    return (
        f"--workers {workers} on {machine} with {plural(free, 'free core')}: they would wait for one another, and"
        f" send later than fewer do; use --workers {max(1, free)}, or a machine with more cores"
    )
