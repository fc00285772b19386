"""What a target did, round by round: latencies, service times, failures; which instance, and what follows a pause."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from eval.samples.columns import Samples
from eval.samples.model import Sample


def split_after_pause(samples: Iterable[Sample]) -> tuple[Samples, Samples]:
    """Of one scenario of one target: the first request of each block of a closed loop, and all others.

    In a closed loop the first request of a block follows the pause in which other targets had their turn, and is slower
    than the others: connections and caches have cooled down. Where blocks are of one request there are no others, and
    nothing is set apart.
    """
    samples = Samples.of(samples)
    first = np.isnan(samples.array("send_delay_ms")) & (samples.array("index_in_block") == 0)
    return (samples[:0], samples) if first.all() else (samples.where(first), samples.where(~first))


def latencies_by_round(
    samples: Iterable[Sample], scenario: str, *, failures_as_infinite: bool = True
) -> dict[int, list[float]]:
    """Latencies in ms of one scenario of one target, by round: every target gets the same blocks in the same order.

    Those of first requests after a pause are left out.
    """
    by_round = {}
    for number, block in enumerate(_blocks(samples, scenario)):
        latencies_ms, failed = block.array("latency_ms"), block.failed()
        counted = np.where(failed, math.inf, latencies_ms) if failures_as_infinite else latencies_ms[~failed]
        if len(counted):
            by_round[number] = counted.tolist()
    return by_round


def service_times_by_round(samples: Iterable[Sample], scenario: str, network_ms: float = 0.0) -> dict[int, list[float]]:
    """The times in ms that the service itself reports, of the same requests, where they succeeded.

    Where it reports none: the client's less network_ms, unless that is 0, for not known.
    """
    blocks = [block.succeeded for block in _blocks(samples, scenario)]
    times_ms = [block.durations("server_timing_ms", "total") for block in blocks]
    if network_ms and all(np.isnan(times).all() for times in times_ms):
        times_ms = [np.maximum(0.0, block.array("service_time_ms") - network_ms) for block in blocks]
    by_round = {number: times[~np.isnan(times)].tolist() for number, times in enumerate(times_ms)}
    return {number: times for number, times in by_round.items() if times}


def failures_by_block(samples: Iterable[Sample]) -> dict[int, list[float]]:
    """1 for each request of a block that failed, else 0."""
    by_block: dict[int, list[float]] = defaultdict(list)
    for s in samples:
        by_block[s.block].append(float(s.error is not None))
    return dict(by_block)


def instances_by_round(samples: Iterable[Sample], scenario: str) -> dict[int, str | None]:
    """The instance that responded first in each round; where none did, that of the round before."""
    by_round, current = {}, None
    for number, block in enumerate(_blocks(samples, scenario)):
        by_round[number] = current = next((s.instance_id for s in block if s.instance_id), current)
    return by_round


def _blocks(samples: Iterable[Sample], scenario: str) -> list[Samples]:
    """Those of one scenario, in the order of the schedule, without first requests after a pause."""
    by_block = split_after_pause(Samples.of(samples).with_("scenario", scenario))[1].by("block")
    return [by_block[block] for block in sorted(by_block)]
