"""A store in a folder, and versions in it."""

from __future__ import annotations

import pytest

from store.model_store import ModelStore
from tests.helpers.store_bundles import plain_bundle


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore.open(str(tmp_path / "store"))


@pytest.fixture
def versions(store, tmp_path) -> list[str]:
    """Four versions of the model tiny, in the store."""
    return [store.push(plain_bundle(tmp_path / letter, letter)).version for letter in "abcd"]
