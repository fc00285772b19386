"""Replaces the model of a running process: load aside, self-test, swap one reference, drain, free.

One thread does it all, one model at a time: it looks at the followed folder every MODEL_POLL_S, and does what
management calls ask for. Requests are answered meanwhile. Whatever goes wrong, the present model stays.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Thread

from service.classifier import Classifier
from service.errors import (
    BundleError,
    InsufficientStorage,
    ModelNotFound,
    ModelRefused,
    NotInStore,
    Problem,
    QueueFull,
    SettingsError,
    StoreError,
    SwitchConflict,
    SwitchProblem,
)
from service.lifecycle.followed_store import FollowedStore, Refusal, StoredVersion
from service.lifecycle.memory import check_memory
from service.lifecycle.served_model import CurrentModel, ServedModel
from service.model import Bundle, load_bundle
from service.settings import ENGINES, Settings
from service.store_layout import ModelReference
from service.system import give_back_memory

MAX_ORDERS = 4  # management calls that wait, each with a thread
RETRY_AFTER_S = 5
MAX_DRAIN_S = 60.0  # for which a switch waits for the old model's last requests; then they end without it


@dataclass(frozen=True)
class Order:
    """What a management call asks for."""

    reference: ModelReference | None  # None: the one that is followed, again
    done: Future[ServedModel] = field(default_factory=Future)


class ModelSwitcher:
    """The thread that loads, swaps and frees models."""

    def __init__(
        self,
        current: CurrentModel,
        settings: Settings,
        *,
        switch: Callable[[ServedModel], ServedModel],
        refused: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda line: print(f"service: {line}", file=sys.stderr, flush=True),
    ):
        """`switch` swaps the reference and returns the model before; `refused` counts a model that was not taken."""
        self._current = current
        self._settings = settings
        self._switch, self._refused, self._say = switch, refused, say
        self._store = FollowedStore(settings.model_store) if settings.model_store else None
        self._following = settings.model
        self.refusal = settings.refusal  # of what is followed; None once that is served
        self._failed = self.refusal and self.refusal.found  # what the last look found and could not take
        self._failed_files = _file_times(self._failed)
        self._fault: object = self.refusal and (self.refusal.found, self.refusal.why)  # that the last look said
        self._orders: SimpleQueue[Order] = SimpleQueue()

    def start(self) -> None:
        """Start the thread; in the process that serves, after any fork. Says what has been refused by then."""
        if self.refusal:
            present = self._current.model
            self._say(f"{self.refusal} is not taken: {self.refusal.why}; serves {present.name} {present.version}")
            self._refused()
        Thread(target=self._work, name="model-switch", daemon=True).start()

    def load(self, reference: ModelReference | None = None) -> ServedModel:
        """Serve what a reference leads to, and follow it from now on; or the present one, read again.

        Returns when that is served and the one before is freed. Raises SwitchProblem, or QueueFull when too many wait.
        """
        if reference and not self._store:
            raise SwitchConflict("this service follows no store; set MODEL_STORE and MODEL to change models")
        if self._orders.qsize() >= MAX_ORDERS:
            raise QueueFull(f"{MAX_ORDERS} loads wait already; try again in {RETRY_AFTER_S} s", RETRY_AFTER_S)
        order = Order(reference)
        self._orders.put(order)
        return order.done.result()

    def stored(self) -> list[tuple[str, str]]:
        """Name and version of each model that could be served: those of the store, or the present one alone."""
        if self._store is None:
            present = self._current.model
            return [(present.name, present.version)]
        store = self._store
        return [(name, version) for name in store.names() for version in store.versions(name)]

    def resolve(self, name: str, alias: str | None = None, version: str | None = None) -> ModelReference | None:
        """What a load of this name means: by default the alias that is followed, for another model too."""
        present, following = self._current.model, self._following
        if alias or version:
            return ModelReference(name, alias, version)
        if name == present.name:
            return None
        if following is None:
            raise ModelNotFound(f"this service has {present.name!r} alone; set MODEL_STORE and MODEL to change models")
        if following.alias is None:
            raise SwitchConflict(
                f"{following} is served, which is no alias; say which version or alias of {name} to load"
            )
        return ModelReference(name, following.alias)

    def _work(self) -> None:
        poll_s = self._settings.model_poll_s if self._store else 0
        while True:
            try:
                order = self._orders.get(timeout=poll_s or None)
            except Empty:
                self.look()
            else:
                self._carry_out(order)

    def look(self) -> None:
        """Take what the followed reference leads to, if that is new; what failed again once its files have changed."""
        following, found = self._following, None
        if self._store is None or following is None:
            return
        try:
            found = self._store.find(following)
            if found == self._failed and _file_times(found) == self._failed_files:
                return
            if found != self._current.model.stored:
                self._take(found)
            self._fault = self.refusal = None
        except Exception as error:
            problem = as_problem(error)
            if not isinstance(problem, InsufficientStorage):  # there may be enough at the next look
                self._failed, self._failed_files = found, _file_times(found)
            self.refusal = Refusal(following, found, problem.detail)
            fault = (found, problem.title if found else problem.detail)  # not how much memory was free
            if fault != self._fault:
                self._say(f"{self.refusal} is not taken: {self.refusal.why}")
                self._refused()
            self._fault = fault

    def _carry_out(self, order: Order) -> None:
        reference = order.reference or self._following
        try:
            found = self._store.find(reference) if self._store and reference else None
            model = self._take(found, again=True)
            self._following, self._failed, self._fault, self.refusal = reference, None, None, None
        except Exception as error:
            problem = as_problem(error)
            self._refused()
            self._say(f"{reference or self._current.model.name} is not loaded: {problem.detail}")
            order.done.set_exception(problem)
        else:
            order.done.set_result(model)

    def _take(self, found: StoredVersion | None, *, again: bool = False) -> ServedModel:
        """Serve a version, or MODEL_DIR again. A version that is served already is loaded again only if asked for."""
        present = self._current.model
        if found and present.stored and not again and same_files(found, present.stored):
            model = present.moved_to(found)
            self._current.swap(model)
            return model
        model = self._load(found)
        before = self._switch(model)
        self._free(before)
        self._say(f"serves {model.name} {model.version} now, {model.answer['engine']} {model.answer['version']}")
        return model

    def _load(self, found: StoredVersion | None) -> ServedModel:
        folder = found.folder if found else self._settings.model_dir
        bundle = load_bundle(folder, [])
        engine = self._engine_for(bundle)
        check_memory(bundle, engine)
        settings = replace(self._settings, model_dir=folder, engine=engine)
        return ServedModel.of(Classifier.load(settings, self._current.model.classifier.decode_turns), found)

    def _engine_for(self, bundle: Bundle) -> str:
        """ENGINE; where that is not set, the present one, or another that the bundle has a file for."""
        if not self._settings.any_engine:
            bundle.engine(self._settings.engine)
            return self._settings.engine
        choices = (self._current.model.answer["engine"], *ENGINES)
        return next(engine for engine in choices if engine in bundle.engines)

    def _free(self, model: ServedModel) -> None:
        """Free a model that was replaced, after its last request."""
        drain = Thread(target=self._drain, args=(model,), name="model-drain", daemon=True)
        drain.start()
        drain.join(MAX_DRAIN_S)

    def _drain(self, model: ServedModel) -> None:
        self._current.wait_unused(model)
        model.classifier.close()
        give_back_memory()


def same_files(one: StoredVersion, other: StoredVersion) -> bool:
    return (one.name, one.version) == (other.name, other.version)


def _file_times(found: StoredVersion | None) -> list[tuple[str, int, int]]:
    """The version's files with size and time in ns: of a damaged one that was fetched again they differ."""
    with suppress(OSError):  # they are being replaced
        files = [(file.name, file.stat()) for file in sorted(found.folder.iterdir())] if found else []
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    return []


def as_problem(error: Exception) -> Problem:
    """Why a model was not taken. Without the exception itself, whose traceback would keep a half-loaded model alive."""
    match error:
        case SwitchProblem():
            return type(error)(error.detail)
        case NotInStore():
            return ModelNotFound(str(error))
        case BundleError() | SettingsError() | StoreError():
            return ModelRefused(str(error))
    traceback.print_exception(error)
    return ModelRefused(f"the model cannot be loaded ({type(error).__name__}); the service's log says why")
