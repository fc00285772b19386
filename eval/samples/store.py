"""Reads and writes run.json and samples.jsonl, and what a resumed run has measured already."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from eval.errors import EvalError, InvalidInput
from eval.samples.model import (
    OPEN_LOOPS,
    PAUSED,
    REFERENCE,
    RUN_JSON,
    SAMPLES_FILE,
    SAMPLES_GZ_FILE,
    TIME_TO_FIRST_PREDICTION,
    Run,
    Sample,
)
from eval.validation import no_follow, open_file, parse_json, read_file, validate, validate_plain_line, write_file

RequestKey = tuple[int, int]  # block and index in it: one request of the schedule


@dataclass(frozen=True)
class ResumeState:
    """What was measured before a run was resumed."""

    completed: frozenset[RequestKey] = frozenset()
    search_samples: dict[int, list[Sample]] = field(default_factory=dict)  # block of a search step -> its samples
    resume_count: int = 0


def build_resume_state(samples: Iterable[Sample], search_scenario: str, resume_count: int) -> ResumeState:
    """The state after these samples. Those of the rate search are kept: it needs them to continue.

    Requests that only a pause of the client has answered count as not sent.
    """
    completed: set[RequestKey] = set()
    search_samples: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.phase == PAUSED:
            continue
        completed.add((sample.block, sample.index_in_block))
        if sample.scenario == search_scenario:
            search_samples.setdefault(sample.block, []).append(sample)
    return ResumeState(frozenset(completed), search_samples, resume_count)


class SampleWriter:
    """samples.jsonl, open for appending. Each line survives the process, whatever ends it."""

    def __init__(self, run_dir: Path, *, create: bool, scrub: Callable[[str], str] = str):
        """`scrub` masks secrets in each line."""
        self.run_dir = run_dir
        self._scrub = scrub
        self._create = create

    def __enter__(self) -> Self:
        with os_errors_as_eval_error(self.run_dir):
            self._file: IO[str] = open(
                self.run_dir / SAMPLES_FILE, "x" if self._create else "a", encoding="utf-8", opener=no_follow
            )
            self._lines = 0 if self._create else _count_lines(self.run_dir / SAMPLES_FILE)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # a full disk, which `append` has reported
            self._file.close()

    def append(self, sample: Sample) -> None:
        """Append one sample. Raises EvalError if it cannot be written, or not be read again."""
        if not self.room:
            raise EvalError(f"{self.run_dir / SAMPLES_FILE} has {MAX_SAMPLES:,} lines, and no more are read of a run")
        with os_errors_as_eval_error(self.run_dir):
            append_sample(self._file, sample, self._scrub)
        self._lines += 1

    @property
    def room(self) -> int:
        """How many more samples the run holds."""
        return max(0, MAX_SAMPLES - self._lines)


def truncate_torn_line(run_dir: Path) -> int:
    """Cut off a last line that a killed run left incomplete. Returns the bytes cut. Raises EvalError."""
    path = run_dir / SAMPLES_FILE
    with os_errors_as_eval_error(run_dir):
        open(path, "ab", opener=no_follow).close()  # the run may have been killed before it was created
    with os_errors_as_eval_error(run_dir), open(path, "r+b", opener=no_follow) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        end_offset = _last_line_end(file, size_bytes)
        file.truncate(end_offset)
    return size_bytes - end_offset


def _count_lines(path: Path) -> int:
    with open(path, "rb", opener=no_follow) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))


def load_resume_state(run_dir: Path, run: Run | None, search_scenario: str, resume_count: int) -> ResumeState:
    """The state of a run's samples so far."""
    return build_resume_state(read_samples(run_dir, run), search_scenario, resume_count)


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


