"""What the command lines of training and of the harness have in common; the service itself has none."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """Of a command: it names what it does not know, with the nearest option; the parser of all would show its usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]  # overloads
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = {option.lstrip("-"): option for action in self._actions for option in action.option_strings}
            name = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(name.lstrip("-"), options, 1) if name.startswith("-") else []
            hint = f"did you mean {options[near[0]]}? " if near else ""
            what = f"there is no option {name}" if name.startswith("-") else f"{unknown[0]!r} belongs to no option"
            self.exit(2, f"{self.prog}: {what}: {hint}{self.prog} --help lists them all\n")
        return found, unknown


def whole_number(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `lowest` on, or to `highest`."""

    def parse(text: str) -> int:
        is_number = text.isascii() and text.isdigit()
        if not is_number or int(text) < lowest or (highest is not None and int(text) > highest):
            wanted = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {wanted}")
        return int(text)

    return parse


def positive(text: str, what: str = "number") -> float:
    """A number above 0."""
    return number_where(text, lambda value: 0 < value < float("inf"), f"a {what} above 0")


def number_where(text: str, is_valid: Callable[[float], bool], wanted: str) -> float:
    """The number that a text is. Raises ArgumentTypeError with what is wanted."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value
