"""The latencies of a target, round by round."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from eval.samples.model import Sample


def latencies_by_round(
    samples: Iterable[Sample], scenario: str, *, failures_as_infinite: bool = True
) -> dict[int, list[float]]:
    """Latencies in ms of one scenario of one target, by round: every target gets the same blocks in the same order."""
    samples_by_block: dict[int, list[Sample]] = defaultdict(list)
    for s in samples:
        if s.scenario == scenario:
            samples_by_block[s.block].append(s)
    by_round = {}
    for number, block in enumerate(sorted(samples_by_block)):
        succeeded = [s for s in samples_by_block[block] if failures_as_infinite or s.error is None]
        if succeeded:
            by_round[number] = [math.inf if s.error else s.latency_ms for s in succeeded]
    return by_round
