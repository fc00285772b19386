"""The scenarios, and the configuration of a run: every option that shapes its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from eval.errors import InvalidInput
from eval.samples.model import MAX_TARGETS, RUN_JSON
from eval.validation import AtMost, Count, Integer, Name, OneOf, Positive, Text, Within, validate
from service.engines.names import PLAIN_ENGINE

Phase = Literal["warmup", "measure"]
SINGLE, POISSON, RAMP, BURST, MAX_RATE, REPEAT, COLD, IDLE = SCENARIOS = (
    "single", "poisson", "ramp", "burst", "max_rate", "repeat", "cold", "idle",
)  # fmt: skip
BASELINE_RTT = "baseline_rtt"  # scenario of no-op round trips, part of every run
OPEN_LOOPS = frozenset({POISSON, RAMP, BURST, MAX_RATE})  # have several requests in flight
OVERLOAD_SCENARIOS = (RAMP, BURST, MAX_RATE)  # their failures are due to the load, not to normal operation

TextTuple = Annotated[tuple[Text, ...], AtMost(MAX_TARGETS)]
ScenarioTuple = Annotated[tuple[Annotated[str, OneOf(SCENARIOS)], ...], AtMost(len(SCENARIOS))]


@dataclass(frozen=True)
class Config:
    """Everything that shapes a run's schedule, as recorded in run.json."""

    local: bool = True  # start the twins
    twins: TextTuple = ()  # targets whose twins are started; empty: all there are
    engines: TextTuple = (PLAIN_ENGINE,)  # each of these targets has a twin for each
    stacks: TextTuple = ()
    targets: TextTuple = ()  # NAME=URL
    model: Name | None = None  # of models/; None: what the targets report, else the default
    images: Text | None = None  # as --images names them
    classes: Text | None = None  # file of the classes' names, in the service's order
    limit: Count | None = None  # of images
    scenarios: ScenarioTuple = (SINGLE,)
    seed: Integer = 0
    warmup: Count = 20  # requests per target before the measured ones
    block: Count = 25  # consecutive requests to one target, in closed loops
    baseline_rtt: Count = 25  # no-op round trips per target, before and after the scenarios
    timeout_s: Positive = 30.0
    rate_rps: Positive = 10.0  # of poisson; the end of ramp; the start of the rate search
    duration_s: Positive = 60.0  # of poisson and ramp, per target
    in_flight: Count = 256  # maximum; requests above it are dropped and counted
    burst: Count = 32  # simultaneous requests
    slo_ms: Positive = 200.0  # latency objective for p95
    peak: Annotated[float, Within(1, 1000)] = (
        3.0  # rate in the busy hours, over the month's mean: 3 is 8 busy hours a day
    )
    step_s: Positive = 10.0  # minimum duration of a step of the rate search
    restarts: Count = 6  # per target, between rounds of single or in the scenario cold; 6 starts give a median
    idle: Count = 5  # idle gaps per target
    gap_s: Positive = 900.0  # length of an idle gap
    fresh: bool = False  # a new connection for every request
    workers: Count = 1  # processes that send the open loops

    def differences_from(self, other: Config) -> list[str]:
        """The differing options, such as "rate_rps=20.0 instead of 10.0"."""
        own_values, other_values = vars(self), vars(other)
        return [
            f"{name}={own_values[name]!r} instead of {other_values[name]!r}"
            for name in own_values
            if own_values[name] != other_values[name]
        ]

    def to_json(self) -> dict[str, Any]:
        """As recorded in run.json."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def config_from_json(data: Mapping[str, Any]) -> Config:
    """The configuration as recorded in run.json. Raises InvalidInput."""
    try:
        return validate(Config, data)
    except InvalidInput as error:
        raise InvalidInput(f"the run has an invalid configuration in {RUN_JSON}: {error}; measure again") from None
