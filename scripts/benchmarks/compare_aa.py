"""A/A test of `./cloudtrial compare`: how often two runs of the same services, minutes apart, are called different.

Within one run: scripts/benchmarks/aa.py.

    python -m scripts.benchmarks.compare_aa                  (some minutes: simulated runs)
    python -m scripts.benchmarks.compare_aa --http 20        (an hour: pairs of runs over HTTP too)

A simulated run draws the requests of four targets in rounds, one block of 25 to each in random order, on a machine that
is the same for all of them and differs from run to run: by a factor (sd 12%), by a trend in the run (sd 6%), and by the
drift of interval_coverage.py (a factor that persists over blocks, and spells of slow requests). Each target has seven
instances one after the other, as with --restarts, or a single one, with levels of their own (sd 3%).

Over HTTP, four mock endpoints answer two runs of `./cloudtrial run`. From run to run their latencies have a common
factor and trend, and stalls come at other intervals; the rest is this machine.

Any significant difference counts as called, within its limit too: worse, better or different. For runs of the same it
has to happen in at most 1 of 20 pairs (5%): exit code 1 otherwise. Then one target is slower in the second run, and it
is counted in how many pairs its p95, or its p50, is found to be different; in how many another target is called; and in
how many the slower one is called worse, with the usual limit of 10% on p95.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.analysis.run_comparison import Difference, RunData, Thresholds, compare_runs
from eval.cost.price_list import PriceList, load_price_list
from eval.mock_server.profile import EndpointProfile
from eval.samples.model import RUN_SCHEMA_VERSION, Run, Sample, TargetRun
from eval.samples.store import read_run, read_samples
from scripts.paths import ROOT
from scripts.simulations.interval_coverage import BLOCK, DRIFT

SEED = 18
PAIRS = 20
MAX_CALLED = 0.05  # of the pairs of equal runs
RUN_SD, TREND_SD, INSTANCE_SD = 0.12, 0.06, 0.03  # of the logarithm of a factor
PROFILES = {
    "aws_ec2": EndpointProfile(median_ms=9.0, sigma=0.08, slow_share=0.004, slow_factor=1.9),
    "heroku": EndpointProfile(median_ms=12.0, sigma=0.12, slow_share=0.01, slow_factor=2.5),
    "gcp_cloudrun": EndpointProfile(median_ms=11.0, sigma=0.1),
    "gcp_function": EndpointProfile(median_ms=14.0, sigma=0.2, slow_share=0.02, slow_factor=2.0),
}
CHANGED = "heroku"
MACHINE = replace(DRIFT, profile=EndpointProfile(median_ms=1.0, sigma=0.0))
LENGTHS = ((12, 1), (12, 7), (40, 1), (40, 7), (120, 7))  # rounds, and instances of each target
SLOWER = (0.1, 0.2)
HTTP_IMAGES, HTTP_BLOCK = 100, 10


@cache
def prices() -> PriceList:
    return load_price_list()


def simulate_run(
    rng: np.random.Generator, rounds: int, instances: int, slowdown: Mapping[str, float] | None = None
) -> RunData:
    """One run. slowdown: how many times slower a target is."""
    names = list(PROFILES)
    machine = MACHINE.draw(rng, rounds * len(names) * BLOCK).reshape(rounds, len(names), BLOCK)
    machine *= np.exp(rng.normal(0, RUN_SD) + rng.normal(0, TREND_SD) * np.linspace(-1, 1, rounds))[:, None, None]
    levels = {name: np.exp(rng.normal(0, INSTANCE_SD, instances)) for name in names}
    samples = []
    for number in range(rounds):
        instance = number * instances // rounds
        for turn, place in enumerate(rng.permutation(len(names))):
            name = names[place]
            factor = levels[name][instance] * (slowdown or {}).get(name, 1.0)
            latencies_ms = PROFILES[name].draw_service_times_ms(rng, BLOCK) * machine[number, turn] * factor
            samples += [
                _sample(name, number * len(names) + turn, index, latency_ms, f"{name}-{instance}")
                for index, latency_ms in enumerate(latencies_ms.tolist())
            ]
    return RunData("simulated", _run(names), samples, prices())


def _sample(target: str, block: int, index: int, latency_ms: float, instance_id: str) -> Sample:
    return Sample(
        target,
        "single",
        "measure",
        block,
        0,
        0.0,
        round(latency_ms, 3),
        round(latency_ms, 3),
        False,
        status=200,
        server_timing_ms={"total": round(0.9 * latency_ms, 3)},
        instance_id=instance_id,
        index_in_block=index,
    )


def _run(names: Sequence[str]) -> Run:
    return Run(
        schema_version=RUN_SCHEMA_VERSION,
        id="simulated",
        started_at="2026-11-29T12:00:00+00:00",
        ended_at=None,
        complete=True,
        incomplete_reason=None,
        command=[],
        seed=0,
        scenarios=["single"],
        images_source="none",
        images_sha256="",
        image_manifest=[],
        classes=[],
        prices_sha256="",
        targets=[TargetRun(name, name, "", True, startup_ms=2500.0, cpus=1) for name in names],
        client_environment={},
        versions={},
        planned_requests=0,
    )


@dataclass(frozen=True)
class Outcome:
    """Of one pair of runs: targets of which a figure was called so."""

    called: frozenset[str]  # worse, better or different, whichever figure
    p95_different: frozenset[str]
    p50_different: frozenset[str]
    worse: frozenset[str]


def outcome(a: RunData, b: RunData) -> Outcome:
    differences = compare_runs(a, b, Thresholds())

    def targets(is_so: Callable[[Difference], bool]) -> frozenset[str]:
        return frozenset(d.target for d in differences if is_so(d))

    return Outcome(
        called=targets(lambda d: d.significant),
        p95_different=targets(lambda d: d.metric == "p95" and d.significant),
        p50_different=targets(lambda d: d.metric == "p50" and d.significant),
        worse=targets(lambda d: d.regressed),
    )


def simulate_pairs(seed: int, pairs: int, rounds: int, instances: int, slower: float) -> list[Outcome]:
    """slower: of one target in the second run, as a fraction."""
    rng = np.random.default_rng((seed, rounds, instances, round(1000 * slower)))
    return [
        outcome(simulate_run(rng, rounds, instances), simulate_run(rng, rounds, instances, {CHANGED: 1 + slower}))
        for _ in range(pairs)
    ]


def count_called(outcomes: Sequence[Outcome]) -> int:
    """Pairs in which anything was called worse, better or different."""
    return sum(bool(found.called) for found in outcomes)


def row(title: str, slower: float, outcomes: Sequence[Outcome]) -> str:
    pairs = len(outcomes)

    def of(n: int) -> str:
        return f"{n:3} of {pairs}"

    others = sum(bool(found.called - {CHANGED}) for found in outcomes)
    if not slower:
        worse = sum(bool(found.worse) for found in outcomes)
        return f"{title:34}  {'same':>8}  {of(count_called(outcomes)):>10}  {'':>10}  {'':>10}  {of(worse):>10}"
    p95, p50, worse = (
        sum(CHANGED in names for names in found)
        for found in zip(*((o.p95_different, o.p50_different, o.worse) for o in outcomes), strict=True)
    )
    return f"{title:34}  {f'+{slower:.0%}':>8}  {of(others):>10}  {of(p95):>10}  {of(p50):>10}  {of(worse):>10}"


HEADER = f"{'':34}  {'1 target':>8}  {'called':>10}  {'p95 found':>10}  {'p50 found':>10}  {'worse':>10}"


# Over HTTP


@contextlib.contextmanager
def mock_endpoints(profiles: Mapping[str, EndpointProfile], folder: Path) -> Iterator[dict[str, str]]:
    """Target -> address of its mock endpoint."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for name, profile in profiles.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps(profile.to_json()), encoding="utf-8")
            command = [sys.executable, "-m", "eval.mock_server", "--profile", str(path)]
            process = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8")
            )
            stack.callback(process.terminate)
            assert process.stdout
            urls[name] = process.stdout.readline().strip()
        yield urls


