"""`./cloudtrial twins [NAME...]`: start the twins, print where they are, end them on Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from infra.errors import ModelError, TwinError
from infra.local.following.twin_store import TwinStore
from infra.local.invoke_endpoint.process import signed_example
from infra.local.running.twin import Twin
from infra.local.twins import local_twins
from infra.models import DEFAULT_MODEL, model_names
from infra.targets import TARGETS
from service.engines.names import PLAIN_ENGINE, read_engines
from service.settings import ENGINES

POLL_S = 1.0  # between two looks whether all still run


def main(argv: list[str] | None = None) -> int:
    """0 once a signal has ended the twins, 128 and its number when it came before they were ready.

    1 when no twin could be started or the last one has ended, 2 for an unknown name or model.
    """
    parser = argparse.ArgumentParser(prog="./cloudtrial twins", description="The five targets on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"targets to start, of {', '.join(TARGETS)}; else all")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help=f"of models/: {', '.join(model_names())}"
                        f" (default: {DEFAULT_MODEL}); with --store NAME@ALIAS")  # fmt: skip
    parser.add_argument("--store", type=Path, metavar="DIR", help="a store of models in a folder: each twin gets new "
                        "versions in its platform's way, EC2's and Cloud Run's without a restart")  # fmt: skip
    parser.add_argument("--poll", type=_seconds, metavar="S", help="seconds between two looks at the store (default: "
                        "as on the platforms, 10 to 30)")  # fmt: skip
    parser.add_argument(
        "--engines", type=read_engines, metavar="A,B",
        help=f"a twin of each target for each of {', '.join(ENGINES)} (default: {PLAIN_ENGINE}, or the only one that "
        "the model has); NAME-onnx runs onnx",
    )  # fmt: skip
    parser.add_argument("--log-dir", type=Path, help="folder that keeps what each one prints")
    arguments = parser.parse_args(argv)
    store = TwinStore(arguments.store, arguments.model, arguments.poll) if arguments.store else None
    stopped_by, ready = 0, False

    def stop(number: int, _: object) -> None:
        nonlocal stopped_by
        stopped_by = number
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(number, stop)
    try:
        names = arguments.names or TARGETS
        with local_twins(
            names, arguments.log_dir, None, print_line, arguments.engines or (), arguments.model, store
        ) as twins:
            ready = True
            for twin in twins.running:
                if twin.platform:
                    print_line(f"{twin.title} takes signed requests: {signed_example(twin.port)}")
            print_line("Ctrl-C ends them." if twins.running else "None could be started.")
            _watch(twins.running, store)
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400")
    return seconds


def _watch(running: list[Twin], store: TwinStore | None) -> None:
    """Return when none is left; say which one has ended, and its last lines. A new version is released."""
    remaining, version = list(running), store.version() if store and running else ""
    while remaining:
        if store:
            version = release_new_version(remaining, store, version)
        for twin in [twin for twin in remaining if not twin.alive()]:
            print_line(f"{twin.title} has ended.\n{twin.log_tail()}")
            remaining.remove(twin)
        time.sleep(POLL_S)


def release_new_version(running: Sequence[Twin], store: TwinStore, version: str) -> str:
    """Release what the alias points to, where that is another version. Returns the version that is served."""
    try:
        if (newest := store.version()) != version:
            print_line(f"{store.reference} points to {newest}.")
            for twin in running:
                if twin.release():
                    print_line(f"{twin.title}: released {newest}.")
        return newest
    except TwinError as error:
        print_line(f"{store.reference}: {error}")
        return version


if __name__ == "__main__":
    sys.exit(main())
