"""Parsers of command-line values; each reports why a value is invalid."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from eval.plan.config import SCENARIOS
from eval.targets.access import ACCESS_FLAGS, BASIC, CA, CERTIFICATE, HEADER, KEY, PROXY, QUERY
from service.command_line import positive

ACCESS_HELP = {
    HEADER: ("HEADER:VALUE", "a header of each prediction's request; $NAME in it is read from the environment"),
    QUERY: ("KEY=VALUE", "the same in the query"),
    BASIC: ("VARIABLE", "environment variable with USER:PASSWORD, for basic auth"),
    CA: ("FILE", "PEM file of certificates to trust beside the system's"),
    CERTIFICATE: ("FILE", "PEM file of the client's own certificate"),
    KEY: ("FILE", "its key, if that is in another file"),
    PROXY: ("URL", "HTTP proxy (default: https_proxy, http_proxy and no_proxy of the environment)"),
}


def add_access_options(add: Callable[..., Any], *, named: bool) -> None:
    """The options that say how an endpoint is reached; each value begins with NAME= where there may be several."""
    for flag, (metavar, text) in ACCESS_HELP.items():
        shown = f"NAME={metavar}" if named else metavar
        add(flag, action="append", default=[], metavar=shown, help=text.replace("%", "%%"))


def access_options(arguments: argparse.Namespace, name: str | None = None) -> dict[str, list[str]]:
    """Flag -> its values, each NAME=VALUE. name: of the only endpoint, which the values do not name."""
    values = {flag: getattr(arguments, flag.removeprefix("--").replace("-", "_")) for flag in ACCESS_FLAGS}
    return {flag: texts if name is None else [f"{name}={text}" for text in texts] for flag, texts in values.items()}


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


def positive_seconds(text: str) -> float:
    """A duration above 0."""
    return positive(text, "number of seconds")


def peak_to_mean(text: str) -> float:
    """A highest rate over the mean, at least 1."""
    value = positive(text, "ratio")
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is below 1: no peak is lower than the mean")
    return value
