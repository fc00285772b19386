"""`./cloudtrial prices` and `cost`: the price list, and what a deployment would cost."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Collection
from typing import Any

from eval.cli.arguments import peak_to_mean, positive_seconds
from eval.errors import EstimateError
from infra.targets import TARGETS
from service.command_line import positive, whole_number

DEFAULT_MONTHLY_REQUESTS = 100_000
COST_OPTIONS = ("region", "size", "vcpus", "memory_mib", "concurrency", "max_instances", "instances", "service_ms",
                "boot_s", "peak")  # fmt: skip
OPTIONS_OF_GOOGLE = ("vcpus", "memory_mib", "concurrency")
PRICES_DIFFER = 3  # exit code of --refresh; 1 is an error, 2 wrong usage

REFRESH_EPILOG = """
--refresh reads the AWS price list (some hundred MB), SkyPilot's copy of it and the
table in Heroku's command line, which need no account, and Google's catalog if
GOOGLE_API_KEY is set. It prints each price beside the one in eval/cost/prices.yaml,
and the YAML of the entries to update, for you to check and paste. It writes nothing.
Exit codes: 0 nothing to update, 1 no source could be read, 3 entries to update.
"""


def add_prices(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "prices", help="print every price used, with its source and date", epilog=REFRESH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--refresh", action="store_true", help="read the sources and print what differs")
    parser.set_defaults(command=prices_command)


COST_EXAMPLES = """
examples:
  ./cloudtrial cost heroku
  ./cloudtrial cost gcp_cloudrun --requests-per-month 1000000 --vcpus 2 --memory-mib 2048
"""


def add_cost(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "cost", help="print what a deployment would cost, before there is a run", epilog=COST_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add: Callable[..., Any] = parser.add_argument
    add("target", choices=tuple(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    add(
        "--requests-per-month",
        type=whole_number(0),
        action="append",
        metavar="N",
        help=f"default: {DEFAULT_MONTHLY_REQUESTS:,}",
    )
    add("--service-ms", type=positive, metavar="MS", help="time of one request in the service (default: 80)")
    add("--boot-s", type=positive_seconds, metavar="S", help="cold start until the first response (default: 8)")
    add(
        "--peak",
        type=peak_to_mean,
        metavar="X",
        help="rate in the busy hours, over the month's mean: 3 is 8 busy hours a day (default: 3)",
    )
    add("--region", help="a region that the price list covers (default: the target's own)")
    add("--size", help="instance or dyno size, on AWS and Heroku")
    add("--vcpus", type=positive, metavar="N", help="per instance, on Google Cloud")
    add("--memory-mib", type=whole_number(1), metavar="N", help="per instance, on Google Cloud")
    add("--concurrency", type=whole_number(1), metavar="N", help="concurrent requests per instance, on Google Cloud")
    add("--max-instances", type=whole_number(1), metavar="N", help="on Google Cloud and SageMaker")
    add(
        "--instances",
        type=whole_number(0),
        metavar="N",
        help="always running: machines, dynos, endpoint instances, or on Google Cloud warm ones",
    )
    add("--sensitivity", action="store_true", help="print what half and twice each price would change, at the first N")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(command=cost_command)


def prices_command(arguments: argparse.Namespace) -> int:
    """Print the dated table, or compare it with its sources."""
    from eval.cost.price_list import format_table, load_price_list
    from eval.cost.price_refresh import refresh

    if arguments.refresh:
        return PRICES_DIFFER if refresh().updates else 0
    print(format_table(load_price_list()))
    return 0


def cost_command(arguments: argparse.Namespace) -> int:
    """Print what a deployment would cost."""
    from eval.cost.estimate import Deployment, estimate, price_sensitivity
    from eval.cost.price_list import load_price_list
    from eval.report.terminal import estimate_lines, sensitivity_lines

    options = {name: value for name, value in vars(arguments).items() if name in COST_OPTIONS and value is not None}
    _check_options(arguments.target, options)
    deployment = Deployment(arguments.target, **options)
    monthly_requests, prices = arguments.requests_per_month or [DEFAULT_MONTHLY_REQUESTS], load_price_list()
    if arguments.sensitivity:
        if arguments.json:
            raise EstimateError("--sensitivity is a table for people: leave --json out")
        effects = price_sensitivity(deployment, monthly_requests[0], prices)
        print("\n".join(sensitivity_lines(effects, monthly_requests[0])))
        return 0
    result = estimate(deployment, monthly_requests, prices)
    print(json.dumps(dataclasses.asdict(result)) if arguments.json else "\n".join(estimate_lines(result)))
    return 0


def _check_options(target: str, options: Collection[str]) -> None:
    """Raises EstimateError for an option that says nothing of this target."""
    billing = TARGETS[target].billing
    if billing == "request":
        advice = {"size": "--vcpus and --memory-mib"}
    else:
        advice: dict[str, str] = dict.fromkeys(OPTIONS_OF_GOOGLE, "--size")
        if billing != "endpoint":
            advice["max_instances"] = "--instances"
    for name, instead in advice.items():
        if name in options:
            raise EstimateError(f"{target} has no --{name.replace('_', '-')}: give {instead}")
