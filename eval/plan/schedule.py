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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infra.local.names import PLAIN_ENGINE

Phase = Literal["warmup", "measure"]

SINGLE, POISSON, RAMP, BURST, MAX_RATE, REPEAT, COLD, IDLE = SCENARIOS = (
    "single", "poisson", "ramp", "burst", "max_rate", "repeat", "cold", "idle",
)  # fmt: skip
FLOOR = "floor"  # no-op round trips, part of every run
OVERLOADING = (RAMP, BURST, MAX_RATE)  # their failures tell of the load that was tried, not of the target at work
NO_PICTURE = -1
STREAM_BLOCK_S = 10.0  # of an open stream to one target, before the next one's turn
BURSTS = 5
SEARCH_STEPS = 24  # of the search for the highest rate, at most; see eval/plan/rate_search.py
SEARCH_ARRIVALS = 150  # of one step, at least: enough for an interval of p95
SEARCH_STEP_S = 60.0  # of one step, at most


@dataclass(frozen=True)
class Config:
    """Everything that shapes a run's schedule, as run.json keeps it."""

    local: bool = True  # the twins
    engines: tuple[str, ...] = (PLAIN_ENGINE,)  # that there is a twin of every target for
    stacks: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()  # NAME=URL
    images: str | None = None  # as --images names them
    limit: int | None = None  # pictures
    scenarios: tuple[str, ...] = (SINGLE,)
    seed: int = 0
    warmup: int = 20  # requests a target before the measured ones
    block: int = 25  # requests in a row to one target, in the closed scenarios
    floor: int = 25  # no-op round trips to a target before everything else, and again after it
    timeout_s: float = 30.0
    rate_rps: float = 10.0  # of poisson; where ramp ends; where the search for the highest rate starts
    duration_s: float = 60.0  # of poisson and of ramp, for each target
    in_flight: int = 256  # requests under way at once, at most; more are dropped and counted
    burst: int = 32  # requests at once
    slo_ms: float = 200.0  # that p95 is held against
    step_s: float = 10.0  # of the search for the highest rate
    cold: int = 20  # forced starts of each target
    idle: int = 5  # gaps without a request
    gap_s: float = 900.0
    fresh: bool = False  # a new connection for every request
    workers: int = 1  # processes that send the open streams

    def difference(self, other: Config) -> list[str]:
        """What is not the same, one line each."""
        mine, theirs = vars(self), vars(other)
        return [f"{name} is {mine[name]!r}, was {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]

    def to_json(self) -> dict[str, Any]:
        """As run.json keeps it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def config_from_json(facts: Mapping[str, Any]) -> Config:
    """The configuration that run.json keeps."""
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in facts.items()}
    return Config(**values)


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


def poisson_arrivals(rate_rps: float, length_s: float, seed: str | int) -> tuple[float, ...]:
    """Times of a Poisson process of that rate, in seconds from 0 to `length_s`."""
    dice = random.Random(f"poisson:{seed}")
    times = itertools.accumulate(dice.expovariate(rate_rps) for _ in itertools.count())
    return tuple(itertools.takewhile(lambda time: time < length_s, times))


def ramp_arrivals(rate_rps: float, length_s: float, seed: str | int) -> tuple[float, ...]:
    """Times of a Poisson process whose rate grows evenly from nothing to `rate_rps`.

    By inversion: the expected number of arrivals until t is rate * t^2 / (2 * length).
    """
    expected = poisson_arrivals(1.0, rate_rps * length_s / 2, f"ramp:{seed}")
    return tuple(math.sqrt(2 * length_s * number / rate_rps) for number in expected)


def stratified(labels: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """Indices of at most `limit` items, each class in its proportion, chosen by the seed, in the old order."""
    if limit is None or limit >= len(labels):
        return list(range(len(labels)))
    dice = random.Random(seed)
    sizes, seen = Counter(labels), Counter[int]()
    order = list(range(len(labels)))
    dice.shuffle(order)
    tie = {label: dice.random() for label in sorted(sizes)}
    places = []
    for index in order:
        label = labels[index]
        places.append(((seen[label] + 0.5) / sizes[label], tie[label], index))
        seen[label] += 1
    return sorted(index for _, _, index in sorted(places)[:limit])


def _cycled(order: Sequence[int], count: int) -> list[int]:
    return [order[i % len(order)] for i in range(count)]
