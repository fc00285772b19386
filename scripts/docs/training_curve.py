"""Draw the training of the shipped network from the log of its run.

    python -m scripts.docs.training_curve runs/resnet18     # writes docs/training-log.txt and docs/training-curve.svg

The log is kept beside the plot, so that every figure in it can be read.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eval.report.plots.style import line_style
from eval.report.plots.svg import MUTED, SERIES_COLOURS, render_svg
from scripts.benchmarks.serving.plots import SIZE, standalone_svg
from scripts.paths import ROOT

LOG = "log.txt"  # as training/train.py names it
EPOCH = re.compile(r"\s*(\d+)\s+(\d+)\s+([\d.]+)\s+([\d.]+)%\s+([\d.]+)")
ACCURACY_STYLE, LOSS_STYLE = 0, 1


@dataclass(frozen=True)
class Epoch:
    """One line of the log."""

    number: int
    size_px: int
    loss: float  # mean over the training images
    accuracy_percent: float  # of the held-out images
    minutes: float  # since the start


def read_log(text: str) -> tuple[list[Epoch], str]:
    """The epochs and the last line, that of the test set. Raises ValueError when the run has not come to its end."""
    *lines, last = text.splitlines() or [""]
    matches = [EPOCH.fullmatch(line) for line in lines]
    if not last.startswith("test set: ") or not matches or not all(matches):
        raise ValueError(f"it does not end with the test set's line, but with {last!r}: finish the run with --resume")
    rows = [match.groups() for match in matches if match]
    return [Epoch(int(n), int(px), float(loss), float(right), float(m)) for n, px, loss, right, m in rows], last


def curve(epochs: Sequence[Epoch], test: str) -> str:
    """The SVG file: the accuracy of the held-out images and the training loss by epoch."""

    def draw(axes: Axes) -> None:
        numbers = [epoch.number for epoch in epochs]
        loss_axes = axes.twinx()
        for each, values, style, label in (
            (axes, [epoch.accuracy_percent for epoch in epochs], ACCURACY_STYLE, "right of the held-out images"),
            (loss_axes, [epoch.loss for epoch in epochs], LOSS_STYLE, "training loss"),
        ):
            each.plot(numbers, values, **line_style(style))
            each.set_ylabel(label, color=SERIES_COLOURS[style])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        loss_axes.grid(visible=False)
        for size_px, same_size in groupby(epochs, lambda epoch: epoch.size_px):
            first = next(same_size).number
            axes.axvline(first, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                f"{size_px} px", (first, 0.02), (4, 0), ("data", "axes fraction"), "offset points", color=MUTED
            )

    label = f"Accuracy of the held-out images and training loss by epoch. At the end, {test}."
    return standalone_svg(str(render_svg("training-curve", draw, label, SIZE)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the --out folder of ./cloudtrial train")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder to write into (default: docs)")
    arguments = parser.parse_args(argv)
    log = arguments.run / LOG
    try:
        text = log.read_text(encoding="utf-8")
        svg = curve(*read_log(text))
    except (OSError, ValueError) as error:
        parser.error(f"{log}: {error}")
    (arguments.out / "training-log.txt").write_text(text, encoding="utf-8")
    (arguments.out / "training-curve.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
