"""`./cloudtrial samples DIR`: the samples behind a report's figures, one per line.

The lines go to standard output; their number and the percentiles of their times to standard error. The percentiles
are computed as in the report: of successful requests, without the first ones after a pause, by the nearest rank.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.errors import EvalError
from eval.formatting import count, ms, plural
from eval.samples.model import ERROR_KINDS, PHASES, Run, Sample
from eval.samples.store import RENAMED_SAMPLE_KEYS, read_run, read_samples

DEFAULT_COLUMNS = (
    "target",
    "scenario",
    "block",
    "index_in_block",
    "image_name",
    "true_class",
    "predicted_class",
    "error",
    "latency_ms",
    "service_time_ms",
    "send_delay_ms",
)
DERIVED_COLUMNS: Mapping[str, Callable[[Run, Sample], Any]] = {  # beside the fields of a sample
    "image_name": lambda run, s: run.image_manifest[s.image_index].name if s.image_index >= 0 else None,
    "true_class": lambda run, s: run.image_manifest[s.image_index].label if s.image_index >= 0 else None,
}
SAMPLE_FIELDS = tuple(field.name for field in dataclasses.fields(Sample))
MAPPING_FIELDS = ("server_timing_ms", "connection_ms", "startup_ms")  # fields with named parts
RENAMED_COLUMNS = {**RENAMED_SAMPLE_KEYS, "picture": "image_name", "truth": "true_class"}
TAB, NO_VALUE = "\t", "-"
FORMULA_START = ("=", "+", "-", "@")  # of text that a spreadsheet would compute, were there no apostrophe before it
EXAMPLES = """
examples:
  ./cloudtrial samples reports/latest --target heroku --scenario poisson
  ./cloudtrial samples reports/latest --error any --columns target,scenario,detail
  ./cloudtrial samples reports/latest --image 12 --columns target,probabilities
  ./cloudtrial samples reports/latest --scenario cold --columns target,startup_ms.time_to_first_prediction

columns: the fields of samples.jsonl, image_name and true_class, and parts of
server_timing_ms, connection_ms and startup_ms, such as server_timing_ms.total.
The columns' names of earlier versions work too.
"""


@dataclasses.dataclass(frozen=True)
class SampleFilter:
    """Criteria for samples; None: any value."""

    target: str | None = None
    scenario: str | None = None
    phase: str | None = None
    error: str | None = None  # a kind, "any" or "none"
    image_index: int | None = None

    def matches(self, sample: Sample) -> bool:
        """Whether the sample meets all criteria."""
        filter_fields = ("target", "scenario", "phase", "image_index")
        if any(getattr(self, name) not in (None, getattr(sample, name)) for name in filter_fields):
            return False
        return {None: True, "any": sample.error is not None, "none": sample.error is None}.get(
            self.error, sample.error == self.error
        )


def add_samples(commands: Any) -> None:
    """Add the subcommand to the parser of `./cloudtrial`."""
    parser = commands.add_parser(
        "samples",
        help="print the samples behind a report's figures",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Callable[..., Any] = parser.add_argument
    add("folder", type=Path, metavar="RUN_DIR", help="such as reports/latest")
    add("--target", metavar="NAME", help="only this target")
    add("--scenario", metavar="NAME", help="only this scenario")
    add(
        "--phase",
        choices=(*PHASES, "all"),
        default="measure",
        help="default: measure; paused: while the client stood still",
    )
    add("--error", metavar="KIND", help=f"any, none, or one of {', '.join(ERROR_KINDS)}")
    add("--image", type=int, metavar="N", help="only this image, by its index in run.json")
    add("--columns", type=_parse_columns, default=DEFAULT_COLUMNS, metavar="A,B", help="see below")
    add("--json", action="store_true", help="whole samples, one JSON object a line")
    parser.set_defaults(command=samples_command)


def _parse_columns(text: str) -> tuple[str, ...]:
    """Column names, separated by commas. Earlier names stand for the present ones."""
    columns = [column.partition(".") for column in text.split(",")]
    return tuple(RENAMED_COLUMNS.get(name, name) + dot + part for name, dot, part in columns)


def samples_command(arguments: argparse.Namespace) -> int:
    """Print the selected samples. Returns the exit code."""
    run = read_run(arguments.folder)
    sample_filter = SampleFilter(
        arguments.target,
        arguments.scenario,
        None if arguments.phase == "all" else arguments.phase,
        arguments.error,
        arguments.image,
    )
    _check_arguments(run, sample_filter, arguments.columns)
    matching = [sample for sample in read_samples(arguments.folder, run) if sample_filter.matches(sample)]
    try:
        for line in json_lines(matching) if arguments.json else tab_lines(run, matching, arguments.columns):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for line in summary_lines(matching, arguments.columns):
        print(line, file=sys.stderr)
    return 0


def tab_lines(run: Run, samples: Iterable[Sample], columns: Sequence[str]) -> Iterator[str]:
    """The names of the columns, then a line for each sample; "-" for no value."""
    yield TAB.join(columns)
    for sample in samples:
        yield TAB.join(_format_cell(column_value(run, sample, column)) for column in columns)


def json_lines(samples: Iterable[Sample]) -> Iterator[str]:
    """Samples as in samples.jsonl."""
    for sample in samples:
        fields = {name: value for name, value in vars(sample).items() if value is not None and value != {}}
        yield json.dumps(fields, separators=(",", ":"))


def summary_lines(samples: Sequence[Sample], columns: Sequence[str]) -> Iterator[str]:
    """The number of samples and the percentiles of their times, per target and scenario."""
    from eval.samples.rounds import split_after_pause
    from eval.stats.intervals import PERCENTILES  # scipy takes a second to import, which --help should not wait for

    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.target, sample.scenario].append(sample)
    for (target, scenario), group in groups.items():
        failed = sum(s.error is not None for s in group)
        _, timed = split_after_pause(group)
        yield f"{target}, {scenario}: {plural(len(group), 'sample')}, {count(failed)} failed"
        for column in (c for c in columns if c.split(".")[0].endswith("_ms")):
            # the send delay is the client's own, so that of failed requests counts too
            values = [_numeric_value(s, column) for s in timed if s.error is None or column == "send_delay_ms"]
            known = [value for value in values if value is not None]
            if known:
                yield f"  {column}: " + ", ".join(
                    f"{name} {_format_percentile(known, p)}" for name, p in PERCENTILES.items()
                )
    if not samples:
        yield "no sample matches"


def column_value(run: Run, sample: Sample, column: str) -> Any:
    """The sample's value in a column, or None."""
    if column in DERIVED_COLUMNS:
        return DERIVED_COLUMNS[column](run, sample)
    name, _, part = column.partition(".")
    value = getattr(sample, name)
    return value.get(part) if part else value


