"""The store in a bucket: S3 as moto serves it, Google Cloud Storage as a stand-in of our own does."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import StoreError
from store.errors import StoreConflict
from store.model_store import ModelStore
from tests.helpers.gcs_stand_in import gcs_stand_in
from tests.helpers.moto_server import moto_s3
from tests.helpers.store_bundles import plain_bundle

pytestmark = pytest.mark.integration

BUCKET = "models"
WHY = "for a test"


@pytest.fixture(scope="module", params=["s3", "gs"])
def scheme(request, tmp_path_factory):
    """The scheme of a server that the environment leads to."""
    folder = tmp_path_factory.mktemp("bucket")
    with (
        moto_s3(BUCKET) if request.param == "s3" else gcs_stand_in(BUCKET, folder) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield request.param


@pytest.fixture
def store(scheme, request) -> ModelStore:
    """A store with a prefix of its own."""
    return ModelStore.open(f"{scheme}://{BUCKET}/team/{request.node.originalname}/")


@pytest.fixture
def versions(store, tmp_path) -> list[str]:
    return [store.push(plain_bundle(tmp_path / letter, letter)).version for letter in "abc"]


def test_what_is_pushed_is_pulled_and_listed(store, versions, tmp_path):
    assert store.names() == ["tiny"]
    assert {version.version for version in store.versions("tiny")} == set(versions)
    pulled = store.pull(f"tiny@{versions[1]}", tmp_path / "there")
    for name, size_bytes in pulled.files.items():
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "there" / name).stat().st_size == size_bytes


def test_large_file_goes_in_one_request(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle", more_bytes=12_000_000)  # obstore would send it in parts of 5 MB
    version = store.push(bundle).version
    store.pull(f"tiny@{version}", tmp_path / "there")
    assert (tmp_path / "there/model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_an_object_is_never_overwritten(store):
    assert store.backend.create("x/y", b"first") and not store.backend.create("x/y", b"second")
    assert b"".join(store.backend.chunks("x/y")) == b"first"
    with pytest.raises(FileNotFoundError):
        list(store.backend.chunks("x/z"))


def test_a_second_push_reads_back_what_is_there(store, versions, tmp_path):
    said: list[str] = []
    again = ModelStore.open(store.url, said.append)
    assert again.push(tmp_path / "a").version == versions[0]
    assert len(said) == 3 and all(line.startswith("Checking") for line in said)


def test_an_object_that_is_not_what_was_pushed_is_named(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle")
    version = ModelStore.open(tmp_path / "elsewhere").push(bundle).version
    store.backend.create(f"tiny/versions/{version}/model.onnx", b"of somebody else")
    with pytest.raises(StoreError, match=rf"{version}/model\.onnx is not what was pushed"):
        store.push(bundle)
    assert store.versions("tiny") == []


def test_aliases_move_roll_back_and_are_followed(store, versions, tmp_path):
    for version in versions:
        store.move_alias("tiny", "prod", version, reason=WHY)
    assert store.follow("tiny@prod", tmp_path / "models") == store.aliases("tiny")["prod"]
    record = store.rollback("tiny", "prod", reason="p95 doubled")
    assert (record.version, record.number) == (versions[1], 4)
    assert [each.version for each in store.history("tiny", "prod")] == [*versions, versions[1]]
    store.follow("tiny@prod", tmp_path / "models")
    assert ModelStore.open(tmp_path / "models").resolve("tiny@prod") == versions[1]


def test_two_pushers_at_once_make_one_version(store, tmp_path):
    bundle = plain_bundle(tmp_path / "bundle", more_bytes=1_000_000)
    with ThreadPoolExecutor(4) as pool:
        (version,) = set(pool.map(lambda _: store.push(bundle).version, range(4)))
    store.pull(f"tiny@{version}", tmp_path / "there")


def test_moves_at_once_are_recorded_or_refused(store, versions):
    def move(version: str, expected: str | None = None) -> bool:
        try:
            store.move_alias("tiny", "prod", version, reason=WHY, expected=expected)
        except StoreConflict:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(move, versions))
        assert len(store.history("tiny", "prod")) == 3
        now = store.resolve("tiny@prod")
        others = [version for version in versions if version != now]
        assert sorted(pool.map(lambda version: move(version, now), others)) == [False, True]


def test_a_bucket_that_is_not_there_is_one_line(scheme, tmp_path):
    nowhere = ModelStore.open(f"{scheme}://nowhere/models")
    for use in (nowhere.names, lambda: nowhere.push(plain_bundle(tmp_path / "bundle")), lambda: nowhere.resolve("a@b")):
        with pytest.raises(StoreError, match=r"^[a-z0-9]+://nowhere/models: there is no such bucket") as caught:
            use()
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="there is no such bucket"):
        list(nowhere.backend.chunks("x"))


@pytest.mark.parametrize("url", ["s3://", "gs:///models", "az://models"])
def test_an_address_without_a_bucket_is_refused(url):
    with pytest.raises(StoreError, match="a store is a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"):
        ModelStore.open(url)
