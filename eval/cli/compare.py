"""`./cloudtrial compare A B`: the command line of a comparison."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.cost.billing import REQUESTS_PER_MONTH
from eval.errors import EvalError
from eval.formatting import join_words
from eval.validation import printable_lines

if TYPE_CHECKING:  # numpy and scipy take a second to import, which other commands should not wait for
    from eval.analysis.findings import Finding
    from eval.analysis.run_comparison import RunData

NOT_REGRESSED, REGRESSED, INCOMPATIBLE = 0, 1, 2  # exit codes

EXAMPLES = """
examples:
  ./cloudtrial compare reports/before reports/after
      is the second run worse than the first?
  ./cloudtrial compare --max-p95-increase 5% --max-accuracy-drop 0.2pp A B
      with stricter limits
  ./cloudtrial compare --requests-per-month 100000000 A B
      costs at that traffic
  ./cloudtrial compare --format markdown A B >> "$GITHUB_STEP_SUMMARY"
      for a pull request; --format json is for programs
  ./cloudtrial compare --pair heroku=heroku-onnx A B
      an engine against another one: heroku of A, heroku-onnx of B
  ./cloudtrial compare --force reports/example reports/latest
      although images, model, scenarios or machine differ; p95 and cost of twins
      on different processors are shown, not judged

What changed is shown; --all shows every figure.

A change is a regression if it exceeds its limit and is significant: its
p-value, adjusted for all that is judged (Holm), is below 5%. For a single
comparison this means that its 95% interval excludes zero. p50 and p99 are
shown, not judged. With fewer than 6 blocks in either run nothing but accuracy,
and bills that do not depend on speed, is judged (a block is 25 requests of one
target, see run --block).

The machine, or the network, may be slower in one of the runs, by a factor that
all targets share: the change of the target in the middle. A target's own change
is what is beyond that. So two targets are needed, and three or more tell better
which one changed.

Each run is priced by the price list whose checksum it recorded. The difference
in cost is split: A's demand at B's prices minus A's bill is the price change,
the rest is the machine's and the change in speed.

