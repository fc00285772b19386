"""`./cloudtrial preflight STACK`: check without an account whether a stack fits its target, and what it costs."""

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
from infra.preflight.checks import (
    EXCEEDS,
    UNKNOWN,
    CheckResult,
    check_sizes,
    check_twin,
    estimate_cost,
    usable_memory_mib,
)
from infra.preflight.deployment_spec import DeploymentSpec, read_deployment_spec
from infra.stackfile import read_secret_keys, read_settings
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

--prerequisites says, in one line each, what `make preview` and `make up` lack
here: login, settings, credentials, Docker, APIs. They run it first; what follows
`--` are their arguments for pulumi. The network is used for Google's APIs, and for a
model store in a bucket.

examples:
  ./cloudtrial preflight heroku
  ./cloudtrial preflight aws_ec2-prod --requests-per-month 5000000 --no-twin
  ./cloudtrial preflight gcp_cloudrun --prerequisites

Exit codes: 0 all fits as far as is known, 1 something does not fit or is missing,
2 wrong usage.
"""


def main(argv: Sequence[str] | None = None, folder: Path = REPOSITORY) -> int:
    """Measure, compare with the limits, print. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:end])
    if arguments.prerequisites:
        return check_prerequisites(arguments.stack, words[end + 1 :], folder)
    try:
        name = arguments.stack.rpartition("/")[2]
        spec = read_deployment_spec(name, read_settings(name, folder), read_secret_keys(name, folder))
    except InfraError as error:
        print(f"preflight: {error}", file=sys.stderr)
        return MISUSED
    results = list(run_checks(spec, arguments.requests_per_month, twin=not arguments.no_twin))
    target = spec.target
    print(f"{target.title}, {target.size}, {target.region}, {spec.model}, {spec.engine} (stack {spec.stack})\n")
    for text in table(results):
        print(text)
    print(f"\n{conclusion(results)}")
    return DOES_NOT_FIT if any(line.verdict == EXCEEDS for line in results) else FITS


def check_prerequisites(stack: str, pulumi_arguments: Sequence[str], folder: Path) -> int:
    """Print a line for each thing without which preview and up would fail. Returns the exit code."""
    from infra.preflight.prerequisites import find_missing

    try:
        lines = find_missing(stack, pulumi_arguments, folder)
    except InfraError as error:
        print(f"preflight: {error}", file=sys.stderr)
        return MISUSED
    for line in lines:
        print(f"missing: {line}", file=sys.stderr)
    if lines:
        print("Nothing was created. To go on without this check: PREREQUISITES=skip", file=sys.stderr)
    return DOES_NOT_FIT if lines else FITS


def run_checks(spec: DeploymentSpec, requests: int, *, twin: bool) -> list[CheckResult]:
    """Every row of the table."""
    local: measure.LocalMeasurement | str = "not measured (--no-twin)"
    if measure.model_file_mib(spec) > usable_memory_mib(spec):
        local = f"not measured: {spec.model} does not fit the memory"
    elif twin:
        print(f"starting the twin of {spec.target.title} ...", file=sys.stderr, flush=True)
        try:
            local = measure.measure_local(spec)
        except (TwinError, ImportError) as error:
            local = f"not measured: {error}"
    return [*check_sizes(spec), *check_twin(spec, local), *estimate_cost(spec, requests, local)]


def table(results: Sequence[CheckResult]) -> Iterator[str]:
    """Verdict and name; below them the value, and the limit with its source."""
    width = max(60, min(100, shutil.get_terminal_size().columns))
    for line in results:
        yield f"{line.verdict:<{INDENT}}{line.name}"
        limit = f"limit {line.limit}: {line.source}" if line.limit else line.source
        for detail in (line.value, limit):
            margin = " " * INDENT
            yield from textwrap.wrap(detail, width, initial_indent=margin, subsequent_indent=margin + "  ")


def conclusion(results: Sequence[CheckResult]) -> str:
    """The last line."""
    exceeding = [line.name for line in results if line.verdict == EXCEEDS]
    unknown = [line.name for line in results if line.verdict == UNKNOWN]
    verdict = f"Does not fit: {', '.join(exceeding)}." if exceeding else "Fits, as far as is known."
    return verdict + (f" Not known: {', '.join(unknown)}." if unknown else "")


def _requests(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of requests")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial preflight", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check without an account whether a stack fits its target, and what it costs.",
    )  # fmt: skip
    parser.add_argument("stack", metavar="STACK", help=f"{', '.join(TARGETS)}, or one of these-STAGE")
    parser.add_argument("--requests-per-month", type=_requests, default=REQUESTS, metavar="N",
                        help=f"the traffic that is priced (default: {REQUESTS:,})")  # fmt: skip
    parser.add_argument("--no-twin", action="store_true", help="do not start the twin; memory and start stay not known")
    parser.add_argument("--prerequisites", action="store_true", help="only say what is missing here to deploy it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
