"""Reads and writes run.json and samples.jsonl, and what a resumed run has measured already."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from eval.errors import EvalError
from eval.samples.model import RUN_JSON, SAMPLES_FILE, SAMPLES_GZ_FILE, ImageEntry, Run, Sample, TargetRun

RequestKey = tuple[int, int]  # block and index in it: one request of the schedule


@dataclass(frozen=True)
class ResumeState:
    """What was measured before a run was resumed."""

    completed: frozenset[RequestKey] = frozenset()
    search_samples: dict[int, list[Sample]] = field(default_factory=dict)  # block of a search step -> its samples
    resume_count: int = 0


def build_resume_state(samples: Iterable[Sample], search_scenario: str, resume_count: int) -> ResumeState:
    """The state after these samples. Those of the rate search are kept: it needs them to continue."""
    completed: set[RequestKey] = set()
    search_samples: dict[int, list[Sample]] = {}
    for sample in samples:
        completed.add((sample.block, sample.index_in_block))
        if sample.scenario == search_scenario:
            search_samples.setdefault(sample.block, []).append(sample)
    return ResumeState(frozenset(completed), search_samples, resume_count)


class SampleWriter:
    """samples.jsonl, open for appending. Each line survives the process, whatever ends it."""

    def __init__(self, run_dir: Path, *, create: bool):
        self.run_dir = run_dir
        self._create = create

    def __enter__(self) -> Self:
        with os_errors_as_eval_error(self.run_dir):
            self._file: IO[str] = (self.run_dir / SAMPLES_FILE).open("x" if self._create else "a", encoding="utf-8")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk, which `append` has reported
            self._file.close()

    def append(self, sample: Sample) -> None:
        """Append one sample. Raises EvalError if it cannot be written."""
        with os_errors_as_eval_error(self.run_dir):
            append_sample(self._file, sample)


def truncate_torn_line(run_dir: Path) -> int:
    """Cut off a last line that a killed run left incomplete. Returns the bytes cut. Raises EvalError."""
    with os_errors_as_eval_error(run_dir):
        (run_dir / SAMPLES_FILE).touch()  # the run may have been killed before it was created
    with os_errors_as_eval_error(run_dir), (run_dir / SAMPLES_FILE).open("r+b") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        end_offset = _last_line_end(file, size_bytes)
        file.truncate(end_offset)
    return size_bytes - end_offset


def load_resume_state(run_dir: Path, search_scenario: str, resume_count: int) -> ResumeState:
    """The state of a run's samples so far."""
    return build_resume_state(read_samples(run_dir), search_scenario, resume_count)


def _last_line_end(file: IO[bytes], size_bytes: int, chunk_bytes: int = 65536) -> int:
    """The offset after the last line feed."""
    end = size_bytes
    while end > 0:
        start = max(0, end - chunk_bytes)
        file.seek(start)
        newline_index = file.read(end - start).rfind(b"\n")
        if newline_index >= 0:
            return start + newline_index + 1
        end = start
    return 0


@contextlib.contextmanager
def os_errors_as_eval_error(run_dir: Path) -> Iterator[None]:
    """Turn an OSError (disk full, read-only, no permission) into an EvalError that names the folder."""
    try:
        yield
    except OSError as error:
        raise EvalError(f"cannot write into {run_dir}: {error.strerror}") from None


READABLE_SCHEMAS = (1, 2, 3)  # 1 had one scenario only, and cannot be resumed; before 3 the keys had other names
RENAMED_SAMPLE_KEYS = {  # key before schema 3 -> now
    "place": "index_in_block",
    "image": "image_index",
    "started_s": "scheduled_s",
    "service_ms": "service_time_ms",
    "lateness_ms": "send_delay_ms",
    "label": "predicted_class",
    "server_ms": "server_timing_ms",
    "answer_bytes": "response_bytes",
    "ordinal": "instance_request_number",
    "network_ms": "connection_ms",
    "first_byte_ms": "time_to_first_byte_ms",
    "gap_s": "idle_gap_s",
}
RENAMED_RUN_KEYS = {
    "note": "incomplete_reason",
    "planned": "planned_requests",
    "spent": "cost",
    "resumed": "resumed_at",
    "machine": "client_environment",
    "images": "image_manifest",
}
RENAMED_TARGET_KEYS = {"behind": "reverse_proxy", "shipped": "artifact"}


def write_run(run_dir: Path, run: Run) -> None:
    """Write run.json atomically: a reader never sees an incomplete one."""
    temp_path = run_dir / (RUN_JSON + ".part")
    temp_path.write_text(json.dumps(dataclasses.asdict(run), indent=1) + "\n")
    os.replace(temp_path, run_dir / RUN_JSON)


def read_run(run_dir: Path) -> Run:
    """Read run.json. Raises EvalError if it is missing, invalid, or of a later schema."""
    try:
        data = json.loads((run_dir / RUN_JSON).read_text())
    except FileNotFoundError:
        raise EvalError(f"{run_dir} is not a run: it has no {RUN_JSON}") from None
    except json.JSONDecodeError as error:
        raise EvalError(f"{run_dir / RUN_JSON} is not JSON: {error}") from None
    schema_version = data.get("schema_version")
    if schema_version not in READABLE_SCHEMAS:
        raise EvalError(
            f"{run_dir / RUN_JSON} has schema {schema_version},"
            f" this program reads {READABLE_SCHEMAS[0]} to {READABLE_SCHEMAS[-1]}"
        )
    data = _with_renamed_keys(data, RENAMED_RUN_KEYS)
    data["image_manifest"] = [ImageEntry(**entry) for entry in data["image_manifest"]]
    data["targets"] = [TargetRun(**_with_renamed_keys(entry, RENAMED_TARGET_KEYS)) for entry in data["targets"]]
    return Run(**data)


def _with_renamed_keys(data: Mapping[str, Any], renamed_keys: Mapping[str, str]) -> dict[str, Any]:
    """The record with the present keys. A record of the present schema stays as it is."""
    return {renamed_keys.get(key, key): value for key, value in data.items()}


def append_sample(file: IO[str], sample: Sample) -> None:
    """Append one line and flush it to the operating system."""
    data = {k: v for k, v in vars(sample).items() if v is not None and v != {}}  # dataclasses.asdict is slow
    file.write(json.dumps(data, separators=(",", ":")) + "\n")
    file.flush()


def read_samples(run_dir: Path) -> Iterator[Sample]:
    """All samples, in the order in which they finished; an incomplete last line (of a killed run) is skipped."""
    plain_path, gzip_path = run_dir / SAMPLES_FILE, run_dir / SAMPLES_GZ_FILE
    if not plain_path.exists() and not gzip_path.exists():
        raise EvalError(f"{run_dir} has neither {SAMPLES_FILE} nor {SAMPLES_GZ_FILE}")
    with plain_path.open() if plain_path.exists() else gzip.open(gzip_path, "rt") as lines:
        for line_number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                data = _with_renamed_keys(json.loads(line), RENAMED_SAMPLE_KEYS)  # a resumed run may have both
                data["probabilities"] = tuple(p) if (p := data.get("probabilities")) else None
                yield Sample(**data)
            except (ValueError, TypeError) as error:
                raise EvalError(f"{run_dir}: line {line_number} of the samples is invalid: {error}") from None
