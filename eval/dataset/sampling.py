"""Stratified sampling of an image set. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence


def stratified_sample(labels: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """Indices of at most `limit` items, ascending: each class in its proportion, chosen by the seed."""
    if limit is None or limit >= len(labels):
        return list(range(len(labels)))
    rng = random.Random(seed)
    class_sizes, drawn = Counter(labels), Counter[int]()
    shuffled = list(range(len(labels)))
    rng.shuffle(shuffled)
    tie_breaks = {label: rng.random() for label in sorted(class_sizes)}
    ranked = []
    for index in shuffled:
        label = labels[index]
        ranked.append(((drawn[label] + 0.5) / class_sizes[label], tie_breaks[label], index))
        drawn[label] += 1
    return sorted(index for _, _, index in sorted(ranked)[:limit])
