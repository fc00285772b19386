"""The model that a process begins with. One that follows an alias starts though the alias leads to a damaged
version, or to one that cannot run here.

It serves what the alias led to before, or else its own bundle of that name, as a process that runs already would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from service.classifier import Classifier
from service.errors import BundleError, SettingsError, StoreError
from service.lifecycle.followed_store import FollowedStore, Refusal
from service.model import load_bundle
from service.settings import Settings


def load_with_fallback(settings: Settings) -> tuple[Classifier, Settings]:
    """The model, and the settings with which it was loaded: `refusal` says why another one is not served.

    Raises BundleError or SettingsError where none can be had.
    """
    if settings.refusal:
        fault = _damaged(settings.refusal)
    else:
        try:
            return _load(settings)
        except (BundleError, SettingsError) as error:  # the latter where the library of its engine is not installed
            fault = type(error)(str(error))  # its traceback would keep what was loaded in memory
    for other in _others(settings, str(fault)):
        with suppress(BundleError, SettingsError):
            return _load(other)
    raise fault


def _load(settings: Settings) -> tuple[Classifier, Settings]:
    """With another engine of the bundle where ENGINE is not set and the library of the first is not installed."""
    try:
        return Classifier.load(settings), settings
    except SettingsError:
        if not settings.any_engine:
            raise
        for engine in load_bundle(settings.model_dir, []).engines:
            other = replace(settings, engine=engine)
            with suppress(SettingsError):
                return Classifier.load(other), other
        raise


def check_fallback(settings: Settings) -> None:
    """Raise BundleError where nothing is there in place of what `settings.refusal` refuses. Reads no weights."""
    if settings.refusal and next(_others(settings, settings.refusal.why), None) is None:
        raise _damaged(settings.refusal)


def _damaged(refusal: Refusal) -> BundleError:
    return BundleError(f"MODEL_STORE: {refusal.why}")


def _others(settings: Settings, why: str) -> Iterator[Settings]:
    """What the alias led to before, the last one first, then the own bundle."""
    model, store = settings.model, settings.model_store
    if store is None or model is None or model.alias is None:
        return
    refusal = settings.refusal or Refusal(model, settings.stored, why)
    with suppress(StoreError):  # its records cannot be listed
        for stored in FollowedStore(store).history(model):
            if stored.folder != settings.model_dir:
                yield settings.serving(stored.folder, stored, refusal)
    with suppress(BundleError):
        if (own := settings.fallback_model_dir) and load_bundle(own, []).name == model.name:
            yield settings.serving(own, None, refusal)
