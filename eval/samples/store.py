"""The samples of a run on their way to disk, and what is there already when a run is gone on with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from eval.run.run_dir import writing
from eval.samples.model import SAMPLES, Sample, append_sample, read_samples

Key = tuple[int, int]  # block and place: one request of the plan


@dataclass(frozen=True)
class Past:
    """What was measured before a run was gone on with."""

    keys: frozenset[Key] = frozenset()
    steps: dict[int, list[Sample]] = field(default_factory=dict)  # samples of each search step, by its block
    times: int = 0  # that it was gone on with


def past_of(samples: Iterable[Sample], step_scenario: str, times: int) -> Past:
    """What the samples say; only those of the search are kept, as it needs them to go on."""
    keys: set[Key] = set()
    steps: dict[int, list[Sample]] = {}
    for sample in samples:
        keys.add((sample.block, sample.place))
        if sample.scenario == step_scenario:
            steps.setdefault(sample.block, []).append(sample)
    return Past(frozenset(keys), steps, times)


class Journal:
    """samples.jsonl, open for appending. What is in it survives the process, whatever ends it."""

    def __init__(self, folder: Path, *, new: bool):
        self.folder = folder
        self._new = new

    def __enter__(self) -> Self:
        with writing(self.folder):
            self._file: IO[str] = (self.folder / SAMPLES).open("x" if self._new else "a", encoding="utf-8")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk; it was said when the sample was refused
            self._file.close()

    def keep(self, sample: Sample) -> None:
        """Append one sample. Raises RunError when the disk does not take it."""
        with writing(self.folder):
            append_sample(self._file, sample)


def mend(folder: Path) -> int:
    """Cut off a last line that a killed run has left half written. Gives the bytes cut. Raises RunError."""
    with writing(folder):
        (folder / SAMPLES).touch()  # a kill may have come before it was made
    with writing(folder), (folder / SAMPLES).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = _last_line_end(file, size)
        file.truncate(end)
    return size - end


def recorded(folder: Path, step_scenario: str, times: int) -> Past:
    """What a run's samples hold so far."""
    return past_of(read_samples(folder), step_scenario, times)


def _last_line_end(file: IO[bytes], size: int, chunk: int = 65536) -> int:
    """The place behind the last line feed."""
    end = size
    while end > 0:
        start = max(0, end - chunk)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
