"""What a report costs as a run grows: processor time, memory, and the sizes of its files.

    python -m scripts.benchmarks.report_size     # 10k, 100k, 1M samples of 8 targets; 4, 20, 100 targets x 1,000 images
    python -m scripts.benchmarks.report_size --samples 10000 --targets 4   # one of them
    python -m scripts.benchmarks.report_size --svg docs/report-size.svg    # and the plot

Each run is made up: as many samples as asked, half of them single requests and half of a Poisson stream, of targets
with the wire format's own figures; four in five targets answer alike, the others differ in one image of 50. It lies in
a folder that is removed again. `python -m eval report` then runs in a process of its own, of which the system says what
processor time and memory it took.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from eval.cost.price_list import load_price_list
from eval.plan.config import POISSON, SINGLE, Config
from eval.report.plots.style import MARKERS, add_legend, line_style
from eval.report.plots.svg import render_svg
from eval.samples.model import RUN_SCHEMA_VERSION, SAMPLES_FILE, ImageEntry, Run, TargetRun
from eval.samples.store import write_run
from infra.targets import TARGETS
from scripts.benchmarks.serving.plots import SIZE, standalone_svg
from scripts.paths import ROOT

CLASSES = [f"class-{number}" for number in range(10)]
SIZES = ((10_000, 8), (100_000, 8), (1_000_000, 8), (8_000, 4), (40_000, 20), (200_000, 100))  # samples and targets
MAX_IMAGES = 10_000
BLOCK = 25  # requests to one target, then to the next
OTHER_ANSWERS_EVERY, OTHER_LABEL_EVERY = 5, 50


@dataclass(frozen=True)
class ReportCost:
    """What one report took."""

    samples: int
    targets: int
    cpu_s: float  # user and system
    memory_mib: float  # peak resident set
    html_mb: float
    json_mb: float


def write_synthetic_run(folder: Path, samples: int, targets: int, seed: int = 0) -> None:
    """Write run.json and samples.jsonl of a run that nobody measured."""
    images = max(1, min(MAX_IMAGES, samples // targets // 2))
    names = [f"target-{number:03}" for number in range(targets)]
    write_run(folder, _run(names, samples, images))
    with (folder / SAMPLES_FILE).open("w", encoding="ascii") as file:
        file.writelines(_lines(names, samples, images, np.random.default_rng(seed)))


def _run(names: Sequence[str], samples: int, images: int) -> Run:
    priced = list(TARGETS)
    config = dataclasses.asdict(Config())
    return Run(
        schema_version=RUN_SCHEMA_VERSION,
        id="synthetic",
        started_at="2026-11-29T10:00:00+00:00",
        ended_at="2026-11-29T11:00:00+00:00",
        complete=True,
        incomplete_reason=None,
        command=["./cloudtrial", "run"],
        seed=0,
        scenarios=[SINGLE, POISSON],
        images_source="made up",
        images_sha256="0" * 64,
        image_manifest=[ImageEntry(f"{n:05}.png", f"{n:064x}", n % len(CLASSES)) for n in range(images)],
        classes=CLASSES,
        prices_sha256=load_price_list().sha256,
        targets=[
            TargetRun(name, priced[n % len(priced)], f"https://{name}.example", twin=False)
            for n, name in enumerate(names)
        ],
        client_environment={"cores": 2, "cpu_model": "made up"},
        versions={},
        planned_requests=samples,
        config={key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
    )


def _answers(images: int, rng: np.random.Generator) -> list[list[str]]:
    """Of the common model and of another: for each image the class and the probabilities, as JSON."""
    models = []
    labels = np.where(rng.random(images) < 0.93, np.arange(images) % len(CLASSES), rng.integers(len(CLASSES)))
    for labels_of_model in (labels, np.where(np.arange(images) % OTHER_LABEL_EVERY, labels, (labels + 1) % 10)):
        probabilities = rng.random((images, len(CLASSES))) * 0.05
        probabilities[np.arange(images), labels_of_model] = 0.0
        probabilities[np.arange(images), labels_of_model] = 1 - probabilities.sum(axis=1)
        models.append(
            [
                f'"predicted_class":{label},"probabilities":{json.dumps(row, separators=(",", ":"))}'
                for label, row in zip(labels_of_model.tolist(), probabilities.round(6).tolist(), strict=True)
            ]
        )
    return models


def _lines(names: Sequence[str], samples: int, images: int, rng: np.random.Generator) -> Iterator[str]:
    """One line for each sample, the targets in turn, block by block."""
    answers = _answers(images, rng)
    per_target = samples // len(names)
    for block in range(-(-per_target // BLOCK)):
        start, n = block * BLOCK, min(BLOCK, per_target - block * BLOCK)
        scenario = SINGLE if start < per_target / 2 else POISSON
        for number, name in enumerate(names):
            block_number = block * len(names) + number
            answers_of = answers[number % OTHER_ANSWERS_EVERY == OTHER_ANSWERS_EVERY - 1]
            server_ms = rng.lognormal(2.5, 0.3, n).round(3).tolist()
            for index, (total_ms, send_delay_ms) in enumerate(zip(server_ms, rng.random(n).tolist(), strict=True)):
                image = (start + index) % images
                service_ms = total_ms + 9
                late = f'"send_delay_ms":{send_delay_ms:.3f},"rate_rps":20.0,' if scenario == POISSON else ""
                latency_ms = service_ms + send_delay_ms if late else service_ms
                yield (
                    f'{{"target":"{name}","scenario":"{scenario}","phase":"measure","block":{block_number},'
                    f'"image_index":{image},"scheduled_s":{block_number + index / BLOCK:.6f},'
                    f'"latency_ms":{latency_ms:.3f},"service_time_ms":{service_ms:.3f},"new_connection":false,{late}'
                    f'"status":200,{answers_of[image]},"server_timing_ms":{{"decode":1.25,"queue":0.031,'
                    f'"inference":{total_ms - 2:.3f},"total":{total_ms:.3f}}},"response_bytes":481,'
                    f'"instance_id":"{number:012x}","instance_request_number":{start + index + 1},'
                    f'"model_version":"5a5d90e278dc","index_in_block":{index},'
                    f'"time_to_first_byte_ms":{service_ms - 0.1:.3f}}}\n'
                )


def measure(samples: int, targets: int) -> ReportCost:
    """Make a run up, and report it in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="cloudtrial-size-") as name:
        folder = Path(name)
        write_synthetic_run(folder, samples, targets)
        process = subprocess.Popen(
            [sys.executable, "-m", "eval", "report", str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"report of {samples:,} samples failed with {process.returncode}")
        html_mb, json_mb = ((folder / f"report.{kind}").stat().st_size / 1e6 for kind in ("html", "json"))
    return ReportCost(samples, targets, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, html_mb, json_mb)


def growth_plot(costs: Sequence[ReportCost]) -> str:
    """Processor time and memory over the samples of a run, both axes logarithmic; a line for each way of growing."""
    series = {
        "more samples": [cost for cost in costs if cost.targets == SIZES[0][1]],
        "more targets": [cost for cost in costs if cost.targets != SIZES[0][1]],
    }

    def draw(axes: Axes) -> None:
        lines = itertools.product((("CPU-s", "cpu_s"), ("peak memory, MiB", "memory_mib")), series.items())
        for number, ((title, figure), (growth, grown)) in enumerate(lines):
            values = [getattr(cost, figure) for cost in grown]
            samples = [cost.samples for cost in grown]
            axes.plot(samples, values, label=f"{title}, {growth}", marker=MARKERS[number], **line_style(number))
            for cost, value in zip(grown, values, strict=True):
                text, below = f"{value:.0f} ({cost.targets} targets)", growth == "more targets"
                offset = (0, -14 if below else 7)
                axes.annotate(text, (cost.samples, value), offset, textcoords="offset points", ha="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(x=0.12, y=0.15)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("samples of the run")
        add_legend(axes, columns=2)

    label = "Processor time and peak memory of a report over the samples of its run."
    return standalone_svg(str(render_svg("report-size", draw, label, SIZE)))


def main() -> None:
    """Measure each size, and print a line for it as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, help="of one run (default: a series of runs)")
    parser.add_argument("--targets", type=int, default=8, help="of that run (default: %(default)s)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the figures here")
    arguments = parser.parse_args()
    sizes = ((arguments.samples, arguments.targets),) if arguments.samples else SIZES
    print("| samples | targets | CPU-s | peak memory (MiB) | report.html (MB) | report.json (MB) |")
    print("|---:|---:|---:|---:|---:|---:|")
    costs = []
    for samples, targets in sizes:
        costs.append(cost := measure(samples, targets))
        print(
            f"| {cost.samples:,} | {cost.targets} | {cost.cpu_s:.1f} | {cost.memory_mib:.0f} | {cost.html_mb:.2f} |"
            f" {cost.json_mb:.2f} |",
            flush=True,
        )
    if arguments.svg:
        arguments.svg.write_text(growth_plot(costs), encoding="utf-8")


if __name__ == "__main__":
    main()
