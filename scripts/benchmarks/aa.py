"""A/A test: one service under eight names. How many of the 28 pairs does the comparison call different?

    python -m scripts.benchmarks.aa [--images cifar10] [--limit 10000] [--out FOLDER]
    python -m scripts.benchmarks.aa FOLDER        # of a finished run

The names a1 to a8 are one plain service of this repository, measured one request at a time, in blocks in random order,
as any run is. Whatever differs between two of them is chance, so at 95% about one pair in twenty may be called
different at each percentile; pairs are not independent of each other, as they share targets.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

from eval.samples.model import Sample
from eval.samples.rounds import latencies_by_round
from eval.samples.store import read_run, read_samples
from eval.stats.comparison import Decision, quantile_ratio
from eval.stats.intervals import PERCENTILES
from infra.errors import StartError
from infra.local.health import free_ports, wait_until_ready
from infra.local.process import Process
from infra.local.running.starter import available_cores
from infra.local.start_commands import HOST
from scripts.paths import ROOT

NAMES = tuple(f"a{number}" for number in range(1, 9))
SCENARIO = "single"
START_TIMEOUT_S = 120


def count_decisions(run_dir: Path, scenario: str = SCENARIO) -> dict[str, Counter[Decision | None]]:
    """By percentile: how many pairs of targets have each decision; None stands for a run of too few rounds."""
    run = read_run(run_dir)
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in read_samples(run_dir, run):
        if sample.phase == "measure":
            samples[sample.target].append(sample)
    rounds = {target.name: latencies_by_round(samples[target.name], scenario) for target in run.targets}
    decisions: dict[str, Counter[Decision | None]] = {name: Counter() for name in PERCENTILES}
    for a, b in combinations(rounds, 2):
        for name, p in PERCENTILES.items():
            ratio = quantile_ratio(rounds[a], rounds[b], p, paired=True)
            decisions[name][ratio.decision if ratio else None] += 1
    return decisions


def table(decisions: dict[str, Counter[Decision | None]]) -> list[str]:
    lines = [f"{'':4} {'pairs':>6}" + "".join(f" {decision:>11}" for decision in Decision)]
    for name, counts in decisions.items():
        lines.append(f"{name:4} {counts.total():6}" + "".join(f" {counts[decision]:11}" for decision in Decision))
    return lines


@contextmanager
def service_url(engine: str) -> Iterator[str]:
    """The service on a free port of this machine, ready."""
    (port,) = free_ports(1)
    env = {"HOST": HOST, "PORT": str(port), "ENGINE": engine}
    with tempfile.TemporaryDirectory() as folder:
        process = Process(("python", "-m", "service.server"), env, ROOT, available_cores(), Path(folder) / "log")
        try:
            wait_until_ready(port, [process], START_TIMEOUT_S)
            yield f"http://{HOST}:{port}"
        except StartError as error:
            raise SystemExit(f"the service {error}") from None
        finally:
            process.terminate()
            process.reap()


def measure(run_dir: Path, engine: str, run_options: list[str]) -> None:
    """Run the harness on the service under every name."""
    with service_url(engine) as url:
        targets = [argument for name in NAMES for argument in ("--target", f"{name}={url}")]
        command = [sys.executable, "-m", "eval", "run", *targets, "--scenario", SCENARIO, "--out", str(run_dir)]
        subprocess.run([*command, *run_options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmarks.aa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, help="a finished run, instead of a new one")
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--images", default="cifar10", help="as in ./cloudtrial run (default: cifar10)")
    parser.add_argument("--limit", type=int, default=10_000, help="requests to each name (default: 10,000)")
    parser.add_argument("--out", type=Path, help="keep the run here (default: it is deleted)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run_dir = arguments.folder or arguments.out or Path(temporary) / "aa"
        if not arguments.folder:
            measure(run_dir, arguments.engine, ["--images", arguments.images, "--limit", str(arguments.limit)])
        for line in table(count_decisions(run_dir)):
            print(line)


if __name__ == "__main__":
    main()
