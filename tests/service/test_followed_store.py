"""The folder that a service follows: what an alias or a version leads to, and what is refused."""

from pathlib import Path

import pytest

from service.errors import StoreError
from service.lifecycle.followed_store import FollowedStore
from service.store_layout import alias_dir, parse_reference, version_dir
from tests.helpers.bundles import write_bundle
from tests.helpers.model_stores import add_version, point


@pytest.fixture
def store(tmp_path):
    """Its folder, and two versions of a model "tiny"."""
    root = tmp_path / "store"
    bundles = [write_bundle(tmp_path / str(weight), ["dark", "bright"], weight=weight) for weight in (20, 25)]
    return root, *(add_version(root, "tiny", bundle) for bundle in bundles)


def find(root, reference):
    return FollowedStore(root).find(parse_reference(reference))


def test_an_alias_leads_to_its_newest_record(store):
    root, first, second = store
    for number, version in enumerate((first, second, first, *[second] * 8), 1):
        point(root, "tiny", "prod", version)
        found = find(root, "tiny@prod")
        assert found.to_json() == {"name": "tiny", "alias": "prod", "version": version, "number": number}
        assert found.folder == root / version_dir("tiny", version)
        assert found.reference == parse_reference("tiny@prod")


def test_a_version_leads_to_itself(store):
    root, first, _ = store
    found = find(root, f"tiny@{first}")
    assert found.to_json() == {"name": "tiny", "alias": None, "version": first, "number": None}
    assert found.reference == parse_reference(f"tiny@{first}")


def test_what_is_not_complete_is_not_there(store):
    root, first, second = store
    point(root, "tiny", "prod", first)
    (root / version_dir("tiny", second) / "model.json").unlink()
    (root / alias_dir("tiny", "prod") / "0000000002.json.tmp").write_text("{", encoding="utf-8")
    assert FollowedStore(root).versions("tiny") == [first]
    assert find(root, "tiny@prod").number == 1
    with pytest.raises(StoreError, match=f"no version {second} of tiny; it has the aliases prod and the versions"):
        find(root, f"tiny@{second}")


@pytest.mark.parametrize("reference", ["tiny@beta", "other@prod"])
def test_what_is_not_there_is_said_with_what_is(store, reference):
    root, first, _ = store
    point(root, "tiny", "prod", first)
    with pytest.raises(StoreError, match=f"has no {reference}; it has (the aliases prod|tiny)"):
        find(root, reference)


def test_what_is_no_model_in_the_store_is_passed_over(store, monkeypatch):
    root, *_ = store
    (root / "tiny copy" / "versions").mkdir(parents=True)
    (root / "lost+found").mkdir()
    is_dir = Path.is_dir

    def refuse(path: Path) -> bool:  # as to all but root
        if "lost+found" in path.parts:
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert FollowedStore(root).names() == ["tiny"]
    with pytest.raises(StoreError, match="has no tiny@beta; it has the aliases none"):
        find(root, "tiny@beta")


def test_an_empty_folder_says_what_fills_it(tmp_path):
    with pytest.raises(StoreError, match="holds no model; set MODEL_STORE to one that"):
        find(tmp_path, "tiny@prod")


@pytest.mark.parametrize("content", ["", "{}", '{"number": 1}', "[1]", "x" * 20_000])
def test_a_damaged_record_is_named(store, content):
    root, first, _ = store
    point(root, "tiny", "prod", first)
    path = root / alias_dir("tiny", "prod") / "0000000002.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(StoreError, match=r"0000000002\.json is no record of an alias"):
        find(root, "tiny@prod")


def test_a_record_under_another_number_is_refused(store):
    root, first, _ = store
    point(root, "tiny", "prod", first)
    folder = root / alias_dir("tiny", "prod")
    (folder / "0000000007.json").write_bytes((folder / "0000000001.json").read_bytes())
    with pytest.raises(StoreError, match=r"0000000007\.json holds record 1"):
        find(root, "tiny@prod")


@pytest.mark.parametrize("reference", ["tiny@prod", "tiny@{}"])
def test_a_changed_manifest_is_not_its_version(store, reference):
    root, first, _ = store
    point(root, "tiny", "prod", first)
    with (root / version_dir("tiny", first) / "model.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(StoreError, match="not that of its version; fetch it again"):
        find(root, reference.format(first))
