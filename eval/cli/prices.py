"""`./cloudtrial prices` and `cost`: what is charged, and what a deployment would cost."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from eval.cli.arguments import int_at_least, positive_float, positive_seconds
from eval.errors import EvalError
from infra.targets import TARGETS

DEFAULT_MONTHLY_REQUESTS = 100_000  # requests a month, where none are given
COST_OPTIONS = ("region", "size", "vcpus", "memory_mib", "concurrency", "max_instances", "instances", "service_ms",
                "boot_s")  # fmt: skip
REJECTED = 1  # exit code

REFRESH_EPILOG = """
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
        "prices", help="print every price used, with its source and date", epilog=REFRESH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--refresh", action="store_true", help="read the sources and show what differs")
    parser.add_argument("--write", action="store_true", help="write what was read as the new list, dated today")
    parser.add_argument("--accept-large-changes", action="store_true", help="also those of more than 50%%")
    parser.set_defaults(command=prices_command)


def add_cost(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser("cost", help="print what a deployment would cost, before there is a run")
    add: Callable[..., Any] = parser.add_argument
    add("target", choices=tuple(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    add(
        "--requests-per-month",
        type=int_at_least(0),
        action="append",
        metavar="N",
        help=f"default: {DEFAULT_MONTHLY_REQUESTS:,}",
    )
    add("--service-ms", type=positive_float, metavar="MS", help="of one request in the service (default: 80)")
    add("--boot-s", type=positive_seconds, metavar="S", help="from nothing to the first answer (default: 8)")
    add("--region", help="such as the target's own, for which the list has prices")
    add("--size", help="of AWS EC2 and Heroku")
    add("--vcpus", type=positive_float, metavar="N", help="of one instance at Google")
    add("--memory-mib", type=int_at_least(1), metavar="N", help="of one instance at Google")
    add("--concurrency", type=int_at_least(1), metavar="N", help="requests in one instance at Google")
    add("--max-instances", type=int_at_least(1), metavar="N", help="at Google")
    add("--instances", type=int_at_least(0), metavar="N", help="that run without any request (dynos)")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(command=cost_command)


def prices_command(arguments: argparse.Namespace) -> int:
    """Print the dated table, or hold it against its sources."""
    from eval.cost.price_list import format_table, load_price_list
    from eval.cost.price_refresh import refresh

    if arguments.refresh:
        result = refresh(write=arguments.write, accept_large=arguments.accept_large_changes)
        return REJECTED if result.rejected else 0
    if arguments.write or arguments.accept_large_changes:
        raise EvalError("--write and --accept-large-changes go with --refresh")
    print(format_table(load_price_list()))
    return 0


def cost_command(arguments: argparse.Namespace) -> int:
    """Print what a deployment would cost."""
    from eval.cost.estimate import Deployment, estimate, summary_lines
    from eval.cost.price_list import load_price_list

    options = {name: value for name, value in vars(arguments).items() if name in COST_OPTIONS and value is not None}
    result = estimate(
        Deployment(arguments.target, **options),
        arguments.requests_per_month or [DEFAULT_MONTHLY_REQUESTS],
        load_price_list(),
    )
    print(json.dumps(result) if arguments.json else "\n".join(summary_lines(result)))
    return 0
