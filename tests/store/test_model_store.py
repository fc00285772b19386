"""A store in a folder: what is pushed is pulled, aliases move and roll back, a service's folder follows."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import BundleError, StoreError
from service.model import load_bundle
from service.store_layout import record_file, version_of
from store.aliases import NO_VERSION, version_before
from store.errors import StoreConflict
from store.folder import ABANDONED_S, PARTS
from store.model_store import ModelStore
from tests.helpers.references import add_reference, reference_json
from tests.helpers.store_bundles import plain_bundle

WHY = "for a test"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_pushed_is_pulled(store, tmp_path):
    bundle = add_reference(plain_bundle(tmp_path / "bundle"), reference_json(2, ["width"]))
    pushed = store.push(bundle)
    assert pushed.version == version_of((bundle / "model.json").read_bytes())
    assert pushed.files == {path.name: path.stat().st_size for path in bundle.iterdir()}
    assert store.pull(f"tiny@{pushed.version}", tmp_path / "there") == pushed
    assert tree(tmp_path / "there") == tree(bundle)
    load_bundle(tmp_path / "there")


def test_a_bundle_may_be_stored_under_another_name(store, tmp_path):
    assert store.push(plain_bundle(tmp_path / "bundle"), name="other").name == "other"
    assert store.names() == ["other"]
    with pytest.raises(StoreError, match="no name of a model"):
        store.push(tmp_path / "bundle", name="../other")


def test_a_second_push_sends_nothing(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle")
    first = store.push(bundle)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.*")}
    said: list[str] = []
    assert ModelStore.open(store.url, said.append).push(bundle) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.*")} == before
    assert len(said) == 3 and all(line.startswith("Checking") for line in said)


def test_a_bundle_with_a_wrong_checksum_is_not_sent(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle")
    (bundle / "self_test.json").write_text("[]")
    with pytest.raises(BundleError, match=r"self_test\.json has sha256"):
        store.push(bundle)
    assert store.versions("tiny") == []


def test_a_link_in_a_bundle_is_refused(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle")
    (bundle / "model.onnx").rename(tmp_path / "elsewhere")
    (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        store.push(bundle)


@pytest.mark.parametrize("name", ["../model.onnx", "a/model.onnx", ".model.onnx"])
def test_a_file_name_with_a_folder_is_refused(store, tmp_path, name):
    bundle = plain_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / "model.json").read_text())
    manifest["files"][name] = "0" * 64
    (bundle / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="without folders"):
        store.push(bundle)


def test_a_version_without_model_json_is_not_there(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle")
    version = store.push(bundle).version
    (tmp_path / "store/tiny/versions" / version / "model.json").unlink()
    assert (store.names(), store.versions("tiny")) == ([], [])
    with pytest.raises(StoreError, match=f"tiny has no version {version} in .*; it has none"):
        store.pull(f"tiny@{version}", tmp_path / "there")
    assert store.push(bundle).version == version


@pytest.mark.parametrize("file", ["model.onnx", "model.json"])
def test_a_file_that_was_changed_in_the_store_is_named(store, tmp_path, file):
    bundle = plain_bundle(tmp_path / "bundle")
    version = store.push(bundle).version
    (tmp_path / "store/tiny/versions" / version / file).write_bytes(b"{}")
    for use in (lambda: store.pull(f"tiny@{version}", tmp_path / "there"), lambda: store.push(bundle)):
        with pytest.raises(StoreError, match=rf"{file} is not what was pushed: .*delete tiny/versions/{version}"):
            use()
    assert [path.name for path in tmp_path.iterdir() if "there" in path.name] == []


def test_a_pull_leaves_a_folder_with_other_content_alone(store, versions, tmp_path):
    with pytest.raises(StoreError, match="is not version"):
        store.pull(f"tiny@{versions[1]}", tmp_path / "a")
    store.pull(f"tiny@{versions[0]}", tmp_path / "a")  # the same version
    (tmp_path / "a" / "model.onnx").write_bytes(b"x")
    with pytest.raises(StoreError, match="damaged"):
        store.pull(f"tiny@{versions[0]}", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    store.pull(f"tiny@{versions[0]}", tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(StoreError, match="is not version"):
        store.pull(f"tiny@{versions[0]}", tmp_path / "link")


def test_a_full_disk_is_told_of_an_empty_folder_too(store, versions, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("store.version_folder.write_durably", refuse)
    with pytest.raises(StoreError, match=rf"empty cannot be written: {os.strerror(errno.ENOSPC)}$"):
        store.pull(f"tiny@{versions[0]}", tmp_path / "empty")


def test_pushers_at_once_do_not_disturb_each_other(store, tmp_path):
    same = plain_bundle(tmp_path / "same", more_bytes=1_000_000)
    bundles = [same, same, same, *(plain_bundle(tmp_path / letter, letter, more_bytes=1_000_000) for letter in "abc")]
    with ThreadPoolExecutor(len(bundles)) as pool:
        pushed = [version.version for version in pool.map(store.push, bundles)]
    assert len(set(pushed)) == 4 and set(pushed) == {each.version for each in store.versions("tiny")}
    for bundle, version in zip(bundles[2:], pushed[2:], strict=True):
        store.pull(f"tiny@{version}", tmp_path / "there" / version)
        assert tree(tmp_path / "there" / version) == tree(bundle)


def test_pulls_at_once_into_one_folder_make_it_once(store, versions, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.pull(f"tiny@{versions[0]}", tmp_path / "there"), range(4)))
    assert tree(tmp_path / "there") == tree(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_an_alias_moves_by_one_more_record(store, versions, tmp_path):
    first = store.move_alias("tiny", "prod", versions[0], reason=WHY)
    second = store.move_alias("tiny", "prod", versions[1], reason="better", created_by="the pipeline")
    assert (first.number, first.version, first.previous) == (1, versions[0], None)
    assert (second.number, second.version, second.previous) == (2, versions[1], versions[0])
    assert (second.reason, second.created_by) == ("better", "the pipeline")
    assert store.history("tiny", "prod") == [first, second] and store.aliases("tiny") == {"prod": second}
    assert store.resolve("tiny@prod") == versions[1]
    assert sorted(tree(tmp_path / "store/tiny/aliases/prod")) == [record_file(1), record_file(2)]


def test_moving_an_alias_to_where_it_points_records_nothing(store, versions):
    record = store.move_alias("tiny", "prod", versions[0], reason=WHY)
    assert store.move_alias("tiny", "prod", versions[0], reason="again", expected=versions[1]) == record
    assert len(store.history("tiny", "prod")) == 1


def test_an_alias_that_somebody_moved_meanwhile_is_a_conflict(store, versions):
    store.move_alias("tiny", "prod", versions[0], reason=WHY, expected=NO_VERSION)
    with pytest.raises(StoreConflict, match=f"points to {versions[0]}, not to {versions[2]}"):
        store.move_alias("tiny", "prod", versions[1], reason=WHY, expected=versions[2])
    with pytest.raises(StoreConflict, match="not to none"):
        store.move_alias("tiny", "prod", versions[1], reason=WHY, expected=NO_VERSION)
    assert store.move_alias("tiny", "prod", versions[1], reason=WHY, expected=versions[0]).number == 2


def test_moves_at_once_are_all_recorded(store, versions):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda version: store.move_alias("tiny", "prod", version, reason=version), versions))
    history = store.history("tiny", "prod")
    assert sorted(record.version for record in history) == sorted(versions)
    assert [record.number for record in history] == [1, 2, 3, 4]
    assert [record.previous for record in history] == [None, *(record.version for record in history[:-1])]


def test_of_expected_moves_at_once_one_wins(store, versions):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)

    def move(version: str) -> bool:
        try:
            store.move_alias("tiny", "prod", version, reason=WHY, expected=versions[0])
        except StoreConflict:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(move, versions[1:])) == [False, False, True]
    assert len(store.history("tiny", "prod")) == 2


@pytest.mark.parametrize(
    ("moves", "before"),
    [("A", None), ("AB", "A"), ("ABC", "B"), ("ABCB", "A"), ("ABCBA", None), ("ABCBD", "B"), ("ABA", None), ("", None)],
)
def test_a_rollback_leads_back_and_never_forth(moves, before):
    assert version_before(moves) == before


def test_rollbacks_lead_back_to_the_first_version(store, versions):
    for version in versions:
        store.move_alias("tiny", "prod", version, reason=WHY)
    back = [store.rollback("tiny", "prod", reason="p95 doubled").version for _ in range(3)]
    assert back == versions[2::-1]
    with pytest.raises(StoreError, match=f"no version before {versions[0]}"):
        store.rollback("tiny", "prod", reason=WHY)
    assert [record.version for record in store.history("tiny", "prod")] == [*versions, *back]


def test_a_rollback_to_a_version_that_was_never_there_is_refused(store, versions):
    for version in versions[:3]:
        store.move_alias("tiny", "prod", version, reason=WHY)
    with pytest.raises(StoreError, match=f"never pointed to {versions[3]}; it pointed to {versions[0]}"):
        store.rollback("tiny", "prod", reason=WHY, to=versions[3])
    assert store.rollback("tiny", "prod", reason=WHY, to=versions[0]).version == versions[0]


def test_a_damaged_record_is_named_and_can_be_moved_over(store, versions, tmp_path):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    (tmp_path / "store/tiny/aliases/prod" / record_file(1)).write_bytes(b"{")
    with pytest.raises(StoreError, match=r"prod/0000000001\.json is no record"):
        store.resolve("tiny@prod")
    assert store.move_alias("tiny", "prod", versions[1], reason=WHY).number == 2
    assert store.resolve("tiny@prod") == versions[1]


def test_over_a_damaged_record_history_and_rollback_go_on(store, versions, tmp_path):
    for version in versions:
        store.move_alias("tiny", "prod", version, reason=WHY)
    damaged = tmp_path / "store/tiny/aliases/prod" / record_file(2)
    damaged.write_bytes(damaged.read_bytes()[:40])
    said: list[str] = []
    found = ModelStore.open(store.url, said.append).history("tiny", "prod")
    assert [record.number for record in found] == [1, 3, 4]
    assert len(said) == 1 and said[0].endswith("aliases/prod/0000000002.json is damaged, and left out")
    assert store.rollback("tiny", "prod", reason=WHY).version == versions[2]
    (tmp_path / "store/tiny/aliases/prod" / record_file(5)).write_bytes(b"{")
    with pytest.raises(StoreError, match=r"0000000005\.json is no record of an alias; .* roll the alias forward"):
        store.rollback("tiny", "prod", reason=WHY)
    assert store.move_alias("tiny", "prod", versions[0], reason=WHY).number == 6


@pytest.mark.parametrize("when", ["", "yesterday", "2026-13-01"])
def test_a_record_of_no_time_is_damaged(store, versions, tmp_path, when):
    record = store.move_alias("tiny", "prod", versions[0], reason=WHY)
    path = tmp_path / "store/tiny/aliases/prod" / record_file(1)
    path.write_text(json.dumps(vars(record) | {"created_at": when}), encoding="utf-8")
    with pytest.raises(StoreError, match="is no record of an alias"):
        store.resolve("tiny@prod")


def test_who_moves_an_alias_may_have_no_name(store, versions, monkeypatch):
    """As in a container that runs as a number."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    record = store.move_alias("tiny", "prod", versions[0], reason=WHY)
    assert record.created_by == f"uid-{os.getuid()}@{socket.gethostname()}"


