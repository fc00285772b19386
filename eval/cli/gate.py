"""`./cloudtrial gate PRODUCTION CANDIDATE`: the command line of a gate."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.cli.compare import check_pairs, load_run_data, parse_pair, parse_percent, parse_points
from eval.errors import EvalError
from eval.validation import printable_lines

PASSED, WORSE, MISUSED, UNDECIDED = 0, 1, 2, 3  # exit codes

EXAMPLES = """
examples:
  ./cloudtrial gate reports/production reports/candidate
      may the candidate take production's place?
  ./cloudtrial gate --margin 0.2pp --only accuracy,f1_macro A B
      with a smaller margin, on accuracy and F1 alone
  ./cloudtrial gate --pair heroku=heroku-onnx A A
      may the other engine take its place? Both were measured in one run, on a
      machine that was as fast for both: --steady-machine is not needed

A candidate passes if it is shown that it is not worse than production by more
than a margin: the lower end of a one-sided 95% interval of the difference is
above it, for each criterion. Scores (accuracy, macro precision and F1, ROC AUC)
are paired by image. A candidate that is worse by the margin passes in at most 5%
of the cases, however few images there are; one that is equal passes if there are
enough: `./cloudtrial compare` says what changed, and passes both.

Verdicts:  better     than production, for certain, in a score
           not worse  by the margin or more, for certain
           undecided  more images or requests would decide, and it says how many;
                      or the machine may explain what all targets share
           worse      than production, for certain, and maybe beyond the margin; or
                      a target of production was not measured in the candidate

Exit codes: 0 better or not worse, 1 worse, 3 undecided, 2 wrong usage, or runs
that are incomplete, no valid comparison, or differ in more than the model.
"""


def add_gate(commands: Any) -> None:
    """Add the subcommand to the parser of `./cloudtrial`."""
    parser = commands.add_parser(
        "gate",
        help="check whether a candidate may take the place of what is deployed",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Callable[..., Any] = parser.add_argument
    add("production", type=Path, metavar="PRODUCTION", help="run directory of what is deployed")
    add("candidate", type=Path, metavar="CANDIDATE", help="run directory of what may replace it")
    add("--margin", type=parse_points, default=0.005, metavar="Npp", help="of every score (default: 0.5pp)")
    add("--p95-margin", type=parse_percent, default=0.10, metavar="P%", help="of p95 (default: 10%%)")
    add("--failure-margin", type=parse_points, default=0.01, metavar="Npp", help="of failed requests (default: 1pp)")
    add("--cost-margin", type=parse_percent, default=0.10, metavar="P%", help="of the monthly bill (default: 10%%)")
    add("--only", type=parse_metrics, metavar="CRITERION,...",
        help="judge these alone: accuracy, precision_macro, f1_macro, roc_auc, p95, failures, cost")  # fmt: skip
    add("--pair", action="append", default=[], type=parse_pair, metavar="A=B",
        help="judge target B of the candidate against target A of production; may be given again")  # fmt: skip
    add("--steady-machine", action="store_true",
        help="the machine is known to be as fast in both runs: a change that all targets share is theirs")  # fmt: skip
    add("--format", choices=("text", "json"), default="text", help="of the output (default: text)")
    parser.set_defaults(command=gate_command, exit_failed=MISUSED)


def gate_command(arguments: argparse.Namespace) -> int:
    """Judge and print. Returns the exit code."""
    from eval.gate.criteria import RUN_NAMES, Margins, Verdict, overall
    from eval.gate.runs import judge_runs, refusals
    from eval.gate.text import to_json, to_text
    from eval.progress import stderr_reporter
    from eval.report.wording import message

    margins = Margins(arguments.margin, arguments.p95_margin, arguments.failure_margin, arguments.cost_margin)
    reporter = stderr_reporter()
    with reporter.activity("Reading the samples of both runs"):
        (production, invalid_production), (candidate, invalid_candidate) = (
            load_run_data(folder, name)
            for folder, name in zip((arguments.production, arguments.candidate), RUN_NAMES.values(), strict=True)
        )
    pairs = check_pairs(arguments.pair, production, candidate)
    steady = arguments.steady_machine or arguments.production.resolve() == arguments.candidate.resolve()
    with reporter.activity("Judging"):
        criteria = judge_runs(
            production, candidate, margins, pairs=pairs, only=arguments.only or (), steady_machine=steady
        )
    if findings := refusals(production, candidate, [*invalid_production, *invalid_candidate], pairs):
        lines = [f"{production.folder} and {candidate.folder} cannot be judged:", *map(message, findings)]
        raise EvalError("\n  ".join(lines))
    print(printable_lines(to_json(criteria) if arguments.format == "json" else to_text(criteria)))
    return {Verdict.WORSE: WORSE, Verdict.UNDECIDED: UNDECIDED}.get(overall(criteria), PASSED)


def parse_metrics(text: str) -> tuple[str, ...]:
    known = ("accuracy", "precision_macro", "f1_macro", "roc_auc", "p95", "failures", "cost")
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no criterion; there are {', '.join(known)}")
    return names
