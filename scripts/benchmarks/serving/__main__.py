"""This service beside the usual alternatives, in one run: make bench-serve.

python -m scripts.benchmarks.serving [--quick] [--check] [--images DIR] [--servers NAME,...] [--out DIR]
python -m scripts.benchmarks.serving --report reports/serving        write tables and plots again from serving.json

Every server is pinned to one core, the client to another. Engines alone, servers and cold starts are measured in the
same run, so that ratios hold although machines differ and drift. It writes serving.json, serving.md, throughput.svg and
latency.svg. A full run takes about 11 minutes, --quick 2. Ctrl-C keeps the measurements so far.

Exit code: 0; 1 when nothing could be measured, or with --check when a goal that must be reached is not; 2 for a
wrong command; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from eval.dataset.images import load_images
from eval.errors import ImagesError
from eval.run.environment import collect_environment
from eval.run.environment import collect_versions as client_versions
from scripts.benchmarks.serving.engine_throughput import EngineError
from scripts.benchmarks.serving.goals import evaluate_goals, missed
from scripts.benchmarks.serving.plots import write_plots
from scripts.benchmarks.serving.record import Record, RecordError, ServerInfo, read_record, write_record
from scripts.benchmarks.serving.report import SERVING_MD, goals_table, markdown, servers_table, verdict
from scripts.benchmarks.serving.run import QUICK, Benchmark, Plan
from scripts.benchmarks.serving.servers import BASELINES_PYTHON, SERVERS, Server, Workspace, versions
from scripts.paths import REPORTS_DIR

OUT, QUICK_OUT = REPORTS_DIR / "serving", REPORTS_DIR / "serving-quick"
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Measure, or report what was measured. Returns the exit code."""
    options = _parse_arguments(arguments)
    if options.report:
        try:
            record = read_record(options.report)
        except RecordError as error:
            sys.exit(f"bench-serve: {error}")
        return _report(record, options.report, check=options.check)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        sys.exit("bench-serve: needs Linux and two cores, one for the server and one for the client")
    out = options.out or (QUICK_OUT if options.quick else OUT)
    plan = QUICK if options.quick else Plan()
    plan = replace(plan, seed=options.seed, rounds=options.rounds or plan.rounds)
    servers = [SERVERS[name] for name in options.servers]
    try:
        images = load_images(options.images, options.limit, options.seed, _print)
    except ImagesError as error:
        sys.exit(f"bench-serve: {error}")
    cpus = {"server": cores[-1], "client": cores[0]}
    record = _new_record(arguments, options.quick, plan, servers, cpus, options.baselines_python)
    os.sched_setaffinity(0, {cpus["client"]})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that every process is ended
    _print(f"{len(servers)} servers on core {cpus['server']}, the client on core {cpus['client']}; "
         f"about {plan.estimate_s(len(servers)) / 60:.0f} minutes")  # fmt: skip
    started_at, interrupted = time.perf_counter(), False
    with tempfile.TemporaryDirectory(prefix="bench-serve-", ignore_cleanup_errors=True) as folder:
        workspace = Workspace(Path(folder), options.baselines_python)
        benchmark = Benchmark(
            record, plan, servers, workspace, images, cpus, lambda text, end: print(text, end=end, flush=True)
        )
        try:
            benchmark.run()
        except KeyboardInterrupt:
            interrupted = True
        except EngineError as error:
            _print(f"bench-serve: {error}")
    record.duration_s = time.perf_counter() - started_at
    _print(f"\n{'ended early' if interrupted else 'done'} after {record.duration_s / 60:.1f} minutes")
    if not record.cells:
        return INTERRUPTED if interrupted else 1
    write_record(record, out)
    code = _report(record, out, check=options.check)
    return INTERRUPTED if interrupted else code


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-serve", description="This service beside the usual alternatives.")
    parser.add_argument("--quick", action="store_true", help="one short round, as a smoke test")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal misses its must")
    parser.add_argument("--images", default="golden", help="golden (default), cifar10, or a folder of images")
    parser.add_argument("--limit", type=int, default=100, help="images, equally many of each class (default: 100)")
    parser.add_argument("--servers", type=_servers, default=list(SERVERS), help=f"some of {','.join(SERVERS)}")
    parser.add_argument("--rounds", type=_at_least_one, help="(default: 3; 1 with --quick)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the servers")
    parser.add_argument("--baselines-python", type=Path, default=BASELINES_PYTHON, help="has LitServe and BentoML")
    parser.add_argument("--out", type=Path, help="folder (default: reports/serving, or reports/serving-quick)")
    parser.add_argument("--report", type=Path, metavar="DIR", help="measure nothing: write its tables and plots again")
    return parser.parse_args(arguments)


def _servers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in SERVERS:
            raise argparse.ArgumentTypeError(f"no server is called {name!r}; there are {', '.join(SERVERS)}")
    return [name for name in SERVERS if name in names]


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds; give 1 or more")
    return int(text)


def _new_record(
    arguments: Sequence[str], quick: bool, plan: Plan, servers: list[Server], cpus: dict[str, int], python: Path
) -> Record:
    """The record of a new run."""
    client = client_versions()
    return Record(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(("python", "-m", "scripts.benchmarks.serving", *arguments)),
        quick=quick,
        machine=collect_environment(),
        cores=cpus,
        versions=versions(servers, python)
        | {name: client[name] for name in ("python", "numpy", "pillow", "git_sha") if name in client},
        images={},
        plan=asdict(plan),
        servers=[ServerInfo(s.name, s.title, s.engine, s.ours, s.description) for s in servers],
    )


def _report(record: Record, folder: Path, *, check: bool) -> int:
    """Write tables and plots, print the short ones. Returns the exit code."""
    goals = evaluate_goals(record)
    (folder / SERVING_MD).write_text(markdown(record), encoding="utf-8")
    write_plots(record, folder)
    print(f"\n{servers_table(record)}\n\n{goals_table(goals)}\n\n{verdict(record, goals)}\n\n{folder / SERVING_MD}")
    return 1 if check and missed(goals) else 0


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
