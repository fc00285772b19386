"""The folder of a service follows an alias of a store."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from shutil import rmtree

import pytest

from service.errors import StoreError
from service.model import load_bundle
from service.store_layout import record_file
from store.folder import PARTS
from store.model_store import ModelStore

WHY = "for a test"
ALIAS = "tiny/aliases/prod"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "models"


def contents(records: Path) -> dict[str, bytes]:
    """File's name -> its bytes."""
    return {path.name: path.read_bytes() for path in records.iterdir()}


def versions_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "tiny/versions").iterdir()}


def test_a_followed_folder_is_a_store_with_that_alias(store, versions, folder):
    store.move_alias("tiny", "beta", versions[1], reason=WHY)
    record = store.move_alias("tiny", "prod", versions[0], reason=WHY)
    assert store.follow("tiny@prod", folder) == record
    copy = ModelStore.open(folder)
    assert copy.aliases("tiny") == {"prod": record} and versions_in(folder) == {versions[0]}
    load_bundle(folder / "tiny/versions" / versions[0])


def test_the_last_versions_are_kept_and_older_ones_deleted(store, versions, folder):
    for version in versions:
        store.move_alias("tiny", "prod", version, reason=WHY)
        store.follow("tiny@prod", folder)
    assert versions_in(folder) == set(versions[2:])
    store.rollback("tiny", "prod", reason=WHY)
    store.follow("tiny@prod", folder, keep=1)
    assert versions_in(folder) == {versions[2]}


def test_a_store_does_not_follow_itself(store, versions, tmp_path):
    for version in versions:
        store.move_alias("tiny", "prod", version, reason=WHY)
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for folder in (tmp_path / "store", tmp_path / "link"):
        with pytest.raises(StoreError, match=r"is the store itself, whose versions stay"):
            store.follow("tiny@prod", folder)
    assert versions_in(tmp_path / "store") == set(versions)


def test_versions_that_were_not_followed_are_kept(store, versions, folder):
    store.follow(f"tiny@{versions[0]}", folder)
    for version in versions[1:]:
        store.move_alias("tiny", "prod", version, reason=WHY)
        store.follow("tiny@prod", folder, keep=1)
    assert versions_in(folder) == {versions[0], versions[3]}


def test_what_another_alias_points_to_is_kept(store, versions, folder):
    store.move_alias("tiny", "beta", versions[0], reason=WHY)
    store.follow("tiny@beta", folder)
    for version in versions[1:]:
        store.move_alias("tiny", "prod", version, reason=WHY)
        store.follow("tiny@prod", folder, keep=1)
    assert versions_in(folder) == {versions[0], versions[3]}


def test_the_last_versions_of_another_alias_are_kept(store, versions, folder):
    for version in versions[:2]:
        store.move_alias("tiny", "beta", version, reason=WHY)
        store.follow("tiny@beta", folder)
    for version in (versions[0], *versions[2:]):
        store.move_alias("tiny", "prod", version, reason=WHY)
        store.follow("tiny@prod", folder)
    assert versions_in(folder) == set(versions)  # beta may go back to the first


