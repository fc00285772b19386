"""What a store is asked for, in processes that are killed (SIGKILL) at a line of store/ that a test names.

Every line that runs there is a moment: between two files, between two steps of writing one, between the version's files
and the alias's record. A process of its own forks those that die, because the test's own may have threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from store.model_store import ModelStore
from tests.conftest import ROOT

SOURCE = str(ROOT / "store")
Run = Callable[..., Any]  # of a line, or None for a whole run, an operation and its words


def push(url: str, folder: str) -> None:
    ModelStore.open(url).push(Path(folder))


def alias(url: str, version: str) -> None:
    ModelStore.open(url).move_alias("tiny", "prod", version, reason="for a test")


def pull(url: str, reference: str, folder: str) -> None:
    ModelStore.open(url).pull(reference, Path(folder))


def follow(url: str, reference: str, folder: str) -> None:
    ModelStore.open(url).follow(reference, Path(folder), keep=1)


class _Lines:
    """Counts the lines that run, and kills the process at one."""

    def __init__(self, last: int | None):
        self.count, self.last = 0, last

    def __call__(self, frame: FrameType, event: str, _: object) -> _Lines | None:
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def run_in_a_fork(last: int | None, operation: Callable[..., None], words: list[str]) -> int:
    """The lines that ran, or 0 where the process was killed before the end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        lines = _Lines(last)
        sys.settrace(lines)
        try:
            operation(*words)
            os.write(writer, str(lines.count).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if not said and not os.WIFSIGNALED(status):
        raise SystemExit(f"{operation.__name__} failed by itself")
    return int(said or 0)


@contextmanager
def killing() -> Iterator[Run]:
    """`run(17, "push", url, folder)` gives the lines that ran, or 0 where the process was killed at the 17th."""
    command = [sys.executable, "-m", "tests.helpers.killed_store"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout

        def run(last: int | None, operation: str, *words: object) -> int:
            process.stdin.write(json.dumps([last, operation, *map(str, words)]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()
    assert process.returncode == 0


def main() -> None:
    operations = {each.__name__: each for each in (push, alias, pull, follow)}
    for line in sys.stdin:
        last, operation, *words = json.loads(line)
        print(run_in_a_fork(last, operations[operation], words), flush=True)


if __name__ == "__main__":
    main()
