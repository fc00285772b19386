"""kill -9 at any moment: no half version is there, and the same command completes what was begun."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.model import load_bundle
from store.model_store import ModelStore
from tests.conftest import ROOT
from tests.helpers.gcs_stand_in import gcs_stand_in
from tests.helpers.killed_store import killing
from tests.helpers.moto_server import moto_s3
from tests.helpers.store_bundles import plain_bundle

pytestmark = pytest.mark.integration

MOMENTS = 50
RANDOM_TIMES = 15  # of each kind of store, a process each
SEED = 21
BUCKET = "models"
LARGE_BYTES = 4_000_000  # so that a push takes a while


@pytest.fixture(scope="module")
def run():
    with killing() as killed:
        yield killed


@pytest.fixture
def bundles(tmp_path) -> list[Path]:
    return [plain_bundle(tmp_path / letter, letter) for letter in "ab"]


def moments(run, *words: object) -> list[int]:
    """Lines at which to die, of all those of a run to the end."""
    lines = run(None, *words)
    return random.Random(SEED).sample(range(1, lines + 1), MOMENTS)


def whole_versions(store: ModelStore, folder: Path) -> int:
    """How many versions are listed: each of them can be pulled, which compares every checksum."""
    versions = store.versions("tiny")
    for number, version in enumerate(versions):
        store.pull(str(version), folder / str(number))
    return len(versions)


def test_a_push_that_is_killed_leaves_no_half_version(run, bundles, tmp_path):
    for moment in moments(run, "push", tmp_path / "whole", bundles[0]):
        folder = tmp_path / f"at-{moment}"
        store = ModelStore.open(folder)
        assert run(moment, "push", store.url, bundles[0]) == 0
        before = whole_versions(store, folder / "before")
        assert store.names() == ["tiny"][:before]
        store.push(bundles[0])
        assert whole_versions(store, folder / "after") == 1


def test_a_push_that_is_killed_again_and_again_completes(run, bundles, tmp_path):
    store = ModelStore.open(tmp_path / "store")
    for moment in sorted(moments(run, "push", tmp_path / "whole", bundles[0])):
        run(moment, "push", store.url, bundles[0])  # the later ones find files of the earlier ones
    store.push(bundles[0])
    assert whole_versions(store, tmp_path / "after") == 1


def test_a_move_that_is_killed_is_recorded_whole_or_not(run, bundles, tmp_path):
    moved = []
    for moment in (None, *moments(run, "alias", *two_versions(tmp_path / "whole", bundles))):
        url, version = two_versions(tmp_path / f"at-{moment}", bundles)
        store = ModelStore.open(url)
        first = store.resolve("tiny@prod")
        run(moment, "alias", url, version)
        assert store.resolve("tiny@prod") in (first, version)
        moved.append(store.resolve("tiny@prod") == version)
        store.move_alias("tiny", "prod", version, reason="again")
        assert [record.version for record in store.history("tiny", "prod")] == [first, version]
    assert len(moved) == MOMENTS + 1 and set(moved) == {True, False}


def test_a_pull_that_is_killed_leaves_no_half_folder(run, bundles, tmp_path):
    store = ModelStore.open(tmp_path / "store")
    reference = str(store.push(bundles[0]))
    for moment in moments(run, "pull", store.url, reference, tmp_path / "whole"):
        folder = tmp_path / f"at-{moment}" / "there"
        assert run(moment, "pull", store.url, reference, folder) == 0
        if folder.exists():
            load_bundle(folder)
        store.pull(reference, folder)
        load_bundle(folder)


def test_a_followed_folder_points_to_whole_versions_alone(run, bundles, tmp_path):
    url, version = two_versions(tmp_path / "store", bundles)
    store = ModelStore.open(url)
    first = store.resolve("tiny@prod")
    followed = tmp_path / "whole"
    store.follow("tiny@prod", followed)
    for at in [tmp_path / f"at-{number}" for number in range(MOMENTS)]:
        store.follow("tiny@prod", at)
    store.move_alias("tiny", "prod", version, reason="for a test")
    for number, moment in enumerate(moments(run, "follow", url, "tiny@prod", followed)):
        folder = tmp_path / f"at-{number}"
        assert run(moment, "follow", url, "tiny@prod", folder) == 0
        there = ModelStore.open(folder).resolve("tiny@prod")
        assert there in (first, version)
        load_bundle(folder / "tiny/versions" / there)
        store.follow("tiny@prod", folder, keep=1)
        assert [each.version for each in ModelStore.open(folder).versions("tiny")] == [version]


def two_versions(folder: Path, bundles: list[Path]) -> tuple[str, str]:
    """A store whose alias prod points to the first version, and the second one."""
    store = ModelStore.open(folder)
    first, second = (store.push(bundle).version for bundle in bundles)
    store.move_alias("tiny", "prod", first, reason="for a test")
    return store.url, second


@pytest.fixture(params=["folder", "s3", "gs"])
def url(request, tmp_path, monkeypatch):
    """A store in a folder or a bucket, which processes find by the environment."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    with moto_s3(BUCKET) if request.param == "s3" else gcs_stand_in(BUCKET, tmp_path) as environment:
        for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"{request.param}://{BUCKET}"


@pytest.mark.slow
def test_a_push_that_is_killed_at_random_times_completes(url, tmp_path, say):
    """Times are within the longest file's way into the store, in which most of a push passes."""
    bundle = plain_bundle(tmp_path / "bundle", more_bytes=LARGE_BYTES)
    seconds = push_killed_after(f"{url}/measured", bundle, None)
    fractions, complete, files = random.Random(SEED), 0, []
    for number in range(RANDOM_TIMES):
        store = ModelStore.open(f"{url}/{number}")
        push_killed_after(store.url, bundle, fractions.uniform(0, 1.2) * seconds)
        files.append(len(store.backend.files("tiny")))
        complete += whole_versions(store, tmp_path / f"before-{number}")
        assert complete == sum(count == 3 for count in files)
        store.push(bundle)
        assert whole_versions(store, tmp_path / f"after-{number}") == 1
    found = ", ".join(f"{files.count(count)} times {count}" for count in range(4))
    say(f"{RANDOM_TIMES} pushes to {url} killed; of 3 files there were then: {found}")
    assert set(files) != {3}


def push_killed_after(url: str, bundle: Path, delay_s: float | None) -> float:
    """Push, and be killed so long after it began to send, if ever. Returns how long it was sending."""
    command = [sys.executable, "-m", "store", "push", str(bundle), "--store", url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr and process.stderr.readline().startswith("Sending model.onnx")
        begun = time.monotonic()
        if delay_s is not None:
            time.sleep(delay_s)  # the moment is the point: there is no event to wait for
            process.kill()
        for line in process.stderr:
            if line.startswith("Sending model.json"):  # what follows is short
                break
        return time.monotonic() - begun