def test_nothing_is_done_when_nothing_changed(store, versions, folder):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    said: list[str] = []
    following = ModelStore.open(store.url, said.append)
    following.follow("tiny@prod", folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert said.pop() and not said.clear()
    following.follow("tiny@prod", folder)
    assert not said and {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_version_that_was_lost_is_fetched_again(store, versions, folder):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    store.follow("tiny@prod", folder)
    (folder / "tiny/versions" / versions[0]).rename(folder / "elsewhere")
    store.follow("tiny@prod", folder)
    assert versions_in(folder) == {versions[0]}


@pytest.mark.parametrize("file", ["model.json", "model.onnx"])
@pytest.mark.parametrize("reference", ["prod", "version"])
@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_a_damaged_version_is_fetched_again(store, versions, folder, file, reference, damage):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    reference = "tiny@prod" if reference == "prod" else f"tiny@{versions[0]}"
    store.follow(reference, folder)
    path = folder / "tiny/versions" / versions[0] / file
    before = path.read_bytes()
    path.unlink() if damage == "lost" else path.write_bytes(b"x" + before)
    store.follow(reference, folder)
    assert path.read_bytes() == before and versions_in(folder) == {versions[0]}
    load_bundle(path.parent)


def test_a_damaged_version_is_mended_when_an_alias_returns(store, versions, folder):
    for version in versions[:2]:
        store.move_alias("tiny", "prod", version, reason=WHY)
        store.follow("tiny@prod", folder)
    (folder / "tiny/versions" / versions[0] / "model.json").unlink()
    store.rollback("tiny", "prod", reason=WHY)
    store.follow("tiny@prod", folder)
    load_bundle(folder / "tiny/versions" / versions[0])


def test_what_the_store_has_lost_is_not_deleted_here(store, versions, folder, tmp_path):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    store.follow("tiny@prod", folder)
    here = folder / "tiny/versions" / versions[0]
    (here / "self_test.json").write_text("of another")
    rmtree(tmp_path / "store/tiny/versions" / versions[0])
    with pytest.raises(StoreError, match="has no version"):
        store.follow("tiny@prod", folder)
    assert (here / "model.onnx").is_file()


def test_the_alias_stays_until_the_version_is_there(store, versions, folder, tmp_path):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    old = store.follow("tiny@prod", folder)
    store.move_alias("tiny", "prod", versions[1], reason=WHY)
    (tmp_path / "store/tiny/versions" / versions[1] / "model.onnx").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"model\.onnx is not what was pushed"):
        store.follow("tiny@prod", folder)
    assert ModelStore.open(folder).aliases("tiny") == {"prod": old} and versions_in(folder) == {versions[0]}


def test_a_version_is_followed_without_a_record(store, versions, folder):
    assert store.follow(f"tiny@{versions[0]}", folder) is None
    assert versions_in(folder) == {versions[0]} and not (folder / "tiny/aliases").exists()


@pytest.fixture
def records(store, versions, folder) -> Path:
    """The records of a followed alias: copies of the store's first two."""
    for version in versions[:2]:
        store.move_alias("tiny", "prod", version, reason=WHY)
        store.follow("tiny@prod", folder)
    return folder / ALIAS


def test_a_damaged_copy_of_the_newest_record_is_replaced(store, records, folder, tmp_path):
    (records / record_file(2)).write_bytes(b"{")
    record = store.follow("tiny@prod", folder)
    assert ModelStore.open(folder).aliases("tiny") == {"prod": record}
    assert contents(records) == contents(tmp_path / "store" / ALIAS)
    assert not list((folder / PARTS).iterdir())


def test_a_damaged_copy_of_an_earlier_record_is_tolerated(store, versions, records, folder, tmp_path):
    """No service reads it again, but to fall back on it."""
    (records / record_file(1)).write_bytes(b"{")
    record = store.follow("tiny@prod", folder)
    assert ModelStore.open(folder).aliases("tiny") == {"prod": record}
    record = store.move_alias("tiny", "prod", versions[2], reason=WHY)
    assert store.follow("tiny@prod", folder) == record
    assert ModelStore.open(folder).aliases("tiny") == {"prod": record}
    assert contents(records) == contents(tmp_path / "store" / ALIAS) | {record_file(1): b"{"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=["full disk", "missing right"])
def test_a_record_that_cannot_be_replaced_is_one_line(store, records, folder, number, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (records / record_file(2)).write_bytes(b"{")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError) as raised:
        store.follow("tiny@prod", folder)
    assert str(raised.value) == f"{records / record_file(2)} cannot be written: {os.strerror(number)}"
    assert not list((folder / PARTS).iterdir())


def test_a_folder_follows_one_store_only(store, versions, folder, tmp_path):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    store.follow("tiny@prod", folder)
    other = ModelStore.open(tmp_path / "other")
    other.push(tmp_path / "a")
    other.move_alias("tiny", "prod", versions[0], reason="another record of that number")
    with pytest.raises(StoreError, match="follows another store"):
        other.follow("tiny@prod", folder)
