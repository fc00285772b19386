"""The command line: `./cloudtrial run`, `report`, `samples`, `compare`, `prices`, `cost`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from eval.cli.compare import add_compare
from eval.cli.prices import add_cost, add_prices
from eval.cli.report import add_report
from eval.cli.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED, add_run_command
from eval.cli.samples import add_samples
from eval.errors import EvalError
from eval.validation import printable_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    arguments.line = ("./cloudtrial", *argv)
    terminated = False

    def terminate(*_: object) -> None:
        """SIGTERM, with which schedulers end a job, ends a run as Ctrl-C does."""
        nonlocal terminated
        terminated = True
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, terminate)
    try:
        exit_code = arguments.command(arguments)
        sys.stdout.flush()
        return EXIT_TERMINATED if terminated and exit_code == EXIT_INTERRUPTED else exit_code
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EvalError as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_TERMINATED if terminated else EXIT_INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands and options."""
    root_parser = argparse.ArgumentParser(prog="./cloudtrial", description="Measure the service where it is deployed.")
    commands = root_parser.add_subparsers(required=True, metavar="COMMAND")
    add_run_command(commands)
    add_report(commands)
    add_samples(commands)
    add_compare(commands)
    add_prices(commands)
    add_cost(commands)
    return root_parser


if __name__ == "__main__":
    sys.exit(main())
