"""The latencies of a target, round by round, and which of its requests follow a pause."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from eval.samples.model import Sample


def split_after_pause(samples: Iterable[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Of one scenario of one target: the first request of each block of a closed loop, and all others.

    In a closed loop the first request of a block follows the pause in which other targets had their turn, and is slower
    than the others: connections and caches have cooled down. Where blocks are of one request there are no others, and
    nothing is set apart.
    """
    first, others = list[Sample](), list[Sample]()
    for s in samples:
        (first if s.send_delay_ms is None and s.index_in_block == 0 else others).append(s)
    return (first, others) if others else ([], first)


def latencies_by_round(
    samples: Iterable[Sample], scenario: str, *, failures_as_infinite: bool = True
) -> dict[int, list[float]]:
    """Latencies in ms of one scenario of one target, by round: every target gets the same blocks in the same order.

    Those of first requests after a pause are left out.
    """
    samples_by_block: dict[int, list[Sample]] = defaultdict(list)
    for s in split_after_pause(s for s in samples if s.scenario == scenario)[1]:
        samples_by_block[s.block].append(s)
    by_round = {}
    for number, block in enumerate(sorted(samples_by_block)):
        succeeded = [s for s in samples_by_block[block] if failures_as_infinite or s.error is None]
        if succeeded:
            by_round[number] = [math.inf if s.error else s.latency_ms for s in succeeded]
    return by_round
