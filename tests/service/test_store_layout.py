"""Names, versions and records of a model store."""

from __future__ import annotations

import hashlib

import pytest

from service.errors import StoreError
from service.store_layout import (
    AliasRecord,
    ModelReference,
    check_alias,
    parse_reference,
    read_record,
    record_file,
    record_number,
    version_of,
)

SHA256 = hashlib.sha256(b"{}").hexdigest()
RECORD = AliasRecord(7, SHA256[:12], SHA256, "0123456789ab", "2026-11-29T20:00:00+00:00", "ada@office", "better")


def test_a_version_is_the_checksum_of_model_json():
    assert version_of(b"{}") == SHA256[:12]


def test_a_reference_names_an_alias_or_a_version():
    assert parse_reference("iris@prod") == ModelReference("iris", alias="prod")
    assert parse_reference(f"iris@{SHA256[:12]}") == ModelReference("iris", version=SHA256[:12])
    assert str(parse_reference("iris@prod")) == "iris@prod"


@pytest.mark.parametrize("text", ["iris", "@prod", "iris@", "../x@prod", "a/b@prod", "iris@..", "iris@a/b", "iris@a@b"])
def test_a_reference_is_never_a_path(text):
    with pytest.raises(StoreError):
        parse_reference(text)


def test_an_alias_may_not_look_like_a_version():
    with pytest.raises(StoreError, match="looks like a version"):
        check_alias(SHA256[:12])


def test_record_files_sort_as_their_numbers_do():
    names = [record_file(number) for number in (2, 10, 1)]
    assert [record_number(name) for name in sorted(names)] == [1, 2, 10]
    assert record_number("0000000001.json#1") is None


def test_a_record_is_read_as_it_was_written():
    assert read_record(RECORD.to_json().encode(), "x") == RECORD


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", RECORD.to_json().encode()[:-20], RECORD.to_json().replace('"7', "7").encode() * 99],
)
def test_a_damaged_record_is_named(content):
    with pytest.raises(StoreError, match=r"store/iris/7\.json"):
        read_record(content, "store/iris/7.json")


def test_a_record_whose_version_is_not_its_checksum_is_refused():
    with pytest.raises(StoreError):
        read_record(RECORD.to_json().replace(SHA256, "0" * 64).encode(), "x")
