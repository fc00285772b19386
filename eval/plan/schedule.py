"""The schedule: which image is sent to which target, when. Pure: the same configuration and seed give the same one.

A round sends the same requests to every target, one block each, in a random order that differs for every round. So no
target is always first, and drift of a machine or network affects all of them.

    closed loop   a request is due when the one before has finished: the response time of a single user
    open loop     requests are due at times drawn beforehand, whatever the responses: what many users see

Between rounds of the scenario single every target is restarted a few times, so that a run has several instances of each
and knows how much they differ:

    rounds of single | restart of each target, measured | warm-up of each | rounds of single | restart | ...
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.formatting import plural
from eval.plan.arrivals import poisson_arrivals, ramp_arrivals
from eval.plan.config import BASELINE_RTT, COLD, MAX_RATE, POISSON, SCENARIOS, SINGLE, Config, Phase

NO_IMAGE = -1
POISSON_BLOCK_S = 10.0  # of an open loop to one target, before the next target's turn
BURST_COUNT = 5
MAX_SEARCH_STEPS = 24  # of a rate search; see eval/plan/rate_search.py
MIN_STEP_ARRIVALS = 150  # of one step: enough for an interval of p95
MAX_STEP_DURATION_S = 60.0  # of one step


@dataclass(frozen=True)
class Block:
    """Consecutive requests to one target."""

    number: int  # unique in the run; the position in the schedule, except for steps of a rate search
    target: str
    scenario: str
    phase: Phase
    image_indices: tuple[int, ...]  # indices into the manifest, in sending order
    offsets_s: tuple[float, ...] | None = None  # scheduled times after the start of the block; None: a closed loop
    rate_rps: float | None = None  # of an open loop


def build_schedule(config: Config, targets: Sequence[str], image_count: int) -> list[Block]:
    """The whole schedule except the steps of rate searches, which depend on the responses: see `search_step_block`."""
    rng = random.Random(config.seed)
    image_order = list(range(image_count))
    rng.shuffle(image_order)
    blocks: list[Block] = []
    for template in _block_templates(config, image_order):
        target_order = list(targets)
        rng.shuffle(target_order)
        for target in target_order:
            blocks.append(Block(len(blocks), target, *template))
    return blocks


# The fields of a block without number and target
BlockTemplate = tuple[str, Phase, tuple[int, ...], tuple[float, ...] | None, float | None]


def _block_templates(config: Config, image_order: list[int]) -> Iterator[BlockTemplate]:
    """The blocks that every target gets, round by round."""
    if not image_order:
        return
    yield from _closed_loop_templates(SINGLE, "warmup", _cycle_images(image_order, config.warmup), config.block)
    baseline_rtt: list[BlockTemplate] = (
        [(BASELINE_RTT, "measure", (NO_IMAGE,) * config.baseline_rtt, None, None)] if config.baseline_rtt else []
    )
    yield from baseline_rtt
    for scenario in SCENARIOS:  # in that order, whatever the order on the command line
        if scenario in config.scenarios:
            yield from _scenario_templates(scenario, config, image_order)
    yield from baseline_rtt


def _scenario_templates(scenario: str, config: Config, image_order: list[int]) -> Iterator[BlockTemplate]:
    match scenario:
        case "single":
            yield from _single_templates(config, image_order)
        case "poisson":
            yield from _poisson_templates(config, image_order)
        case "ramp":
            offsets_s = ramp_arrivals(config.rate_rps, config.duration_s, config.seed)
            yield scenario, "measure", tuple(_cycle_images(image_order, len(offsets_s))), offsets_s, config.rate_rps
        case "burst":
            for _ in range(BURST_COUNT):
                yield scenario, "measure", tuple(_cycle_images(image_order, config.burst)), (0.0,) * config.burst, None
        case "max_rate":  # an empty block marks the place of the rate search
            yield scenario, "measure", (), None, None
        case "repeat":  # the same image repeatedly: a cache would respond faster
            yield scenario, "measure", (image_order[0],) * config.block, None, None
        case "cold":  # those restarts for which single has no place
            first = restarts_within_single(config, len(image_order)) if SINGLE in config.scenarios else 0
            for image_index in _cycle_images(image_order, config.restarts)[first:]:
                yield scenario, "measure", (image_index,), None, None
        case "idle":
            for image_index in _cycle_images(image_order, config.idle):
                yield scenario, "measure", (image_index,), None, None


def restarts_within_single(config: Config, image_count: int) -> int:
    """How often each target is restarted between rounds of single: at most once between two of them."""
    return min(config.restarts, math.ceil(image_count / config.block) - 1)


def fewer_restarts(config: Config, image_count: int) -> str | None:
    """Why there are fewer restarts than asked for, and what makes room for them; None where there are as many."""
    if SINGLE not in config.scenarios or COLD in config.scenarios:
        return None
    if (count := restarts_within_single(config, image_count)) >= config.restarts:
        return None
    more = f"--block {(image_count - 1) // config.restarts}" if image_count > config.restarts else "another image set"
    return (
        f"restarts: {count} of each service in place of {config.restarts}, as its {plural(image_count, 'request')} are "
        f"{plural(count + 1, 'round')}; {more} makes room, or the scenario cold"
    )


def _single_templates(config: Config, image_order: Sequence[int]) -> Iterator[BlockTemplate]:
    """The rounds, with restarts that cut them into parts of equal length."""
    rounds = list(_closed_loop_templates(SINGLE, "measure", image_order, config.block))
    n_restarts = restarts_within_single(config, len(image_order))
    first_rounds = [len(rounds) * part // (n_restarts + 1) for part in range(1, n_restarts + 1)]
    restart_images = dict(zip(first_rounds, _cycle_images(image_order, n_restarts), strict=True))
    for number, template in enumerate(rounds):
        if number in restart_images:
            yield COLD, "measure", (restart_images[number],), None, None
            yield from _closed_loop_templates(COLD, "warmup", _cycle_images(image_order, config.warmup), config.block)
        yield template


def _closed_loop_templates(
    scenario: str, phase: Phase, image_indices: Sequence[int], block_size: int
) -> Iterator[BlockTemplate]:
    for start in range(0, len(image_indices), block_size):
        yield scenario, phase, tuple(image_indices[start : start + block_size]), None, None


def _poisson_templates(config: Config, image_order: list[int]) -> Iterator[BlockTemplate]:
    """A Poisson stream cut into blocks, so that the targets take turns within it."""
    image_cycle = itertools.cycle(image_order)
    block_count = max(1, math.ceil(config.duration_s / POISSON_BLOCK_S))
    for block_index in range(block_count):
        duration_s = min(POISSON_BLOCK_S, config.duration_s - block_index * POISSON_BLOCK_S)
        offsets_s = poisson_arrivals(config.rate_rps, duration_s, f"{config.seed}:{block_index}")
        if offsets_s:
            image_indices = tuple(itertools.islice(image_cycle, len(offsets_s)))
            yield POISSON, "measure", image_indices, offsets_s, config.rate_rps


def search_step_block(
    config: Config, image_count: int, block_number: int, target: str, step_index: int, rate_rps: float
) -> Block:
    """A step of the rate search."""
    image_order = list(range(image_count))
    random.Random(config.seed).shuffle(image_order)
    duration_s = min(max(config.step_s, MIN_STEP_ARRIVALS / rate_rps), MAX_STEP_DURATION_S)
    offsets_s = poisson_arrivals(rate_rps, duration_s, f"{config.seed}:{target}:{step_index}")
    return Block(
        block_number,
        target,
        MAX_RATE,
        "measure",
        tuple(_cycle_images(image_order, len(offsets_s))),
        offsets_s,
        rate_rps,
    )


def _cycle_images(image_order: Sequence[int], count: int) -> list[int]:
    return [image_order[i % len(image_order)] for i in range(count)]
