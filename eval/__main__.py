"""The command line: `./cloudtrial run`, `report`, `samples`, `compare`, `prices`, `cost`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from eval.cli.check import add_check
from eval.cli.compare import add_compare
from eval.cli.gate import add_gate
from eval.cli.prices import add_cost, add_prices
from eval.cli.report import add_report
from eval.cli.run import EXIT_FAILED, EXIT_INTERRUPTED, add_run_command
from eval.cli.samples import add_samples
from eval.errors import EvalError
from eval.interruption import Interruptions, is_interruption
from eval.validation import printable_lines
from service.command_line import CommandParser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    arguments.line = ("./cloudtrial", *argv)
    interruptions = arguments.interruptions = Interruptions()
    try:
        with interruptions.raised():
            exit_code = _flush_output(_run_command(arguments))
    except BaseException as error:
        if not is_interruption(error):
            raise
        print("stopped", file=sys.stderr)
        exit_code = _flush_output(EXIT_INTERRUPTED)
    return interruptions.received.exit_code if interruptions.received and exit_code == EXIT_INTERRUPTED else exit_code


def _run_command(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code; an error that a user can mend is one line."""
    try:
        return arguments.command(arguments)
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        return 0
    except EvalError as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return getattr(arguments, "exit_failed", EXIT_FAILED)  # compare and gate have 1 for what is worse
    except OSError as error:
        print(printable_lines(f"{error.filename or 'the output'}: {error.strerror or error}"), file=sys.stderr)
        return EXIT_FAILED


def _flush_output(exit_code: int) -> int:
    """Write what is left of the output. Returns the exit code, which says if that failed, but for a closed pipe."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would report it again at its end
        if not isinstance(error, BrokenPipeError):
            if not exit_code:
                print(f"the output: {error.strerror}", file=sys.stderr)
            return exit_code or EXIT_FAILED
    return exit_code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands and options."""
    root_parser = argparse.ArgumentParser(prog="./cloudtrial", description="Measure the service where it is deployed.")
    commands = root_parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    add_run_command(commands)
    add_check(commands)
    add_report(commands)
    add_samples(commands)
    add_compare(commands)
    add_gate(commands)
    add_prices(commands)
    add_cost(commands)
    return root_parser


if __name__ == "__main__":
    sys.exit(main())
