"""`./cloudtrial store`: the command line of a model store."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.errors import ServiceError, StoreError
from service.store_layout import ModelReference, parse_reference
from store.errors import StoreConflict
from store.model_store import ModelStore
from store.text import history_table, listing, manifest_text, printable, record_line, version_json

DONE, FAILED, CONFLICT, STOPPED = 0, 1, 3, 130  # exit codes
DEFAULT_STORE = Path(__file__).resolve().parent.parent / ".store"

EPILOG = """
A store keeps every version of every model: in a folder, s3://BUCKET/PREFIX or
gs://BUCKET/PREFIX. A version is named by its content, and never changes. Aliases
(candidate, beta, prod) point to versions; each move is recorded, and can be undone.

examples:
  ./cloudtrial store push models/iris                       prints iris@VERSION
  ./cloudtrial store alias iris@VERSION candidate --reason "new data"
  ./cloudtrial store alias iris@candidate prod --reason "passed the gate"
  ./cloudtrial store list iris
  ./cloudtrial store pull iris@prod my-model                a folder for MODEL_DIR
  ./cloudtrial store history iris@prod
  ./cloudtrial store rollback iris@prod --reason "p95 doubled"
  ./cloudtrial store push models/iris --store s3://my-bucket/models

`./cloudtrial store COMMAND --help` explains a command. Exit codes: 0 done, 1 it
could not be done, 2 wrong usage, 3 (alias, rollback) somebody else moved the alias.
"""
PUSH = """
The files are checked against model.json and sent, model.json last: only then is the
version there. What is there already is read back and checked, not sent: after a
stop, the same command sends the rest. Printed: NAME@VERSION.
"""
PULL = """
The files are checked against the checksums that name the version. The folder appears
whole, or not at all.

--follow brings the folder of a running service up to date (MODEL_STORE=FOLDER), as a
timer does: the version's files first, then the alias. Nothing is done, and nothing
printed unless on a terminal, where nothing has changed.

examples:
  ./cloudtrial store pull iris@prod my-model
  ./cloudtrial store pull iris@prod --store s3://my-bucket/models --follow /var/lib/models
"""
ALIAS = """
examples:
  ./cloudtrial store alias iris@0123456789ab candidate
  ./cloudtrial store alias iris@candidate prod --reason "passed the gate" --expect 0123456789ab

Without --expect, moves at the same time are all recorded, and the last one counts.
Nothing is recorded where the alias points to that version already.
"""
ROLLBACK = """
One more record, which points to the version before in the alias's history. A second
rollback leads further back, not forth again; --to leads to any version of the history.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(ModelStore.open(arguments.store, report=_say), arguments) or DONE
    except StoreConflict as error:
        _say(f"store: {error}")
        return CONFLICT
    except ServiceError as error:
        _say(f"store: {error}")
        return FAILED
    except ModuleNotFoundError as error:
        _say(f"store: there is no package {error.name}, which a bucket needs: pip install {error.name}")
        return FAILED
    except KeyboardInterrupt:
        _say("store: stopped; what was not complete is not there")
        return STOPPED


def _push(store: ModelStore, arguments: argparse.Namespace) -> None:
    version = store.push(arguments.folder, arguments.name)
    _show(arguments, version_json(version), str(version))


def _pull(store: ModelStore, arguments: argparse.Namespace) -> None:
    if arguments.follow:
        return _follow(store, arguments)
    if arguments.folder is None:
        raise StoreError("where to? Name a FOLDER that is not there yet, or --follow FOLDER")
    version = store.pull(arguments.reference, arguments.folder)
    _show(arguments, version_json(version), str(version))


def _follow(store: ModelStore, arguments: argparse.Namespace) -> None:
    said = []
    store.report = lambda line: (said.append(line), _say(line))[1]
    record = store.follow(arguments.reference, arguments.follow, arguments.keep)
    if arguments.json:
        print(json.dumps(vars(record) if record else None))
    elif said or sys.stdout.isatty():
        print(f"{arguments.reference}: {record_line(record) if record else 'is there'}")


def _list(store: ModelStore, arguments: argparse.Namespace) -> None:
    names = [arguments.name] if arguments.name else store.names()
    models = [(store.versions(name), store.aliases(name)) for name in names]
    rows = [
        version_json(version) | {"aliases": [alias for alias, at in aliases.items() if at.version == version.version]}
        for versions, aliases in models
        for version in reversed(versions)
    ]
    if not rows and arguments.name:
        raise StoreError(f"no model is called {arguments.name!r} in {store.url}; see ./cloudtrial store list")
    empty = f"{store.url} has no models yet: ./cloudtrial store push FOLDER"
    _show(arguments, rows, listing(rows) if rows else empty)