def http_run(rng: np.random.Generator, slowdown: Mapping[str, float]) -> RunData:
    """One run of mock endpoints on this machine."""
    level, trend = np.exp(rng.normal(0, RUN_SD)), rng.normal(0, 10 * TREND_SD)  # a run takes some seconds
    stall_every_s = float(rng.uniform(0.5, 2))
    profiles = {
        name: replace(
            profile,
            seed=int(rng.integers(2**31)),
            median_ms=float(profile.median_ms * level * slowdown.get(name, 1.0)),
            drift_per_minute=float(abs(trend)),
            stall_every_s=stall_every_s,
            stall_ms=20.0,
        )
        for name, profile in PROFILES.items()
    }
    with tempfile.TemporaryDirectory() as name, mock_endpoints(profiles, Path(name)) as urls:
        out = Path(name) / "run"
        targets = itertools.chain(*(("--target", f"{target}={url}") for target, url in urls.items()))
        command = [sys.executable, "-m", "eval", "run", *targets, "--images", "golden", "--limit", str(HTTP_IMAGES)]
        subprocess.run(
            [*command, "--block", str(HTTP_BLOCK), "--scenario", "single", "--out", str(out)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        run = read_run(out)
        samples = [s for s in read_samples(out, run) if s.phase == "measure"]
    return RunData("over HTTP", run, samples, prices())


def http_pairs(seed: int, pairs: int, slower: float) -> list[Outcome]:
    rng = np.random.default_rng((seed, round(1000 * slower)))
    return [outcome(http_run(rng, {}), http_run(rng, {CHANGED: 1 + slower})) for _ in range(pairs)]


def main(
    show: Callable[[str], None] = print,
    seed: int = SEED,
    pairs: int = PAIRS,
    n_http: int = 0,
    lengths: Sequence[tuple[int, int]] = LENGTHS,
    slower: Sequence[float] = SLOWER,
    map_with: Any = map,
) -> int:
    """Print the table. Returns the exit code."""
    show(f"{pairs} pairs of runs of four targets, seed {seed}")
    show(HEADER)
    rows = [(rounds, instances, change) for rounds, instances in lengths for change in (0.0, *slower)]
    too_many = False
    columns = zip(*((seed, pairs, *row) for row in rows), strict=True)
    for (rounds, instances, change), outcomes in zip(rows, map_with(simulate_pairs, *columns), strict=True):
        show(row(f"{rounds} rounds, {instances} instance{'s' * (instances > 1)}", change, outcomes))
        too_many |= not change and count_called(outcomes) > MAX_CALLED * pairs
    for change in (0.0, *slower) if n_http else ():
        outcomes = http_pairs(seed, n_http, change)
        show(row(f"HTTP, {HTTP_IMAGES // HTTP_BLOCK} rounds of {HTTP_BLOCK}", change, outcomes))
        too_many |= not change and count_called(outcomes) > MAX_CALLED * n_http
    return int(too_many)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmarks.compare_aa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"simulated pairs of each kind ({PAIRS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of all that is drawn ({SEED})")
    parser.add_argument("--http", type=int, default=0, metavar="N", help="pairs of runs over HTTP (0)")
    arguments = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        sys.exit(main(seed=arguments.seed, pairs=arguments.pairs, n_http=arguments.http, map_with=pool.map))
