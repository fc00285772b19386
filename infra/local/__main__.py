"""`./cloudtrial twins [NAME...]`: start the twins, print where they are, end them on Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from infra.errors import ModelError, TwinError
from infra.local.twins import Twin, local_twins
from infra.models import DEFAULT_MODEL, choose_engine, model_names, read_model
from infra.targets import TWIN_TARGETS
from service.engines.names import PLAIN_ENGINE, read_engines
from service.settings import ENGINES

POLL_S = 1.0  # between two looks whether all still run


def main(argv: list[str] | None = None) -> int:
    """0 once a signal has ended the twins, 128 and its number when it came before they were ready.

    1 when no twin could be started or the last one has ended, 2 for an unknown name or model.
    """
    parser = argparse.ArgumentParser(prog="./cloudtrial twins", description="The four targets on this machine.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"targets to start, of {', '.join(TWIN_TARGETS)}; else all"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help=f"of models/: {', '.join(model_names())}"
                        f" (default: {DEFAULT_MODEL})")  # fmt: skip
    parser.add_argument(
        "--engines", type=read_engines, metavar="A,B",
        help=f"a twin of each target for each of {', '.join(ENGINES)} (default: {PLAIN_ENGINE}, or the only one that "
        "the model has); NAME-onnx runs onnx",
    )  # fmt: skip
    parser.add_argument("--log-dir", type=Path, help="folder that keeps what each one prints")
    arguments = parser.parse_args(argv)
    stopped_by, ready = 0, False

    def stop(number: int, _: object) -> None:
        nonlocal stopped_by
        stopped_by = number
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        names = arguments.names or TWIN_TARGETS
        engines = arguments.engines or [choose_engine(read_model(arguments.model))]
        with local_twins(
            names, arguments.log_dir, on_event=print_line, engines=engines, model=arguments.model
        ) as twins:
            ready = True
            print_line("Ctrl-C ends them." if twins.running else "None could be started.")
            _watch(twins.running)
    except (ModelError, TwinError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if ready:
            return 0
        print("stopped before the twins were ready", file=sys.stderr)
        return 128 + stopped_by
    return 1


def print_line(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def _watch(running: list[Twin]) -> None:
    """Return when none is left; say which one has ended, and its last lines."""
    remaining = list(running)
    while remaining:
        for twin in [twin for twin in remaining if not twin.alive()]:
            print_line(f"{twin.title} has ended.\n{twin.log_tail()}")
            remaining.remove(twin)
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
