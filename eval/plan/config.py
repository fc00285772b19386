"""What shapes a run's schedule: the scenarios, and every option as run.json keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.engines.names import PLAIN_ENGINE

Phase = Literal["warmup", "measure"]
SINGLE, POISSON, RAMP, BURST, MAX_RATE, REPEAT, COLD, IDLE = SCENARIOS = (
    "single", "poisson", "ramp", "burst", "max_rate", "repeat", "cold", "idle",
)  # fmt: skip
BASELINE_RTT = "floor"  # no-op round trips, part of every run
OVERLOAD_SCENARIOS = (
    RAMP,
    BURST,
    MAX_RATE,
)  # their failures tell of the load that was tried, not of the target at work


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

    def differences_from(self, other: Config) -> list[str]:
        """What is not the same, one line each."""
        own_values, other_values = vars(self), vars(other)
        return [
            f"{name} is {own_values[name]!r}, was {other_values[name]!r}"
            for name in own_values
            if own_values[name] != other_values[name]
        ]

    def to_json(self) -> dict[str, Any]:
        """As run.json keeps it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def config_from_json(data: Mapping[str, Any]) -> Config:
    """The configuration that run.json keeps."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return Config(**values)
