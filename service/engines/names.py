"""What the twins are called: as the stacks would be that deploy the same. A target's plain name is its torch twin's.

heroku is Heroku's twin with torch, heroku-onnx the one with onnx: as a stack of that name would be whose
`cloudtrial:engine` is onnx.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from service.settings import ENGINES, Settings

PLAIN_ENGINE = Settings.engine  # the one that needs no mention, and that the reference answers are computed with
ENGINE_TITLES = {"torch": "PyTorch", "onnx": "ONNX int8"}


def twin_name(target: str, engine: str) -> str:
    """The name of a target's twin that runs this engine, whether or not another one runs beside it."""
    return target if engine == PLAIN_ENGINE else f"{target}-{engine}"


def twin_names(targets: Iterable[str], engines: Iterable[str]) -> list[str]:
    """Of every target's twins, those of one target side by side."""
    engines = tuple(engines)
    return [twin_name(target, engine) for target in targets for engine in engines]


def engine_named(twin: str) -> str:
    """The engine of the twin with that name."""
    return twin.partition("-")[2] or PLAIN_ENGINE


def engine_title(engine: str) -> str:
    """As people write it."""
    return ENGINE_TITLES.get(engine, engine)


def titled(title: str, engine: str | None) -> str:
    """A target as people write it; with its engine, where that is not the plain one."""
    return title if engine in (PLAIN_ENGINE, None) else f"{title} ({engine_title(engine)})"


def read_engines(text: str) -> list[str]:
    """`torch,onnx` as a list, each once and always in the same order. Raises what argparse shows."""
    requested = [name.strip() for name in text.split(",") if name.strip()]
    for name in requested:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(f"{name!r} is not an engine; there are {', '.join(ENGINES)}")
    if not requested:
        raise argparse.ArgumentTypeError(f"names no engine; there are {', '.join(ENGINES)}")
    return [engine for engine in ENGINES if engine in requested]
