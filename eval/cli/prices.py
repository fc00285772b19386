"""`./cloudtrial prices` and `cost`: what is charged, and what a deployment would cost."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from eval.cli.arguments import at_least, number, seconds
from eval.errors import EvalError
from infra.targets import TARGETS

VOLUME = 100_000  # requests a month, where none are given
COST_FIGURES = ("region", "size", "vcpus", "memory_mib", "concurrency", "max_instances", "instances", "service_ms",
                "boot_s")  # fmt: skip
REFUSED = 1  # exit code

REFRESH_NOTES = """
--refresh reads the AWS price list (some hundred MB), SkyPilot's copy of it and the
table in Heroku's command line, which need no account; Google's catalog where
GOOGLE_API_KEY is set. What cannot be read, or is not understood, stays as it is.
Nothing is written without --write. The list that --write replaces moves to
eval/cost/prices/, from where the reports of older runs take it.
Exit codes: 0 done, 1 nothing could be read, or a change was refused.
"""


def add_prices(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser(
        "prices", help="print every price used, with its source and date", epilog=REFRESH_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--refresh", action="store_true", help="read the sources and show what differs")
    parser.add_argument("--write", action="store_true", help="write what was read as the new list, dated today")
    parser.add_argument("--accept-large-changes", action="store_true", help="also those of more than 50%%")
    parser.set_defaults(command=prices)


def add_cost(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser("cost", help="print what a deployment would cost, before there is a run")
    add: Callable[..., Any] = parser.add_argument
    add("target", choices=tuple(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    add("--requests-per-month", type=at_least(0), action="append", metavar="N", help=f"default: {VOLUME:,}")
    add("--service-ms", type=number, metavar="MS", help="of one request in the service (default: 80)")
    add("--boot-s", type=seconds, metavar="S", help="from nothing to the first answer (default: 8)")
    add("--region", help="such as the target's own, for which the list has prices")
    add("--size", help="of AWS EC2 and Heroku")
    add("--vcpus", type=number, metavar="N", help="of one instance at Google")
    add("--memory-mib", type=at_least(1), metavar="N", help="of one instance at Google")
    add("--concurrency", type=at_least(1), metavar="N", help="requests in one instance at Google")
    add("--max-instances", type=at_least(1), metavar="N", help="at Google")
    add("--instances", type=at_least(0), metavar="N", help="that run without any request (dynos)")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(command=cost)


def prices(arguments: argparse.Namespace) -> int:
    """Print the dated table, or hold it against its sources."""
    from eval.cost.price_list import load_prices, table
    from eval.cost.price_refresh import refresh

    if arguments.refresh:
        done = refresh(write=arguments.write, accept_large=arguments.accept_large_changes)
        return REFUSED if done.refused else 0
    if arguments.write or arguments.accept_large_changes:
        raise EvalError("--write and --accept-large-changes go with --refresh")
    print(table(load_prices()))
    return 0


def cost(arguments: argparse.Namespace) -> int:
    """Print what a deployment would cost."""
    from eval.cost.estimate import Deployment, estimate, lines
    from eval.cost.price_list import load_prices

    asked = {name: value for name, value in vars(arguments).items() if name in COST_FIGURES and value is not None}
    found = estimate(Deployment(arguments.target, **asked), arguments.requests_per_month or [VOLUME], load_prices())
    print(json.dumps(found) if arguments.json else "\n".join(lines(found)))
    return 0
