"""Engines: a batch of pictures in, probabilities out. Each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from service.model import Bundle


class Engine(Protocol):
    """One way to run the network. Called from one thread at a time."""

    name: str  # as ENGINE has it
    weights: str  # the bundle's file that it runs
    libraries: dict[str, str]  # name -> version, of what it computes with

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """float32 [N, 3, S, S], normalised -> float32 [N, classes], each row summing to 1."""
        ...


def engine_class(name: str) -> Callable[[Bundle], Engine]:
    """The engine of that name, to be called with a bundle."""
    if name == "torch":
        from service.engines.torch_engine import TorchEngine

        return TorchEngine
    raise ValueError(f"no engine {name!r}; use 'torch'")
