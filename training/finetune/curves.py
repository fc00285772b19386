"""Loss and accuracy by epoch, drawn again after each: early enough to stop a run that learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from training.finetune.run_folder import HEAD, Epoch

SIZE_IN = (9.0, 3.4)
TRAIN_COLOUR, VALIDATION_COLOUR, LINE_COLOUR = "#0072b2", "#d55e00", "#888888"


def draw_curves(history: Sequence[Epoch], path: Path) -> None:
    """Write both plots into one SVG file."""
    figure = Figure(SIZE_IN, layout="constrained")
    FigureCanvasSVG(figure)
    loss, accuracy = figure.subplots(1, 2)
    epochs = range(1, len(history) + 1)
    loss.plot(epochs, [each.train_loss for each in history], color=TRAIN_COLOUR, marker=".", label="training")
    loss.plot(
        epochs, [each.validation_loss for each in history], color=VALIDATION_COLOUR, marker=".", label="validation"
    )
    loss.set(xlabel="epoch", ylabel="loss (cross-entropy)")
    loss.legend(frameon=False)
    values = [100 * each.validation_accuracy for each in history]
    accuracy.plot(epochs, values, color=VALIDATION_COLOUR, marker=".")
    accuracy.set(xlabel="epoch", ylabel="validation accuracy (%)")
    frozen = sum(each.stage == HEAD for each in history)
    for axes in (loss, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if 0 < frozen < len(history):
            axes.axvline(frozen + 0.5, color=LINE_COLOUR, linestyle=":")
            axes.annotate("whole network", (frozen + 0.6, 0.98), xycoords=("data", "axes fraction"), va="top")
    figure.savefig(path, metadata={"Date": None})
