"""The five targets as processes on this machine, started from the clouds' own files.

    with local_twins(["heroku", "aws_ec2"], engines=["torch", "onnx"]) as twins:
        for twin in twins.running: ...

Every target has a twin for each engine, started from the same files, in what is shipped for that engine. They start one
after another, so that each start-up time is its own. Each can be started again at the same address, to measure that or
because it has ended. Leaving the context ends them all, however it is left; on Linux they also end when this process is
killed.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from infra.errors import ModelError, TwinError
from infra.local.following.twin_store import TwinStore
from infra.local.process import Process
from infra.local.running.starter import TwinStarter
from infra.local.running.twin import Twins, stop_all
from infra.local.staging import stage, stage_mounted
from infra.local.start_commands import mounted_model
from infra.models import DEFAULT_MODEL, as_bundle, choose_engine
from infra.targets import AWS_SAGEMAKER, TARGETS, Target
from service.engines.names import PLAIN_ENGINE, titled, twin_name
from service.model import Bundle


@contextlib.contextmanager
def local_twins(
    names: Iterable[str] = tuple(TARGETS),
    log_dir: Path | None = None,
    env: Mapping[str, Mapping[str, str]] | None = None,
    on_event: Callable[[str], None] = lambda text: None,
    engines: Iterable[str] = (PLAIN_ENGINE,),
    model: str | Bundle = DEFAULT_MODEL,
    store: TwinStore | None = None,
) -> Iterator[Twins]:
    """Start the named targets' twins; end them when the context is left, in the thread that entered it.

    They serve `model`, a bundle or the name of one in models/, or else what `store` says, with each of `engines`; where
    none is named, with the model's default. `log_dir` keeps NAME.log of each. `env` holds settings of the service by
    the twin's name, as one would set them on that platform. `on_event` receives a line for every event; a failure has
    the last lines of the log.
    """
    twins = Twins()
    with tempfile.TemporaryDirectory(prefix="twins-") as folder, contextlib.ExitStack() as stack:
        logs = log_dir or Path(folder)
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TwinError(f"{logs} cannot be the folder of the logs: {error.strerror}") from None
        try:
            bundle = store.pull(Path(folder) / "pulled").bundle if store else as_bundle(model)
            chosen = list(engines) or [choose_engine(bundle)]
            shipped = list(itertools.product([_target(name) for name in names], chosen))
            roots = {each: _stage(Path(folder), *each, bundle, store) for each in shipped}
        except ModelError as error:
            raise TwinError(str(error)) from None
        processes: list[Process] = []
        stack.callback(stop_all, processes)
        for target, engine in shipped:
            name, title = twin_name(target.name, engine), _title(target, engine, bundle)
            on_event(f"{title}: starting")
            own_env = (env or {}).get(name, {})
            starter = TwinStarter(target, engine, bundle, title, roots[target, engine], logs, own_env, processes, store)
            try:
                twin = starter.start()
            except TwinError as error:
                twins.failures[name] = str(error)
                on_event(f"{title}: not started: {error}")
            else:
                twins.running.append(twin)
                on_event(f"{title}: ready after {twin.startup_ms / 1000:.1f} s at {twin.url}")
        yield twins


def _stage(folder: Path, target: Target, engine: str, bundle: Bundle, store: TwinStore | None) -> Path:
    """The root of what is shipped. SageMaker's has more than the others'; with a store each twin has its own, for a
    release changes it."""
    own = store is not None or target is AWS_SAGEMAKER
    root = folder / engine / (target.name if own else "") / "app"
    if root.exists():
        return root
    stage(root, engine, bundle, target=target.name if own else "", store=store is not None)
    if store and target is AWS_SAGEMAKER:
        stage_mounted(mounted_model(root), engine, bundle)
    return root


def _title(target: Target, engine: str, bundle: Bundle) -> str:
    """As people write it; with its engine, where that is not the model's plain one."""
    return target.title if engine == choose_engine(bundle) else titled(target.title, engine)


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise TwinError(f"no target is called {name!r}: choose from {', '.join(TARGETS)}")
    return TARGETS[name]