def test_errors_say_what_there_is(store, versions, tmp_path):
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    with pytest.raises(StoreError, match=r"no model is called 'big' in .*; there is tiny"):
        store.resolve("big@prod")
    with pytest.raises(StoreError, match=r"tiny has no alias 'beta' in .*; it has prod"):
        store.resolve("tiny@beta")
    with pytest.raises(StoreError, match=f"no version 000000000000 in .*; it has {versions[0]}, {versions[1]}"):
        store.move_alias("tiny", "prod", "0" * 12, reason=WHY)
    with pytest.raises(StoreError, match="there is none yet"):
        ModelStore.open(str(tmp_path / "nowhere")).resolve("tiny@prod")
    with pytest.raises(StoreError, match="one line"):
        store.move_alias("tiny", "prod", versions[1], reason="a\nb")
    with pytest.raises(StoreError, match="~nobody-of-that-name/models: there is no such user"):
        ModelStore.open("~nobody-of-that-name/models")
    with pytest.raises(StoreError, match="a store is a folder, s3://"):
        ModelStore.open("https://example.org/models")


def test_a_store_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be read: Not a directory"):
        ModelStore.open(str(tmp_path / "file" / "store")).push(plain_bundle(tmp_path / "bundle"))


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a file system in which nobody can write: Linux's /proc"
)
def test_a_folder_that_cannot_be_written_is_one_line(store, versions, tmp_path):
    for use in (
        lambda: ModelStore.open("/proc/store").push(tmp_path / "a"),
        lambda: store.pull(f"tiny@{versions[0]}", Path("/proc/there/model")),
        lambda: store.follow(f"tiny@{versions[0]}", Path("/proc/there")),
    ):
        with pytest.raises(StoreError, match=r"/proc/.* cannot be written: ") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_other_files_in_a_store_are_passed_over(store, versions, tmp_path):
    for name in ("lost+found", "tiny/versions/not-a-version", "tiny/aliases/-", "tiny/aliases/beta"):
        (tmp_path / "store" / name).mkdir(parents=True)
    (tmp_path / "store/tiny/versions/not-a-version/model.json").write_text("{}")
    (tmp_path / "store/README").write_text("")
    assert store.names() == ["tiny"] and store.aliases("tiny") == {}
    assert {version.version for version in store.versions("tiny")} == set(versions)


def test_what_a_killed_push_left_is_deleted_a_day_later(store, versions, tmp_path):
    parts = tmp_path / "store" / PARTS
    assert list(parts.iterdir()) == []
    for name, age_s in (("old", ABANDONED_S + 60), ("new", 0)):
        (parts / name).write_text("")
        os.utime(parts / name, (0, time.time() - age_s))
    store.move_alias("tiny", "prod", versions[0], reason=WHY)
    assert [path.name for path in parts.iterdir()] == ["new"]
