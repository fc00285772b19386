"""Who is asked for which picture, when, in what order. Pure: the same configuration and seed give the same schedule.

A round takes the same requests to every target, one block each, in an order that is thrown anew for every round. So no
target is always first, and a machine or a network that drifts drifts for all of them.

    closed   a request is due the moment the one before is answered: one user's response time
    open     requests are due at times that were drawn before, whatever is answered: what many users see
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.plan.arrivals import poisson_arrivals, ramp_arrivals
from eval.plan.config import BASELINE_RTT, COLD, MAX_RATE, POISSON, SCENARIOS, SINGLE, Config, Phase

NO_IMAGE = -1
POISSON_BLOCK_S = 10.0  # of an open stream to one target, before the next one's turn
BURST_COUNT = 5
MAX_SEARCH_STEPS = 24  # of the search for the highest rate, at most; see eval/plan/rate_search.py
MIN_STEP_ARRIVALS = 150  # of one step, at least: enough for an interval of p95
MAX_STEP_DURATION_S = 60.0  # of one step, at most


@dataclass(frozen=True)
class Block:
    """Consecutive requests to one target."""

    number: int  # unique in the run, and the place in the schedule but for the steps of a search
    target: str
    scenario: str
    phase: Phase
    image_indices: tuple[int, ...]  # indices into the manifest, in the order of their posting
    offsets_s: tuple[float, ...] | None = None  # when each is due, after the block's start; None: a closed block
    rate_rps: float | None = None  # of an open block


def build_schedule(config: Config, targets: Sequence[str], image_count: int) -> list[Block]:
    """The whole plan but for the search steps, which depend on what is answered: see `search_block`."""
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


BlockTemplate = tuple[
    str, Phase, tuple[int, ...], tuple[float, ...] | None, float | None
]  # a block without number and target


def _block_templates(config: Config, image_order: list[int]) -> Iterator[BlockTemplate]:
    """What every target is asked, round by round."""
    if not image_order:
        return
    yield from _closed_loop_templates(SINGLE, "warmup", _cycle_images(image_order, config.warmup), config.block)
    baseline_rtt: list[BlockTemplate] = (
        [(BASELINE_RTT, "measure", (NO_IMAGE,) * config.floor, None, None)] if config.floor else []
    )
    yield from baseline_rtt
    for scenario in SCENARIOS:  # in that order, whatever the order on the command line
        if scenario in config.scenarios:
            yield from _scenario_templates(scenario, config, image_order)
    yield from baseline_rtt


def _scenario_templates(scenario: str, config: Config, image_order: list[int]) -> Iterator[BlockTemplate]:
    match scenario:
        case "single":
            yield from _closed_loop_templates(scenario, "measure", image_order, config.block)
        case "poisson":
            yield from _poisson_templates(config, image_order)
        case "ramp":
            offsets_s = ramp_arrivals(config.rate_rps, config.duration_s, config.seed)
            yield scenario, "measure", tuple(_cycle_images(image_order, len(offsets_s))), offsets_s, config.rate_rps
        case "burst":
            for _ in range(BURST_COUNT):
                yield scenario, "measure", tuple(_cycle_images(image_order, config.burst)), (0.0,) * config.burst, None
        case "max_rate":  # an empty block stands where the search has its place
            yield scenario, "measure", (), None, None
        case "repeat":  # one picture again and again: what a cache in between would answer faster
            yield scenario, "measure", (image_order[0],) * config.block, None, None
        case "cold" | "idle":
            for image_index in _cycle_images(image_order, config.cold if scenario == COLD else config.idle):
                yield scenario, "measure", (image_index,), None, None


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
    """A step of the search for the highest rate."""
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