MAX_RUN_JSON_BYTES = 32 * 2**20  # an image takes 130 bytes
MAX_SAMPLE_BYTES = 256 * 1024  # a sample has about 500; more, with thousands of classes
MAX_SAMPLES = 3_000_000
# 1 had one scenario only, and cannot be resumed; before 3 the keys had other names, before 4 some values; before 5 the
# latency of a closed loop had the client's own time between two requests in it
READABLE_SCHEMAS = (1, 2, 3, 4, 5)
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
RENAMED_SCENARIOS = {"floor": "baseline_rtt"}  # name before schema 4 -> now
RENAMED_ERRORS = {"bad_answer": "invalid_response", "not_sent": "dropped"}
RENAMED_STARTUP_KEYS = {"create": TIME_TO_FIRST_PREDICTION}
RENAMED_CONFIG_KEYS = {"floor": "baseline_rtt"}
RENAMED_RUN_KEYS = {
    "note": "incomplete_reason",
    "planned": "planned_requests",
    "spent": "cost",
    "resumed": "resumed_at",
    "machine": "client_environment",
    "images": "image_manifest",
}
RENAMED_TARGET_KEYS = {"behind": "reverse_proxy", "shipped": "artifact"}


def write_run(run_dir: Path, run: Run, scrub: Callable[[str], str] = str) -> None:
    """Write run.json atomically: a reader never sees an incomplete one. `scrub` masks secrets.

    Raises EvalError if it is larger than what is read.
    """
    text = scrub(json.dumps(dataclasses.asdict(run), indent=1)) + "\n"
    if len(text.encode()) > MAX_RUN_JSON_BYTES:
        raise EvalError(f"{run_dir / RUN_JSON} would be larger than {MAX_RUN_JSON_BYTES // 2**20} MiB: lower --limit")
    write_file(run_dir / RUN_JSON, text)


def read_run(run_dir: Path) -> Run:
    """Read run.json. Raises EvalError if it is missing, invalid, or of a later schema."""
    path = run_dir / RUN_JSON
    with _read_errors_as_eval_error(path):
        return parse_run(read_file(path, MAX_RUN_JSON_BYTES))


def parse_run(text: bytes) -> Run:
    """The record that run.json holds. Raises InvalidInput."""
    data = parse_json(text)
    schema_version = data.get("schema_version") if isinstance(data, dict) else None
    if schema_version not in READABLE_SCHEMAS:
        raise InvalidInput(
            f"schema_version is {schema_version!r}, this program reads {READABLE_SCHEMAS[0]} to {READABLE_SCHEMAS[-1]}"
        )
    data = _with_renamed_keys(data, RENAMED_RUN_KEYS)
    if isinstance(targets := data.get("targets"), list):
        data["targets"] = [_with_renamed_keys(target, RENAMED_TARGET_KEYS) for target in targets]
    if "config" in data:
        data["config"] = _with_renamed_keys(data["config"], RENAMED_CONFIG_KEYS)
    run = validate(Run, data)
    _check_run(run)
    return run


def _check_run(run: Run) -> None:
    """Raises InvalidInput if parts of the run contradict one another."""
    names = [target.name for target in run.targets]
    if len(set(names)) < len(names) or REFERENCE in names:
        raise InvalidInput(f"targets: two are called the same, or one {REFERENCE!r}")
    for index, image in enumerate(run.image_manifest):
        if image.label >= len(run.classes):
            raise InvalidInput(
                f"image_manifest.{index}.label is {image.label}, but there are {len(run.classes)} classes"
            )


