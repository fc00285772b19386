"""Whatever the fast reader of plain lines accepts, it reads as the full validator does; the rest it leaves to that."""

from __future__ import annotations

import json

import pytest

from eval.errors import InvalidInput
from eval.samples.model import Sample
from eval.validation import MAX_TEXT_CHARS, parse_json, validate, validate_plain_line

PLAIN = {
    "target": "aws_ec2",
    "scenario": "single",
    "phase": "measure",
    "block": 3,
    "image_index": 7,
    "scheduled_s": 1,
    "latency_ms": 21.5,
    "service_time_ms": 21.5,
    "new_connection": True,
    "status": 200,
    "predicted_class": 1,
    "probabilities": [0.25, 0.75],
    "server_timing_ms": {"decode": 1.5, "total": 20},
    "instance_id": "813c27869a41",
    "send_delay_ms": None,
}


def line_of(**changes: object) -> bytes:
    return json.dumps(PLAIN | changes).encode() + b"\n"


@pytest.mark.parametrize("changes", [{}, {"target": "mine-v2"}, {"detail": "connection reset"}, {"error": "timeout"}])
def test_a_plain_line_is_read_as_in_full(changes):
    line = line_of(**changes)
    sample = validate_plain_line(Sample, line)
    assert sample == validate(Sample, parse_json(line))
    assert repr(sample) == repr(validate(Sample, parse_json(line)))  # the types too


@pytest.mark.parametrize(
    "changes",
    [
        {"detail": "red \u001b[31m"},
        {"detail": "\u202e"},
        {"detail": "del \x7f"},
        {"detail": "x" * (MAX_TEXT_CHARS + 1)},
        {"latency_ms": 1e-12},
        {"server_timing_ms": {"total": 1e-300}},
        {"place": 4},
        {"latency_ms": -1.0},
        {"latency_ms": "21.5"},
        {"latency_ms": float("nan")},
        {"block": 1.5},
        {"phase": "other"},
        {"probabilities": [2.0]},
        {"server_timing_ms": {str(n): 1.0 for n in range(101)}},
        {"target": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_plain_is_left_to_the_full_validator(changes):
    assert validate_plain_line(Sample, line_of(**changes)) is None


@pytest.mark.parametrize("number", [b"0.0000000001", b"1e-10", b"1E-10", b"100e-12", b"0.000000000"])
def test_a_tiny_number_is_0_however_it_is_written(number):
    line = line_of(latency_ms=777).replace(b"777", number)
    assert validate_plain_line(Sample, line) is None
    assert validate(Sample, parse_json(line)).latency_ms == 0.0


@pytest.mark.parametrize("line", [b"", b"\n", b"[]\n", b"{}\n", b"null\n", b'{"target":"a"', b"\xff\n"])
def test_what_is_no_record_is_left_to_the_full_validator(line):
    assert validate_plain_line(Sample, line) is None
    with pytest.raises(InvalidInput):
        validate(Sample, parse_json(line))
