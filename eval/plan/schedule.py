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
from eval.plan.config import COLD, FLOOR, MAX_RATE, POISSON, SCENARIOS, SINGLE, Config, Phase

NO_PICTURE = -1
STREAM_BLOCK_S = 10.0  # of an open stream to one target, before the next one's turn
BURSTS = 5
SEARCH_STEPS = 24  # of the search for the highest rate, at most; see eval/plan/rate_search.py
SEARCH_ARRIVALS = 150  # of one step, at least: enough for an interval of p95
SEARCH_STEP_S = 60.0  # of one step, at most


@dataclass(frozen=True)
class Block:
    """Consecutive requests to one target."""

    number: int  # unique in the run, and the place in the schedule but for the steps of a search
    target: str
    scenario: str
    phase: Phase
    images: tuple[int, ...]  # indices into the manifest, in the order of their posting
    offsets_s: tuple[float, ...] | None = None  # when each is due, after the block's start; None: a closed block
    rate_rps: float | None = None  # of an open block


def schedule(config: Config, targets: Sequence[str], images: int) -> list[Block]:
    """The whole plan but for the search steps, which depend on what is answered: see `search_block`."""
    dice = random.Random(config.seed)
    order = list(range(images))
    dice.shuffle(order)
    rounds: list[Block] = []
    for draft in _rounds(config, order):
        in_turn = list(targets)
        dice.shuffle(in_turn)
        for target in in_turn:
            rounds.append(Block(len(rounds), target, *draft))
    return rounds


Draft = tuple[str, Phase, tuple[int, ...], tuple[float, ...] | None, float | None]  # a block without number and target


def _rounds(config: Config, order: list[int]) -> Iterator[Draft]:
    """What every target is asked, round by round."""
    if not order:
        return
    yield from _closed(SINGLE, "warmup", _cycled(order, config.warmup), config.block)
    floor: list[Draft] = [(FLOOR, "measure", (NO_PICTURE,) * config.floor, None, None)] if config.floor else []
    yield from floor
    for scenario in SCENARIOS:  # in that order, whatever the order on the command line
        if scenario in config.scenarios:
            yield from _scenario(scenario, config, order)
    yield from floor


def _scenario(scenario: str, config: Config, order: list[int]) -> Iterator[Draft]:
    match scenario:
        case "single":
            yield from _closed(scenario, "measure", order, config.block)
        case "poisson":
            yield from _stream(config, order)
        case "ramp":
            offsets = ramp_arrivals(config.rate_rps, config.duration_s, config.seed)
            yield scenario, "measure", tuple(_cycled(order, len(offsets))), offsets, config.rate_rps
        case "burst":
            for _ in range(BURSTS):
                yield scenario, "measure", tuple(_cycled(order, config.burst)), (0.0,) * config.burst, None
        case "max_rate":  # an empty block stands where the search has its place
            yield scenario, "measure", (), None, None
        case "repeat":  # one picture again and again: what a cache in between would answer faster
            yield scenario, "measure", (order[0],) * config.block, None, None
        case "cold" | "idle":
            for image in _cycled(order, config.cold if scenario == COLD else config.idle):
                yield scenario, "measure", (image,), None, None


def _closed(scenario: str, phase: Phase, images: Sequence[int], block: int) -> Iterator[Draft]:
    for start in range(0, len(images), block):
        yield scenario, phase, tuple(images[start : start + block]), None, None


def _stream(config: Config, order: list[int]) -> Iterator[Draft]:
    """A Poisson stream cut into blocks, so that the targets take turns within it."""
    pictures = itertools.cycle(order)
    parts = max(1, math.ceil(config.duration_s / STREAM_BLOCK_S))
    for part in range(parts):
        length_s = min(STREAM_BLOCK_S, config.duration_s - part * STREAM_BLOCK_S)
        offsets = poisson_arrivals(config.rate_rps, length_s, f"{config.seed}:{part}")
        if offsets:
            images = tuple(itertools.islice(pictures, len(offsets)))
            yield POISSON, "measure", images, offsets, config.rate_rps


def search_block(config: Config, images: int, number: int, target: str, step: int, rate_rps: float) -> Block:
    """A step of the search for the highest rate."""
    order = list(range(images))
    random.Random(config.seed).shuffle(order)
    length_s = min(max(config.step_s, SEARCH_ARRIVALS / rate_rps), SEARCH_STEP_S)
    offsets = poisson_arrivals(rate_rps, length_s, f"{config.seed}:{target}:{step}")
    return Block(number, target, MAX_RATE, "measure", tuple(_cycled(order, len(offsets))), offsets, rate_rps)


def _cycled(order: Sequence[int], count: int) -> list[int]:
    return [order[i % len(order)] for i in range(count)]
