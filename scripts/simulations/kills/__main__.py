"""Runs that are killed at any moment, and resumed: is every planned request sent once, or marked missing and repeated?

A run of `./cloudtrial run` sends an open loop to the mock endpoint, from one process and from two workers by turns. It
is killed at a random moment, half of them between its start and its end, the others while it sends, and resumed. Each
request has an image of its own, by which the endpoint counts it. Of the kinds, `worker` and `run` are SIGKILL to a
worker or to the run, `node` is SIGKILL to one of two machines that send (each an sshd of this one, with all that it
started), and the others are signals to the run.

    python -m scripts.simulations.kills                          every kind at 50 moments: an hour
    python -m scripts.simulations.kills --kind SIGTERM --moments 4 --at-once 1

A request is marked missing when samples.jsonl has no line that counts for it once the killed run has ended: `--resume`
sends these, and no other. `unanswered` of them had reached the endpoint, which nobody at the client can know. `twice`
counts requests that were sent again without that mark, `never` those without an arrival or an answer in the end. Both
have to be 0; else the exit code is 1, and the folders of these runs are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

from eval.interruption import Interruptions
from scripts.simulations.kills.moment import (
    FELL,
    KINDS,
    NODE,
    WORKER,
    Moment,
    Outcome,
    Senders,
    Spans,
    find_sshd,
    killed_and_resumed,
    undisturbed,
)
from scripts.simulations.kills.request_counts import RequestCounts

HEADER = (
    "| killed | moments (before, while, after sending) | planned | arrived | answered and kept | missing | unanswered |"
    " repeated | twice | never | ended after |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def moments(kind: str, count: int, seed: int) -> list[Moment]:
    """One in each `count`-th of the time, at random; by turns from one process and two workers, and while it sends."""
    chance = random.Random(f"{kind}:{seed}")
    return [
        Moment(
            kind,
            2 if kind in (WORKER, NODE) else 1 + number % 2,
            number // 2 % 2 == 1,
            (number + chance.random()) / count,
        )
        for number in range(count)
    ]


def row(kind: str, outcomes: Sequence[Outcome]) -> str:
    """The line of one kind."""
    killed = [each for each in outcomes if each.killed]
    total = reduce(add, (each.counts for each in killed), RequestCounts())
    fell = ", ".join(str(sum(each.fell == name for each in killed)) for name in FELL)
    counts = (
        total.planned, total.arrived, total.kept, total.missing, total.unanswered, total.repeated, total.twice,
        total.never,
    )  # fmt: skip
    longest_s = max((each.ended_after_s for each in killed), default=0.0)
    return f"| {kind} | {len(killed)} ({fell}) | {' | '.join(f'{n:,}' for n in counts)} | {longest_s:.1f} s |"


def is_wrong(outcome: Outcome) -> bool:
    return bool(outcome.problem or outcome.counts.twice or outcome.counts.never)


class Simulation:
    """Runs moments, some at the same time."""

    def __init__(self, folder: Path, at_once: int):
        self.folder = folder
        self.outcomes: dict[str, list[Outcome]] = {}
        self._at_once = at_once
        self._lanes = asyncio.Semaphore(at_once)
        self._spans: dict[Senders, Spans] = {}

    async def run(self, chosen: Sequence[Moment]) -> None:
        """Run them in any order."""
        for number, senders in enumerate(dict.fromkeys(moment.senders for moment in chosen)):
            self._spans[senders] = await self._undisturbed(senders, number)
        async with asyncio.TaskGroup() as group:
            for number, moment in enumerate(chosen):
                group.create_task(self._run_one(moment, self.folder / f"{number}-{moment.kind}"))

    async def _undisturbed(self, senders: Senders, number: int) -> Spans:
        """The times of runs that share the machine as the others will."""
        folders = [self.folder / f"undisturbed-{number}-{lane}" for lane in range(self._at_once)]
        for folder in folders:
            folder.mkdir()
        found = await asyncio.gather(*(undisturbed(folder, senders) for folder in folders))
        return Spans(max(each.run_s for each in found), max(each.workers_s for each in found))

    async def _run_one(self, moment: Moment, folder: Path) -> None:
        async with self._lanes:
            folder.mkdir()
            outcome = await killed_and_resumed(moment, self._spans[moment.senders], folder)
        self.outcomes.setdefault(moment.kind, []).append(outcome)
        text = f"{moment.kind} at {moment.fraction:.1%}, {moment.workers} sending: {outcome.fell}"
        if is_wrong(outcome):
            text += f"; {outcome.problem or outcome.counts}: {folder}"
        else:
            shutil.rmtree(folder)
        done = sum(map(len, self.outcomes.values()))
        print(f"... {done}: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each kind; after Ctrl-C, of the moments until then. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", action="append", choices=KINDS, help="may be given again (default: all)")
    parser.add_argument("--moments", type=int, default=50, help="of each kind (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time (default: 2)")
    options = parser.parse_args(argv)
    kinds = options.kind or KINDS
    if NODE in kinds:
        try:
            find_sshd()
        except FileNotFoundError as error:
            sys.exit(f"kills: {error}")
    chosen = [moment for kind in kinds for moment in moments(kind, options.moments, options.seed)]
    random.Random(options.seed).shuffle(chosen)  # so that those until Ctrl-C are of all kinds, and of all parts
    folder, code = Path(tempfile.mkdtemp(prefix="kills-")), 0
    simulation = Simulation(folder, options.at_once)
    try:
        Interruptions().run(simulation.run(chosen))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("kills: stopped", file=sys.stderr)
        code = 130
    print(HEADER)
    print(*(row(kind, found) for kind, found in simulation.outcomes.items()), sep="\n")
    if any(is_wrong(each) for found in simulation.outcomes.values() for each in found):
        return 1
    shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