def _numeric_value(sample: Sample, column: str) -> float | None:
    name, _, part = column.partition(".")
    value = getattr(sample, name)
    value = value.get(part) if part else value
    return value if isinstance(value, int | float) else None


def _format_percentile(values: Sequence[float], p: float) -> str:
    from eval.report.wording import message
    from eval.stats.intervals import percentile

    estimate = percentile(values, p)
    return f"n/a ({message(estimate.reason)})" if estimate.reason else ms(estimate.value or 0.0)


def _format_cell(value: Any) -> str:
    if value is None or value == {}:
        return NO_VALUE
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return " ".join(f"{part:g}" for part in value)
    text = " ".join(f"{name}={part:g}" for name, part in value.items()) if isinstance(value, Mapping) else str(value)
    text = " ".join(text.split())  # a detail may contain line feeds and tabs
    return f"'{text}" if text.startswith(FORMULA_START) else text


def _check_arguments(run: Run, sample_filter: SampleFilter, columns: Sequence[str]) -> None:
    """Raise EvalError for values that no sample can have."""
    for column in columns:
        name, dot, part = column.partition(".")
        if column not in DERIVED_COLUMNS and (
            name not in SAMPLE_FIELDS or (dot and (name not in MAPPING_FIELDS or not part))
        ):
            raise EvalError(
                f"--columns: {column!r} is not a column; there are {', '.join((*SAMPLE_FIELDS, *DERIVED_COLUMNS))}"
            )
    if sample_filter.error not in (None, "any", "none", *ERROR_KINDS):
        raise EvalError(f"--error {sample_filter.error}: there are any, none, {', '.join(ERROR_KINDS)}")
    names = [*(target_run.name for target_run in run.targets), "reference"]
    if sample_filter.target not in (None, *names):
        raise EvalError(f"--target {sample_filter.target}: the run has {', '.join(names)}")
    if sample_filter.image_index is not None and not 0 <= sample_filter.image_index < len(run.image_manifest):
        raise EvalError(f"--image {sample_filter.image_index}: the run has images 0 to {len(run.image_manifest) - 1}")
