from __future__ import annotations

from urllib.parse import quote

import pytest

from service.schema import ATTRIBUTE_HEADERS, MAX_ATTRIBUTES_CHARS, custom_attributes, read_custom_attributes

HEADERS = [
    ("Content-Type", "application/json"),
    ("Server-Timing", "decode;dur=0.500, queue;dur=0.100, inference;dur=7.250, total;dur=8.000"),
    ("X-Request-Ordinal", "17"),
    ("X-Instance-Id", "a1b2c3d4e5f6"),
    ("X-Instance-Started", "2026-11-29T20:00:00.000+00:00"),
    ("X-Model-Version", "0123456789ab"),
]


def test_attributes_say_what_the_headers_say():
    read = read_custom_attributes(custom_attributes(HEADERS))
    assert {ATTRIBUTE_HEADERS[key]: value for key, value in read.items()} == dict(HEADERS[1:])


def test_names_of_headers_may_be_of_any_case():
    assert custom_attributes((name.lower(), value) for name, value in HEADERS) == custom_attributes(HEADERS)


def test_attributes_are_visible_ascii_and_fit():
    text = custom_attributes(HEADERS)
    assert text.isascii() and text.isprintable() and " " not in text
    assert len(text) < MAX_ATTRIBUTES_CHARS / 2


def test_what_is_too_long_is_left_out_and_the_rest_kept():
    read = read_custom_attributes(custom_attributes([*HEADERS, ("X-Instance-Started", "x" * MAX_ATTRIBUTES_CHARS)]))
    assert set(read) == set(ATTRIBUTE_HEADERS) - {"instance_started"}


@pytest.mark.parametrize("text", ["", "trace-7", "a=b&c", "instance_id", "&&=&=x", "%ff%00=1", quote("\u00e9=1")])
def test_attributes_of_another_service_are_none(text):
    assert read_custom_attributes(text) == {}
