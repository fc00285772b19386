"""`./cloudtrial report RUN_DIR`: the reports of a run, or a trend page of several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.errors import EvalError
from eval.progress import Reporter

if TYPE_CHECKING:
    from eval.dataset.image_set import ImageSet

EXAMPLES = """
examples:
  ./cloudtrial report reports/latest
  ./cloudtrial report --trend reports/monday reports/tuesday --out reports
"""


def add_report(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report", help="write the reports of a run again, from its samples alone, or a trend", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, nargs="?", metavar="RUN_DIR", help="such as reports/latest")
    parser.add_argument("--trend", type=Path, nargs="+", metavar="DIR", help="write trend.html and .json of these runs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where --trend writes (default: beside the first DIR)")
    parser.set_defaults(command=report_command)


def report_command(arguments: argparse.Namespace) -> int:
    """Write the reports of a run again, or a trend page of several runs."""
    if bool(arguments.trend) == bool(arguments.folder):
        raise EvalError("report takes either one RUN_DIR or --trend DIR...")
    if arguments.out and not arguments.trend:
        raise EvalError("--out is where --trend writes; the reports of one run are written into its RUN_DIR")
    reporter = Reporter()
    if arguments.trend:
        with reporter.activity("Writing the trend"):
            from eval.report.trend_page import write_trend

            paths = write_trend(arguments.trend, arguments.out)
        for path in paths:
            reporter.print(str(path))
    else:
        write_run_report(arguments.folder, reporter)
    return 0


def write_run_report(run_dir: Path, reporter: Reporter, images: ImageSet | None = None) -> bool:
    """Write the reports, and print their paths and the verdict. Returns whether any request succeeded."""
    read_image = (lambda index: images.images[index].data) if images else None
    with reporter.activity("Writing the reports"):
        from eval.report import render  # takes a second to import, which must not happen during the measurement
        from eval.report.terminal import terminal_table

        summary = render.write_reports(run_dir, read_image)
    for line in terminal_table(summary):
        reporter.print(line)
    reporter.print(summary["verdict"]["answer"])
    reporter.print(summary["verdict"]["condition"])
    reporter.print((run_dir / render.REPORT_HTML).resolve().as_uri())
    return any(target["succeeded"] for target in summary["targets"].values())
