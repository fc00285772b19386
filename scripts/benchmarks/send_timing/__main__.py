"""How exactly load generators keep a constant rate: our open loop beside k6 and wrk2, in turn, on the same machine.

A null server on one core notes when each request came, by the kernel's clock; the senders have another core, in turn.
Each posts the same image over HTTP with keep-alive. The figures are deviations from the regular schedule that fits the
arrivals best, in milliseconds, without the first and the last second; of ours also what a run would record as
send_delay_ms. Each is the median of its rounds; the maximum is that of all. k6 and wrk2 are found on PATH.

    python -m scripts.benchmarks.send_timing
    python -m scripts.benchmarks.send_timing --rate 100 --duration 60 --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eval.samples.processors import parse_processor
from scripts.benchmarks.http_messages import HOST
from scripts.benchmarks.send_timing.deviation import EDGE_S, Timing, timing_of, without_edges
from scripts.benchmarks.send_timing.senders import Sender, all_senders
from scripts.paths import ROOT
from service.system import processor

RATES_RPS = [100.0, 1000.0]
SPARE_S = 30.0  # beyond its duration, until a sender is given up
HEADER = (
    "| requests/s | sender | arrived | left out | p50 | p90 | p99 | max | recorded p50 | recorded p99 |\n"
    "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)


class SenderFailed(Exception):
    """A sender did not send, with what it said."""


@dataclass(frozen=True)
class Round:
    """What one sender did at one rate."""

    sender: str
    rate_rps: float
    timing: Timing
    by_kernel: bool  # whether the kernel told when requests came
    recorded_ms: tuple[float, float] | None = None  # p50 and p99 of the send delay, as ours records it


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """A process started meanwhile has this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(sender: Sender, rate_rps: float, duration_s: float, server_core: int, sender_core: int) -> Round:
    """One round of one sender. Raises SenderFailed."""
    whole_s = duration_s + 2 * EDGE_S
    command = [sys.executable, "-m", "scripts.benchmarks.send_timing.server", str(server_core)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
        assert server.stdout and sender.program
        try:
            url = f"http://{HOST}:{server.stdout.readline().strip()}/predict"
            with pinned(sender_core):
                said = subprocess.run(
                    [sender.program, *sender.arguments(url, rate_rps, whole_s)], cwd=ROOT, capture_output=True,
                    text=True, encoding="utf-8", check=False, timeout=whole_s + SPARE_S,
                    env=os.environ | sender.environment,
                )  # fmt: skip
        finally:
            server.terminate()
        noted = json.loads(server.stdout.read())
    if said.returncode:
        last_lines = (said.stdout + said.stderr).strip().splitlines()[-1:]
        raise SenderFailed(f"{sender.name} ended with exit code {said.returncode}: {' '.join(last_lines)}")
    timing = timing_of(noted["arrivals_ns"], rate_rps)
    recorded_ms = None
    if sender.program == sys.executable:
        p50_ms, p99_ms = np.quantile(without_edges(json.loads(said.stdout), rate_rps), [0.5, 0.99]).tolist()
        recorded_ms = p50_ms, p99_ms
    return Round(sender.name, rate_rps, timing, noted["by_kernel"], recorded_ms)


def rows(rounds: Sequence[Round]) -> list[str]:
    """A row for each rate and sender."""
    found = []
    for rate_rps, sender in dict.fromkeys((each.rate_rps, each.sender) for each in rounds):
        own = [each for each in rounds if (each.rate_rps, each.sender) == (rate_rps, sender)]
        timings = [each.timing for each in own]
        middle = [statistics.median(getattr(each, name) for each in timings) for name in ("p50_ms", "p90_ms", "p99_ms")]
        recorded = [each.recorded_ms for each in own if each.recorded_ms]
        late = [f"{statistics.median(values):.3f}" for values in zip(*recorded, strict=True)] or ["", ""]
        figures = [*(f"{value:.3f}" for value in middle), f"{max(each.max_ms for each in timings):.3f}", *late]
        counts = [f"{sum(each.arrived for each in timings):,}", f"{sum(each.left_out for each in timings):,}"]
        found.append(f"| {rate_rps:g} | {' | '.join([sender, *counts, *figures])} |")
    return found


def describe_machine(server_core: int, sender_core: int, senders: Sequence[Sender]) -> list[str]:
    """Where this is measured, and with what."""
    cores = f"server on core {server_core}, senders on core {sender_core}"
    if server_core == sender_core:
        cores += ": one core for both, which delays the senders"
    return [
        f"{parse_processor(processor())}, {os.cpu_count()} cores: {cores}",
        *(sender.version() if sender.program else f"{sender.name} is not installed: {sender.install}"
          for sender in senders),
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in rounds, and print the table; after Ctrl-C, of what was measured until then."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmarks.send_timing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=float, action="append", help="requests a second (default: 100, then 1000)")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of each (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each sender (default: 3)")
    options = parser.parse_args(argv)
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("send_timing: needs Linux, to give server and sender a core each")
    cores, senders = sorted(os.sched_getaffinity(0)), all_senders()
    print(*describe_machine(cores[0], cores[-1], senders), sep="\n", flush=True)
    installed, rounds, code = [sender for sender in senders if sender.program], list[Round](), 0
    try:
        for number, rate_rps, sender in itertools.product(range(options.rounds), options.rate or RATES_RPS, installed):
            print(f"... round {number + 1}, {rate_rps:g}/s, {sender.name}", file=sys.stderr, flush=True)
            rounds.append(measure(sender, rate_rps, options.duration, cores[0], cores[-1]))
    except KeyboardInterrupt:
        print("send_timing: stopped", file=sys.stderr)
        code = 130
    except (SenderFailed, subprocess.TimeoutExpired, ValueError) as error:
        print(f"send_timing: {error}", file=sys.stderr)
        code = 1
    if rounds:
        clock = "the kernel's clock" if all(each.by_kernel for each in rounds) else "the server's clock, at its read"
        print(f"Milliseconds, by {clock}; {options.rounds} rounds of {options.duration:g} s each\n\n{HEADER}")
        print(*rows(rounds), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
