"""Which pictures, and who is asked for which in what order. Pure: the same seed gives the same schedule.

A round takes the next chunk of pictures to every target, one block each, in an order that is thrown anew for every
round. So no target is always first, and a machine or a network that drifts drifts for all of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Phase = Literal["warmup", "measure"]


@dataclass(frozen=True)
class Block:
    """Consecutive requests to one target."""

    number: int  # place in the schedule
    target: str
    phase: Phase
    images: tuple[int, ...]  # indices into the manifest, in the order of their posting


def schedule(targets: Sequence[str], images: int, seed: int, warmup: int, block: int) -> list[Block]:
    """Warm-up first, `warmup` requests a target; then every picture once to every target, `block` in a row."""
    dice = random.Random(seed)
    order = list(range(images))
    dice.shuffle(order)
    warm = [order[i % images] for i in range(warmup)] if images else []
    blocks: list[Block] = []
    phases: tuple[tuple[Phase, list[int]], ...] = (("warmup", warm), ("measure", order))
    for phase, sequence in phases:
        for chunk in _chunks(sequence, block):
            in_turn = list(targets)
            dice.shuffle(in_turn)
            for target in in_turn:
                blocks.append(Block(len(blocks), target, phase, chunk))
    return blocks


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


def _chunks(sequence: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(sequence[start : start + size]) for start in range(0, len(sequence), size)]
