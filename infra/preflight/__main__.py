"""`./cloudtrial preflight STACK`: whether the stack will fit, and what it will cost; without any account."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import InfraError, TwinError
from infra.preflight import measure
from infra.preflight.checks import TOO_MUCH, UNKNOWN, Line, cost_lines, size_lines, twin_lines
from infra.preflight.deployment_spec import Plan, read_plan
from infra.stackfile import read_settings
from infra.targets import TARGETS

FITS, DOES_NOT_FIT, MISUSED = 0, 1, 2  # exit codes
REQUESTS = 100_000
INDENT = 14  # of what stands below a verdict

EPILOG = f"""
Sizes come from what would be shipped and from what is installed here; memory and
start time from the stack's twin, which is started and makes {measure.PREDICTIONS} predictions (a
minute; --no-twin leaves it out); costs from eval/cost/prices.yaml. A twin starts from
a warm disk on this machine's processor: the cloud will be slower.

The stack's settings are read from Pulumi.STACK.yaml.

examples:
  ./cloudtrial preflight heroku
  ./cloudtrial preflight aws_ec2-prod --requests-per-month 5000000 --no-twin

Exit codes: 0 all fits as far as is known, 1 something does not fit, 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None, folder: Path = REPOSITORY) -> int:
    """Measure, compare, print. Gives the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        plan = read_plan(arguments.stack, read_settings(arguments.stack.rpartition("/")[2], folder))
    except InfraError as error:
        print(f"preflight: {error}", file=sys.stderr)
        return MISUSED
    lines = list(check(plan, arguments.requests_per_month, twin=not arguments.no_twin))
    print(f"{plan.target.title}, {plan.target.size}, {plan.target.region}, {plan.engine} (stack {plan.stack})\n")
    for text in table(lines):
        print(text)
    print(f"\n{conclusion(lines)}")
    return DOES_NOT_FIT if any(line.verdict == TOO_MUCH for line in lines) else FITS


def check(plan: Plan, requests: int, *, twin: bool) -> list[Line]:
    """All lines of the table."""
    worked: measure.Worked | str = "not measured (--no-twin)"
    if twin:
        print(f"starting the twin of {plan.target.title} ...", file=sys.stderr, flush=True)
        try:
            worked = measure.at_work(plan)
        except (TwinError, ImportError) as error:
            worked = f"not measured: {error}"
    return [*size_lines(plan), *twin_lines(plan, worked), *cost_lines(plan, requests, worked)]


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Verdict and what, below it the value, and the limit with its source."""
    width = max(60, min(100, shutil.get_terminal_size().columns))
    for line in lines:
        yield f"{line.verdict:<{INDENT}}{line.what}"
        limit = f"limit {line.limit}: {line.source}" if line.limit else line.source
        for detail in (line.value, limit):
            margin = " " * INDENT
            yield from textwrap.wrap(detail, width, initial_indent=margin, subsequent_indent=margin + "  ")


def conclusion(lines: Sequence[Line]) -> str:
    """The last line."""
    too_much = [line.what for line in lines if line.verdict == TOO_MUCH]
    unknown = [line.what for line in lines if line.verdict == UNKNOWN]
    said = f"Does not fit: {', '.join(too_much)}." if too_much else "Fits, as far as is known."
    return said + (f" Not known: {', '.join(unknown)}." if unknown else "")


def _requests(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of requests")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial preflight", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Say without any account whether a stack will fit its target, and what it will cost.",
    )  # fmt: skip
    parser.add_argument("stack", metavar="STACK", help=f"{', '.join(TARGETS)}, or one of these-STAGE")
    parser.add_argument("--requests-per-month", type=_requests, default=REQUESTS, metavar="N",
                        help=f"the traffic that is priced (default: {REQUESTS:,})")  # fmt: skip
    parser.add_argument("--no-twin", action="store_true", help="do not start the twin; memory and start stay not known")
    return parser


if __name__ == "__main__":
    sys.exit(main())