def _describe(store: ModelStore, arguments: argparse.Namespace) -> None:
    name = parse_reference(arguments.reference).name
    manifest = store.read_manifest(arguments.reference)
    version = store.version(ModelReference(name, version=store.resolve(arguments.reference)))
    aliases = {alias: at for alias, at in store.aliases(name).items() if at.version == version.version}
    content = json.loads(manifest)
    values = version_json(version) | {"aliases": list(aliases), "manifest": content}
    _show(arguments, values, manifest_text(version, content, aliases))


def _alias(store: ModelStore, arguments: argparse.Namespace) -> None:
    name, version = parse_reference(arguments.reference).name, store.resolve(arguments.reference)
    record = store.move_alias(
        name, arguments.alias, version, reason=arguments.reason, created_by=arguments.by, expected=arguments.expect
    )
    _show(arguments, vars(record), f"{name}@{arguments.alias}: {record_line(record)}")


def _rollback(store: ModelStore, arguments: argparse.Namespace) -> None:
    name, alias = _name_and_alias(arguments.reference)
    record = store.rollback(name, alias, reason=arguments.reason, to=arguments.to, created_by=arguments.by)
    _show(arguments, vars(record), f"{name}@{alias}: {record_line(record)}")


def _history(store: ModelStore, arguments: argparse.Namespace) -> None:
    records = store.history(*_name_and_alias(arguments.reference))
    _show(arguments, [vars(record) for record in records], history_table(records))


def _name_and_alias(text: str) -> tuple[str, str]:
    reference = parse_reference(text)
    if reference.alias is None:
        raise StoreError(f"{text} is a version, which never moves; use NAME@ALIAS")
    return reference.name, reference.alias


def _show(arguments: argparse.Namespace, values: Any, text: str) -> None:
    print(json.dumps(values, indent=2) if arguments.json else text)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="./cloudtrial store", description="Keep versions of models, and say which one counts.", epilog=EPILOG,
        formatter_class=raw,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def add(name: str, run: Callable[..., None], text: str, epilog: str = "") -> Callable[..., Any]:
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.", epilog=epilog,
                                      formatter_class=raw)  # fmt: skip
        command.add_argument("--store", default=os.environ.get("MODEL_STORE") or str(DEFAULT_STORE), metavar="URL",
                             help="a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX (default: the environment's "
                             "MODEL_STORE, else the folder .store of the repository)")  # fmt: skip
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)
        return command.add_argument

    option = add("push", _push, "store a model as a version", PUSH)
    option("folder", type=Path, metavar="FOLDER", help="with model.json and the files that it lists")
    option("--name", help="of the model in the store (default: its own, in model.json)")
    option = add("pull", _pull, "write a version into a folder", PULL)
    option("reference", metavar="NAME@ALIAS", help="or NAME@VERSION")
    option("folder", type=Path, nargs="?", metavar="FOLDER", help="to write; empty, or not there yet")
    option("--follow", type=Path, metavar="FOLDER", help="bring the folder of a service up to date")
    option("--keep", type=int, default=2, metavar="N", help="versions that --follow keeps there (default: 2)")
    option = add("list", _list, "list models, versions, and what points to them")
    option("name", nargs="?", metavar="NAME", help="of a model; default: all")
    option = add("show", _describe, "tell what a version is: classes, accuracy, engines, sizes")
    option("reference", metavar="NAME@ALIAS", help="or NAME@VERSION")
    option = add("alias", _alias, "let an alias point to a version", ALIAS)
    option("reference", metavar="REFERENCE", help="of the version: NAME@VERSION, or NAME@ALIAS for where that points")
    option("alias", metavar="ALIAS", help="to move, or to make: prod, say")
    _move_options(option, reason="")
    option("--expect", metavar="VERSION", help="fail unless the alias points there now; none: unless it is new")
    option = add("history", _history, "list every move of an alias, oldest first")
    option("reference", metavar="NAME@ALIAS")
    option = add("rollback", _rollback, "let an alias point to the version before", ROLLBACK)
    option("reference", metavar="NAME@ALIAS")
    _move_options(option)
    option("--to", metavar="VERSION", help="that the alias pointed to earlier")
    return parser


def _move_options(option: Callable[..., Any], reason: str | None = None) -> None:
    option("--reason", default=reason, required=reason is None, metavar="TEXT", help="a line for the history")
    option("--by", metavar="WHO", help="who moves it (default: user@machine)")
