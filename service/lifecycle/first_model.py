"""The model that a process begins with. One that follows an alias starts though the alias leads to a damaged version.

It serves what the alias led to before, or else its own bundle of that name, as a process that runs already would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from service.classifier import Classifier
from service.errors import BundleError
from service.lifecycle.followed_store import FollowedStore, Refusal
from service.model import load_bundle
from service.settings import Settings


def load_first(settings: Settings) -> tuple[Classifier, Settings]:
    """The model, and the settings with which it was loaded: `refusal` says why another one is not served.

    Raises BundleError where none can be had, and SettingsError.
    """
    if settings.refusal and not settings.stored:  # the store is damaged, and has nothing earlier
        fault = BundleError(f"MODEL_STORE: {settings.refusal.why}")
    else:
        try:
            return Classifier.load(settings), settings
        except BundleError as error:
            fault = BundleError(str(error))  # its traceback would keep what was loaded in memory
    for other in _others(settings, fault):
        with suppress(BundleError):
            return Classifier.load(other), other
    raise fault


def _others(settings: Settings, fault: BundleError) -> Iterator[Settings]:
    model, store = settings.model, settings.model_store
    if store is None or model is None or model.alias is None:
        return
    refusal = settings.refusal or Refusal(model, settings.stored, str(fault))
    for stored in FollowedStore(store).history(model):
        if stored.folder != settings.model_dir:
            yield settings.serving(stored.folder, stored, refusal)
    with suppress(BundleError):
        if (own := settings.own_model_dir) and load_bundle(own, []).name == model.name:
            yield settings.serving(own, None, refusal)
