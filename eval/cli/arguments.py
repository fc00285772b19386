"""Parsers of command-line values; each reports why a value is invalid."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from eval.plan.config import SCENARIOS


def scenario_list(text: str) -> list[str]:
    """Names of scenarios, without duplicates."""
    scenario_names = comma_separated(text)
    for name in scenario_names:
        if name not in SCENARIOS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a scenario; there are {', '.join(SCENARIOS)}")
    if not scenario_names:
        raise argparse.ArgumentTypeError(f"names no scenario; there are {', '.join(SCENARIOS)}")
    return list(dict.fromkeys(scenario_names))


def comma_separated(text: str) -> list[str]:
    """A,B as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def int_at_least(minimum: int) -> Callable[[str], int]:
    """A parser of whole numbers from `minimum` on."""

    def parse(argument: str) -> int:
        if not argument.isascii() or not argument.isdigit() or int(argument) < minimum:
            raise argparse.ArgumentTypeError(f"{argument!r} is not a whole number of at least {minimum}")
        return int(argument)

    return parse


def positive_seconds(text: str) -> float:
    """A duration above 0."""
    return _parse_positive(text, "number of seconds")


def positive_float(text: str) -> float:
    """A number above 0."""
    return _parse_positive(text, "number")


def peak_to_mean(text: str) -> float:
    """A highest rate over the mean, at least 1."""
    value = _parse_positive(text, "ratio")
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is below 1: no peak is lower than the mean")
    return value


def _parse_positive(text: str, description: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a {description} above 0")
    return value
