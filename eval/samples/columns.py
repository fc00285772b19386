"""The samples of a run in columns: a million of them in 250 bytes each, where a record takes two thousand.

A `Samples` is a sequence of samples that looks like a list of records, and hands out light views of its rows. What
looks at all of them takes a whole column as an array (`floats`, `integers`, `durations`) or a part of the samples by a
mask (`where`, `equal`), which copies row numbers only. Texts and probabilities that repeat are kept once.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, cast, overload

import numpy as np

from eval.samples.model import Sample

FLOATS = ("scheduled_s", "latency_ms", "service_time_ms")
OPTIONAL_FLOATS = ("send_delay_ms", "rate_rps", "time_to_first_byte_ms", "idle_gap_s", "cpu_ms")  # NaN: None
INTEGERS = ("block", "image_index", "response_bytes", "index_in_block", "new_connection")
OPTIONAL_INTEGERS = ("status", "predicted_class", "instance_request_number")  # NONE: None
REPEATED = ("target", "scenario", "phase", "error", "detail", "probabilities", "instance_id", "model_version", "sender")
DURATIONS = ("server_timing_ms", "connection_ms", "startup_ms")
NONE = -1
CHUNK = 1000  # samples that are records at a time
TYPE_CODES = {"image_index": "i", "new_connection": "b", "status": "h", "predicted_class": "h"}


class _Repeated:
    """A column of values that repeat: their numbers, and each value once."""

    def __init__(self) -> None:
        self.numbers = array("i")
        self.values: list[Any] = []
        self._number_of: dict[Hashable, int] = {}

    def extend(self, values: Sequence[Hashable]) -> None:
        for value in dict.fromkeys(values):
            if value not in self._number_of:
                self._number_of[value] = len(self.values)
                self.values.append(value)
        self.numbers.extend(map(self._number_of.__getitem__, values))

    def number_of(self, value: Hashable) -> int:
        return self._number_of.get(value, NONE)

    def __getitem__(self, row: int) -> Any:
        return self.values[self.numbers[row]]


class _DurationsColumn:
    """A column of mappings from names to milliseconds: the names as one repeated value, the times one after another."""

    def __init__(self) -> None:
        self.names, self.starts, self.times_ms = _Repeated(), array("q"), array("d")

    def extend(self, values: Sequence[dict[str, float]]) -> None:
        self.names.extend([tuple(value) for value in values])
        ends = itertools.accumulate(map(len, values), initial=len(self.times_ms))
        self.starts.extend(itertools.islice(ends, len(values)))
        self.times_ms.extend(itertools.chain.from_iterable(value.values() for value in values))

    def __getitem__(self, row: int) -> dict[str, float]:
        names, start = self.names[row], self.starts[row]
        return dict(zip(names, self.times_ms[start : start + len(names)], strict=True))

    def of(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The times of one name; NaN where it is missing."""
        indices = [names.index(name) if name in names else NONE for names in self.names.values]
        index = np.array(indices or [NONE])[np.frombuffer(self.names.numbers, np.int32)[rows]]
        found = np.full(len(rows), np.nan)
        known = index != NONE
        starts = np.frombuffer(self.starts, np.int64)[rows[known]]
        if len(starts):
            found[known] = np.frombuffer(self.times_ms, float)[starts + index[known]]
        return found


class _Columns:
    """All fields of all samples."""

    latency_ms: array[float]

    def __init__(self) -> None:
        for name in (*FLOATS, *OPTIONAL_FLOATS):
            setattr(self, name, array("d"))
        for name in (*INTEGERS, *OPTIONAL_INTEGERS):
            setattr(self, name, array(TYPE_CODES.get(name, "q")))
        for name in REPEATED:
            setattr(self, name, _Repeated())
        for name in DURATIONS:
            setattr(self, name, _DurationsColumn())

    def extend(self, samples: Sequence[Sample]) -> None:
        """Append each sample's fields."""
        for name in (*FLOATS, *INTEGERS, *REPEATED, *DURATIONS):
            getattr(self, name).extend([getattr(sample, name) for sample in samples])
        for names, none in ((OPTIONAL_FLOATS, np.nan), (OPTIONAL_INTEGERS, NONE)):
            for name in names:
                values = [getattr(sample, name) for sample in samples]
                getattr(self, name).extend([none if value is None else value for value in values])

    def number_of(self, name: str, value: Hashable) -> int:
        return getattr(self, name).number_of(value)

    def array(self, name: str) -> np.ndarray:
        """The whole column as an array that shares its memory."""
        column = getattr(self, name)
        column = column.numbers if isinstance(column, _Repeated) else column
        return np.frombuffer(column, column.typecode) if column else np.empty(0, column.typecode)


