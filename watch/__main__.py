"""`./cloudtrial watch`: a Prometheus on this machine that scrapes twins, stacks or other addresses, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from eval.cli.arguments import comma_separated
from eval.errors import EvalError
from eval.interruption import Interruptions
from eval.targets.tokens import ALLOW_FLAG
from infra.errors import InfraError
from infra.models import DEFAULT_MODEL, model_names
from infra.targets import AWS_SAGEMAKER, TARGETS
from watch.errors import WatchError

FAILED = 1
WATCHED = tuple(name for name in TARGETS if name != AWS_SAGEMAKER.name)  # which lets no GET through
EXAMPLES = """
examples:
  ./cloudtrial watch --local
      the twins, two images a second to each, a Prometheus that scrapes them and
      knows the rules of ops/, and Alertmanager: prints their addresses
  ./cloudtrial watch --local --images DIR --rate 20
      other images: those of DIR, 20 a second to each twin
  ./cloudtrial watch --local --model iris --targets heroku
      one twin, with a model of rows
  ./cloudtrial watch --stacks heroku,gcp_cloudrun-prod
      what is deployed, at the addresses that the stacks export; sends no traffic
  ./cloudtrial watch --target mine=https://example.org --token-env mine=TOKEN
      an address whose /metrics needs the token in $TOKEN
  ./cloudtrial watch --stacks heroku --print-config
      print a prometheus.yml for a Prometheus of your own, and start nothing

Everything listens on 127.0.0.1 alone, and is gone after Ctrl-C, data included.
"""


def build_parser() -> argparse.ArgumentParser:
    """Of the command."""
    parser = argparse.ArgumentParser(
        prog="./cloudtrial watch", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Scrape deployments with a Prometheus on this machine: metrics, drift, alerts.",
    )  # fmt: skip
    add: Any = parser.add_argument
    add("--local", action="store_true", help="start twins, with gentle traffic")
    add("--stacks", type=comma_separated, default=[], metavar="A,B", help="stacks that are deployed")
    add("--target", action="append", default=[], metavar="NAME=URL", help="another address of the service")
    add("--token-env", action="append", default=[], metavar="[NAME=]VARIABLE",
        help="environment variable with the token that /metrics needs (cloudtrial:protectStatus)")  # fmt: skip
    add(ALLOW_FLAG, action="store_true", help="send tokens over plain http, too")
    add("--targets", type=comma_separated, default=list(WATCHED), metavar="A,B",
        help=f"which twins (default: {','.join(WATCHED)})")  # fmt: skip
    add("--model", default=DEFAULT_MODEL, metavar="NAME", help=f"of the twins: {', '.join(model_names())}")
    add("--images", default="golden", metavar="DIR", help="what the twins are sent: golden (default; its synthetic"
        " images are a drift), cifar10, a folder, a CSV file of rows")  # fmt: skip
    add("--rate", type=_rate, default=2.0, metavar="RPS",
        help="images a second to each twin, one after the other; 0: none (default: 2)")  # fmt: skip
    add("--interval", type=_seconds, default=5.0, metavar="S", help="seconds between two scrapes (default: 5)")
    add("--print-config", action="store_true", help="print prometheus.yml for --stacks and --target; start nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 once a signal has ended it, 1 when something cannot be started or has ended, 2 for wrong usage."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.print_config and arguments.local:
        parser.error("--print-config is for --stacks and --target: twins have other addresses each time")
    if not (arguments.local or arguments.stacks or arguments.target):
        parser.error("say what to watch: --local, --stacks A,B or --target NAME=URL")
    try:
        with Interruptions().raised(once=True):
            from watch.session import print_config, watch  # here, as help needs neither numpy nor aiohttp

            if arguments.print_config:
                print_config(arguments, os.environ)
                return 0
            return watch(arguments, os.environ)
    except (WatchError, EvalError, InfraError) as error:
        print(f"cloudtrial watch: {error}", file=sys.stderr)
    except OSError as error:
        print(f"cloudtrial watch: {error.filename or 'its output'}: {error.strerror or error}", file=sys.stderr)
    return FAILED


def _rate(text: str) -> float:
    return _number(text, 0, 1000, "images a second")


def _seconds(text: str) -> float:
    return _number(text, 1, 3600, "seconds")


def _number(text: str, low: float, high: float, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit} from {low} to {high}")
    return value


if __name__ == "__main__":
    sys.exit(main())
