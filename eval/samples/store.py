"""The samples of a run on their way to disk, and what is there already when a run is gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from eval.errors import EvalError
from eval.samples.model import RUN_JSON, SAMPLES, SAMPLES_GZ, ImageEntry, Run, Sample, TargetRun

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
        """Append one sample. Raises EvalError when the disk does not take it."""
        with writing(self.folder):
            append_sample(self._file, sample)


def mend(folder: Path) -> int:
    """Cut off a last line that a killed run has left half written. Gives the bytes cut. Raises EvalError."""
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


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the operating system refuses (full, read-only, not ours) into a EvalError that names the folder."""
    try:
        yield
    except OSError as error:
        raise EvalError(f"cannot write into {folder}: {error.strerror}") from None


READABLE = (1, 2)  # 1 knew one scenario, and could not be resumed


def write_run(folder: Path, run: Run) -> None:
    """Write run.json in one step, so that a reader never sees half of it."""
    part = folder / (RUN_JSON + ".part")
    part.write_text(json.dumps(dataclasses.asdict(run), indent=1) + "\n")
    os.replace(part, folder / RUN_JSON)


def read_run(folder: Path) -> Run:
    """Read run.json. Raises EvalError when it is missing, broken, or of a later schema."""
    try:
        facts = json.loads((folder / RUN_JSON).read_text())
    except FileNotFoundError:
        raise EvalError(f"{folder} is not a run: it has no {RUN_JSON}") from None
    except json.JSONDecodeError as error:
        raise EvalError(f"{folder / RUN_JSON} is not JSON: {error}") from None
    schema = facts.get("schema_version")
    if schema not in READABLE:
        raise EvalError(f"{folder / RUN_JSON} has schema {schema}, this program reads {READABLE[0]} to {READABLE[-1]}")
    facts["images"] = [ImageEntry(**entry) for entry in facts["images"]]
    facts["targets"] = [TargetRun(**entry) for entry in facts["targets"]]
    return Run(**facts)


def append_sample(file: IO[str], sample: Sample) -> None:
    """Append one line and hand it to the operating system at once."""
    facts = {k: v for k, v in vars(sample).items() if v is not None and v != {}}  # asdict copies deep, and is slow
    file.write(json.dumps(facts, separators=(",", ":")) + "\n")
    file.flush()


def read_samples(folder: Path) -> Iterator[Sample]:
    """Every sample, in the order they finished; a torn last line (a killed run) is passed over."""
    plain, packed = folder / SAMPLES, folder / SAMPLES_GZ
    if not plain.exists() and not packed.exists():
        raise EvalError(f"{folder} has neither {SAMPLES} nor {SAMPLES_GZ}")
    with plain.open() if plain.exists() else gzip.open(packed, "rt") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                facts = json.loads(line)
                facts["probabilities"] = tuple(p) if (p := facts.get("probabilities")) else None
                yield Sample(**facts)
            except (ValueError, TypeError) as error:
                raise EvalError(f"{folder}: line {number} of the samples is broken: {error}") from None