class _Row:
    """A sample, as it stands in the columns."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: _Columns, row: int):
        self._columns, self._row = columns, row


def _field(name: str) -> property:
    column = operator.attrgetter(name)
    if name in OPTIONAL_FLOATS:
        return property(lambda s: None if (v := column(s._columns)[s._row]) != v else v)
    if name in OPTIONAL_INTEGERS:
        return property(lambda s: None if (v := column(s._columns)[s._row]) == NONE else v)
    if name == "new_connection":
        return property(lambda s: bool(column(s._columns)[s._row]))
    return property(lambda s: column(s._columns)[s._row])


for _name in (*FLOATS, *OPTIONAL_FLOATS, *INTEGERS, *OPTIONAL_INTEGERS, *REPEATED, *DURATIONS):
    setattr(_Row, _name, _field(_name))


def record_of(sample: Sample) -> Sample:
    """A record with the fields of a row."""
    return Sample(**{field.name: getattr(sample, field.name) for field in dataclasses.fields(Sample)})


class Samples(Sequence[Sample]):
    """Samples in columns, or some of them in any order."""

    def __init__(self, columns: _Columns, rows: np.ndarray):
        self._columns, self._rows = columns, rows

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        """The samples in columns; those that are so already as they are."""
        if isinstance(samples, Samples):
            return samples
        columns, rest = _Columns(), iter(samples)
        while chunk := list(itertools.islice(rest, CHUNK)):
            columns.extend(chunk)
        return cls(columns, np.arange(len(columns.latency_ms), dtype=np.int32))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        columns = self._columns
        return (cast(Sample, _Row(columns, row)) for row in self._rows.tolist())

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self._columns, self._rows[index])
        return cast(Sample, _Row(self._columns, int(self._rows[index])))

    def where(self, chosen: np.ndarray) -> Samples:
        """Those for which a mask is true, or those of an array of indices, in that order."""
        return Samples(self._columns, self._rows[chosen])

    def equal(self, name: str, *values: Hashable) -> np.ndarray:
        """Where a field with texts is one of the values."""
        numbers = [self._columns.number_of(name, value) for value in values]
        return self.array(name) == numbers[0] if len(numbers) == 1 else np.isin(self.array(name), numbers)

    def with_(self, name: str, *values: Hashable) -> Samples:
        """Those of which a field with texts is one of the values."""
        return self.where(self.equal(name, *values))

    def array(self, name: str) -> np.ndarray:
        """A column: None is NaN or NONE; of texts, the number that each value has."""
        return self._columns.array(name)[self._rows]

    def instances(self) -> np.ndarray:
        """The number of each sample's instance; negative where none responded."""
        numbers = self.array("instance_id")
        return np.where(numbers == self._columns.number_of("instance_id", None), NONE, numbers)

    def failed(self) -> np.ndarray:
        """Where there is an error."""
        return ~self.equal("error", None)

    def counts(self, name: str) -> dict[Any, int]:
        """How often each text of a column comes."""
        numbers, counts = np.unique(self.array(name), return_counts=True)
        values = getattr(self._columns, name).values
        return {values[number]: n for number, n in zip(numbers.tolist(), counts.tolist(), strict=True)}

    def values(self, name: str) -> list[Any]:
        """A column of texts or probabilities."""
        values = getattr(self._columns, name).values
        return [values[number] for number in self.array(name).tolist()]

    def durations(self, name: str, part: str) -> np.ndarray:
        """One part of a column of durations; NaN where it is missing."""
        return getattr(self._columns, name).of(part, self._rows)

    @property
    def succeeded(self) -> Samples:
        """Those without an error."""
        return self.with_("error", None)

    def chronological(self) -> Samples:
        """By scheduled send time; of equal ones as they are."""
        return self.where(np.argsort(self.array("scheduled_s"), kind="stable"))

    def by(self, name: str) -> dict[Any, Samples]:
        """A field's value -> its samples, in the order in which the values first appear."""
        numbers = self.array(name)
        keys, first = np.unique(numbers, return_index=True)
        order = np.argsort(numbers, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []
        column = getattr(self._columns, name)
        by_key = {
            (column.values[key] if isinstance(column, _Repeated) else key): self.where(parts[i])
            for i, key in [(i, keys[i].item()) for i in np.argsort(first)]
        }
        return by_key