def _with_renamed_keys(data: Any, renamed_keys: Mapping[str, str]) -> Any:
    """The record with the present keys. One of the present schema stays as it is, and so does what is no record."""
    return {renamed_keys.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data


def _present_sample(data: Any) -> Any:
    """The sample with the present keys and values."""
    if isinstance(data := _with_renamed_keys(data, RENAMED_SAMPLE_KEYS), dict):
        for key, renamed in (("scenario", RENAMED_SCENARIOS), ("error", RENAMED_ERRORS)):
            if isinstance(value := data.get(key), str):
                data[key] = renamed.get(value, value)
        if "startup_ms" in data:
            data["startup_ms"] = _with_renamed_keys(data["startup_ms"], RENAMED_STARTUP_KEYS)
    return data


def _without_client_time(sample: Sample) -> Sample:
    """The sample as of schema 5: in a closed loop nothing is scheduled, so latency starts with the send.

    A resumed run may have samples of both schemas.
    """
    if sample.send_delay_ms is None or sample.scenario in OPEN_LOOPS:
        return sample
    return dataclasses.replace(
        sample,
        scheduled_s=round(sample.scheduled_s + sample.send_delay_ms / 1000, 6),
        latency_ms=sample.service_time_ms,
        send_delay_ms=None,
    )


def append_sample(file: IO[str], sample: Sample, scrub: Callable[[str], str] = str) -> None:
    """Append one line and flush it to the operating system."""
    file.write(scrub(sample_json(sample)) + "\n")
    file.flush()


def sample_json(sample: Sample) -> str:
    """The line of a sample."""
    data = {k: v for k, v in vars(sample).items() if v is not None and v != {}}  # dataclasses.asdict is slow
    return json.dumps(data, separators=(",", ":"))


def read_samples(run_dir: Path, run: Run | None = None) -> Iterator[Sample]:
    """All samples, in the order in which they finished; an incomplete last line (of a killed run) is skipped.

    run: to which they have to belong. Raises EvalError.
    """
    plain_path, gzip_path = run_dir / SAMPLES_FILE, run_dir / SAMPLES_GZ_FILE
    path = plain_path if plain_path.exists() or not gzip_path.exists() else gzip_path
    target_names = {REFERENCE, *(target.name for target in run.targets)} if run else set()
    with _read_errors_as_eval_error(path), open_file(path) as file:
        lines = gzip.GzipFile(fileobj=file) if path == gzip_path else file
        for number in itertools.count(1):
            line = lines.readline(MAX_SAMPLE_BYTES)
            if not line.endswith(b"\n"):
                if len(line) == MAX_SAMPLE_BYTES:
                    raise InvalidInput(f"line {number} is longer than {MAX_SAMPLE_BYTES // 1024} KiB")
                return
            if number > MAX_SAMPLES:
                raise InvalidInput(f"it has more than {MAX_SAMPLES:,} lines")
            try:
                sample = validate_plain_line(Sample, line)
                if sample is None or sample.startup_ms or sample.scenario in RENAMED_SCENARIOS:
                    sample = validate(Sample, _present_sample(parse_json(line)))
                sample = _without_client_time(sample)
                if run:
                    _check_sample(sample, run, target_names)
            except InvalidInput as error:
                raise InvalidInput(f"line {number}: {error}") from None
            yield sample


def _check_sample(sample: Sample, run: Run, target_names: Collection[str]) -> None:
    """Raises InvalidInput if the run has no such target, image or class, or if a response took no time."""
    if sample.target not in target_names:
        raise InvalidInput(f"target is {sample.target!r}, which the run does not have")
    if sample.error is None and sample.latency_ms == 0 and sample.target != REFERENCE:
        raise InvalidInput("latency_ms is 0, of a request that succeeded")
    if sample.image_index >= len(run.image_manifest):
        raise InvalidInput(f"image_index is {sample.image_index}, but the run has {len(run.image_manifest)} images")
    class_count = len(run.classes)
    if sample.predicted_class is not None and sample.predicted_class >= class_count:
        raise InvalidInput(f"predicted_class is {sample.predicted_class}, but the run has {class_count} classes")
    if sample.probabilities is not None and len(sample.probabilities) != class_count:
        raise InvalidInput(f"probabilities are {len(sample.probabilities)}, but the run has {class_count} classes")


@contextlib.contextmanager
def _read_errors_as_eval_error(path: Path) -> Iterator[None]:
    """Turn what can be wrong with a file of a run into an EvalError that names it, and says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise EvalError(f"{path.parent} is not a run: it has no {path.name}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise EvalError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    except InvalidInput as error:
        raise EvalError(f"{path} is damaged, or no record of a run: {error}; restore it, or measure again") from None
