"""Which images of a set are sent, when not all are. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence


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