Exit codes: 0 no regression, 1 regression, 2 incompatible runs or wrong usage.
"""


def add_compare(commands: Any) -> None:
    """Add the subcommand to the parser of `./cloudtrial`."""
    parser = commands.add_parser(
        "compare",
        help="check whether a run is worse than another, for people and for CI",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Callable[..., Any] = parser.add_argument
    add("a", type=Path, metavar="A", help="run directory to compare with, such as reports/example")
    add("b", type=Path, metavar="B", help="run directory that may be worse")
    add(
        "--max-p95-increase",
        type=parse_percent,
        metavar="P%",
        help="of p95, per target and scenario (default: 10%%)",
    )
    add("--max-failure-increase", type=parse_points, metavar="Npp", help="of requests that fail (default: 1pp)")
    add("--max-accuracy-drop", type=parse_points, metavar="Npp", help="on the same images (default: 0.5pp)")
    add("--max-cost-increase", type=parse_percent, metavar="P%", help="of the monthly bill (default: 10%%)")
    add(
        "--requests-per-month",
        type=_parse_request_count,
        metavar="N",
        help=f"at which costs are compared (default: {REQUESTS_PER_MONTH:,})",
    )
    add(
        "--pair",
        action="append",
        default=[],
        type=parse_pair,
        metavar="A=B",
        help="compare target A of run A with target B of run B, such as another engine of it; may be given again",
    )
    add(
        "--steady-machine",
        action="store_true",
        help="the machine is known to be as fast in both runs: a change that all targets share is theirs",
    )
    add("--all", action="store_true", dest="show_all", help="show every figure, not only what changed")
    add("--format", choices=("text", "markdown", "json"), default="text", help="of the output (default: text)")
    add("--force", action="store_true", help="compare incompatible runs too")
    parser.set_defaults(command=compare_command, exit_failed=INCOMPATIBLE)


def compare_command(arguments: argparse.Namespace) -> int:
    """Compare and print. Returns the exit code."""
    from eval.analysis import run_comparison as comparing
    from eval.analysis.comparability import (
        common_targets,
        incompatibilities,
        models_by_target,
        notices,
        possible_pairs,
    )
    from eval.progress import stderr_reporter
    from eval.report.comparison import WRITERS, Comparison
    from eval.report.wording import message
    from eval.targets.engines import engine_of, engines_differ

    thresholds = comparing.Thresholds()
    overrides = {
        "max_p95_increase": arguments.max_p95_increase,
        "max_failure_increase": arguments.max_failure_increase,
        "max_accuracy_drop": arguments.max_accuracy_drop,
        "max_cost_increase": arguments.max_cost_increase,
        "requests_per_month": arguments.requests_per_month,
    }
    thresholds = dataclasses.replace(
        thresholds, **{name: value for name, value in overrides.items() if value is not None}
    )
    reporter = stderr_reporter()
    with reporter.activity("Reading the samples of both runs"):
        (a, invalid_a), (b, invalid_b) = load_run_data(arguments.a, "A"), load_run_data(arguments.b, "B")
    pairs = check_pairs(arguments.pair, a, b)
    b = comparing.with_names_of_a(b, {name_b: name_a for name_a, name_b in pairs.items()})
    if not common_targets(a.run, b.run):
        hint = " ".join(f"--pair {name_a}={name_b}" for name_a, name_b in possible_pairs(a.run, b.run))
        raise EvalError(
            f"{a.folder} and {b.folder} have no target in common, so there is nothing to compare"
            + (f"; to compare their engines: {hint}" if hint else "")
        )
    findings = [
        *incompatibilities(a.run, b.run, models_by_target(a.samples), models_by_target(b.samples), pairs),
        *invalid_a,
        *invalid_b,
    ]
    if findings and not arguments.force:
        lines = [f"{a.folder} and {b.folder} are incompatible; --force compares them anyway:"]
        raise EvalError("\n".join([*lines, *(f"  {message(finding)}" for finding in findings)]))
    changed_by_plan = [name for name in pairs if engines_differ(*(engine_of(side.target_run(name)) for side in (a, b)))]
    with reporter.activity("Comparing"):
        differences = comparing.compare_runs(
            a, b, thresholds, changed_by_plan=changed_by_plan, steady_machine=arguments.steady_machine
        )
    comparison = Comparison(
        a,
        b,
        thresholds,
        findings,
        notices=[*notices([("A", a.run), ("B", b.run)]), *_price_notices(a, "A"), *_price_notices(b, "B")],
        machine=comparing.machine_findings(differences, changed_by_plan),
        differences=differences,
        pairs=pairs,
        show_all=arguments.show_all,
    )
    print(printable_lines(WRITERS[arguments.format](comparison)))
    return REGRESSED if comparison.regressions else NOT_REGRESSED


def check_pairs(pairs: Sequence[tuple[str, str]], a: RunData, b: RunData) -> dict[str, str]:
    """Target of run A -> that of run B, if the runs have them. Raises EvalError."""
    for side, letter, names in ((a, "A", [name for name, _ in pairs]), (b, "B", [name for _, name in pairs])):
        known = [t.name for t in side.run.targets]
        if unknown := [name for name in names if name not in known]:
            raise EvalError(f"--pair: run {letter} has no target {unknown[0]!r}; it has {join_words(known)}")
        if len(set(names)) < len(names):
            raise EvalError(f"--pair: a target of run {letter} is in two pairs; name each once")
    return dict(pairs)


def load_run_data(folder: Path, label: str) -> tuple[RunData, list[Finding]]:
    """A run with its prices, and why its figures are no comparison."""
    from eval.analysis.findings import FindingCode, invalid
    from eval.analysis.latency import max_rate
    from eval.analysis.run_comparison import RunData
    from eval.analysis.summary import analyse_run
    from eval.cost.price_list import load_price_list
    from eval.samples.store import read_run, read_samples

    run = read_run(folder)
    samples = [s for s in read_samples(folder, run) if s.phase == "measure"]
    prices = load_price_list(sha256=run.prices_sha256)
    facts = analyse_run(run, samples, prices).facts
    rates = {name: max_rate(target_report.scenarios) for name, target_report in facts.targets.items()}
    invalid_reasons = [
        invalid(FindingCode.COMPARED_RUN_INVALID, run=label, finding=finding) for finding in facts.invalid
    ]
    return RunData(str(folder), run, samples, prices, rates), invalid_reasons


def _price_notices(run_data: RunData, label: str) -> list[Finding]:
    from eval.analysis.findings import FindingCode, notice

    sha256 = run_data.run.prices_sha256
    if run_data.prices.sha256 == sha256:
        return []
    date = run_data.prices.date.isoformat()
    return [notice(FindingCode.PRICE_LIST_NOT_KEPT, run=label, sha256=sha256, date=date)]


def parse_pair(text: str) -> tuple[str, str]:
    name_a, separator, name_b = text.partition("=")
    if not (name_a and separator and name_b):
        raise argparse.ArgumentTypeError(f"{text!r} is no pair of targets; write it as heroku=heroku-onnx")
    return name_a, name_b


def parse_percent(text: str) -> float:
    return _parse_threshold(text, "%", "10%")


def parse_points(text: str) -> float:
    return _parse_threshold(text, "pp", "0.5pp")


def _parse_threshold(text: str, unit: str, example: str) -> float:
    try:
        value = float(text.removesuffix(unit)) if text.endswith(unit) else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a limit of 0 or more; write it as {example}")
    return value / 100


def _parse_request_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
