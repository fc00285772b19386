"""Another machine that sends, as a process here: a worker behind a link of pipes, with faults that a test chooses.

In place of `ssh HOST ... python -m eval.load.workers`. The link is a process of its own: stopped, it is a link that was
cut without a word; ended, it is one whose other side has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from eval.load.nodes.destinations import Node


def fake_node(name: str, *options: str) -> dict[Node, list[str]]:
    """The machine, and what starts a worker on it. options: of the parser below."""
    return {Node(name): [sys.executable, __file__, *options]}


class RunsCode:
    """What would make a file if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def link(delay_s: float) -> int:
    """Start a worker of the same options, and pass on what it and the run say, each so long afterwards."""
    command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin and worker.stdout

    def pass_on(source: int, sink: IO[bytes]) -> None:
        with contextlib.suppress(OSError), sink:
            while data := os.read(source, 65536):
                time.sleep(delay_s)
                sink.write(data)
                sink.flush()

    threading.Thread(target=pass_on, args=(0, worker.stdin), daemon=True).start()
    pass_on(worker.stdout.fileno(), os.fdopen(os.dup(1), "wb"))
    return worker.wait()


def worker(options: argparse.Namespace) -> int | str | None:
    """The real worker with its faults."""
    if options.pickle:
        os.write(1, pickle.dumps(RunsCode(options.pickle)) + b"\n")
        return 0
    read_clock = time.perf_counter
    time.perf_counter = lambda: read_clock() + options.clock_ahead_s

    from eval.event_loop import run_with_exact_timers
    from eval.load.workers import handshake, messages
    from eval.load.workers.worker import Worker, serve
    from eval.samples.model import Sample

    if options.code:
        handshake.code_sha256 = lambda: options.code
    if options.aiohttp:
        own_versions = handshake.versions
        handshake.versions = lambda: own_versions() | {"aiohttp": options.aiohttp}
    if options.cores:
        handshake.usable_cpus = lambda: options.cores
    say = Worker._say

    def say_with_faults(self: Worker, message: object) -> None:
        if options.prints:
            print("a library is deprecated")
        say(self, message)
        if options.twice and isinstance(message, Sample):
            say(self, message)
        if options.invents and isinstance(message, messages.Planned):
            self._writer.write(options.invents.encode() + b"\n")

    Worker._say = say_with_faults
    return run_with_exact_timers(serve(is_local=False))


def main() -> int | str | None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", action="store_true", help="be the worker, not the link to it")
    parser.add_argument("--delay-s", type=float, default=0.0, help="of the link, each way")
    parser.add_argument("--clock-ahead-s", type=float, default=0.0)
    parser.add_argument("--code", help="sha256 that it tells of its code")
    parser.add_argument("--aiohttp", help="version that it tells")
    parser.add_argument("--cores", type=int)
    parser.add_argument("--prints", action="store_true", help="print beside each message")
    parser.add_argument("--twice", action="store_true", help="say every sample twice")
    parser.add_argument("--invents", help="a line that it says before it sends")
    parser.add_argument("--pickle", type=Path, help="say nothing but a pickle that would make this folder")
    options = parser.parse_args()
    return worker(options) if options.worker else link(options.delay_s)


if __name__ == "__main__":
    sys.exit(main())
