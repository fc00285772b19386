"""What the command line's values may be; each says what is wrong with one that may not."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from eval.plan.config import SCENARIOS


def scenarios(text: str) -> list[str]:
    """Names of scenarios, each once."""
    found = names(text)
    for name in found:
        if name not in SCENARIOS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a scenario; there are {', '.join(SCENARIOS)}")
    if not found:
        raise argparse.ArgumentTypeError(f"names no scenario; there are {', '.join(SCENARIOS)}")
    return list(dict.fromkeys(found))


def names(text: str) -> list[str]:
    """A,B as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """A time above 0."""
    return _above_zero(text, "number of seconds")


def number(text: str) -> float:
    """A number above 0."""
    return _above_zero(text, "number")


def _above_zero(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what} above 0")
    return value
