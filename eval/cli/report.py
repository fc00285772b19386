"""`./cloudtrial report RUN_DIR`: the reports of a run, or a page over several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.errors import EvalError
from eval.progress import Screen

if TYPE_CHECKING:
    from eval.dataset.images import ImageSet


def add_report(commands: Any) -> None:
    """The command and its options."""
    one = commands.add_parser("report", help="write the reports of a run again, from its samples alone, or a trend")
    one.add_argument("folder", type=Path, nargs="?", metavar="RUN_DIR", help="such as reports/latest")
    one.add_argument("--trend", type=Path, nargs="+", metavar="DIR", help="write trend.html and .json of these runs")
    one.add_argument("--out", type=Path, metavar="DIR", help="where --trend writes (default: beside the first DIR)")
    one.set_defaults(command=report)


def report(arguments: argparse.Namespace) -> int:
    """Write the reports of a run again, or one over several runs."""
    if bool(arguments.trend) == bool(arguments.folder):
        raise EvalError("report takes either one RUN_DIR or --trend DIR...")
    if arguments.trend:
        from eval.report.trend_page import write_trend

        for path in write_trend(arguments.trend, arguments.out):
            print(path)
    else:
        write_report(arguments.folder, Screen())
    return 0


def write_report(folder: Path, screen: Screen, images: ImageSet | None = None) -> None:
    """Write the reports and say where they are, and the verdict."""
    from eval.report import render  # plotting takes a second to import, and has no place beside the measuring

    picture = (lambda index: images.pictures[index].data) if images else None
    written = render.write_reports(folder, picture)
    for name in (render.REPORT_HTML, render.REPORT_MD, render.REPORT_JSON):
        screen.say(str(folder / name))
    screen.say(written["verdict"]["sentence"])
