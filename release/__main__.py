"""`./cloudtrial release`: take a candidate through its stages; `release approve` lets an undecided one pass."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.cli.arguments import comma_separated
from eval.cli.compare import parse_percent, parse_points
from eval.cli.gate import parse_metrics
from eval.errors import EvalError
from eval.interruption import Interruptions, is_interruption
from eval.validation import printable_lines
from infra.errors import InfraError
from infra.targets import TARGETS
from release.errors import ReleaseError
from release.plan import PROD, STAGES, Plan, check_stages, read_plan, steps, write_plan
from service.command_line import whole_number
from service.errors import ServiceError
from service.settings import ENGINES
from service.store_layout import parse_reference

if TYPE_CHECKING:  # numpy, scipy and aiohttp take seconds to import, which --help should not wait for
    from release.stages import Release

RELEASES = Path("releases")
LOCAL_TARGET = "gcp_cloudrun"  # whose twin is measured, unless --targets names others
LOCAL_CRITERIA = ("accuracy", "precision_macro", "f1_macro", "roc_auc", "failures")
DEFAULT_STORE = Path(__file__).resolve().parent.parent / ".store"
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
MAX_REASON_CHARACTERS = 500  # of an approval: the alias's record has more in its line

EXAMPLES = """
examples:
  ./cloudtrial release --model resnet18-cifar10@candidate
      three stages of local twins, with the golden set: shows how it works, but
      100 images without true classes decide nothing, and gamma asks a person
  ./cloudtrial release --model resnet18-cifar10@candidate --images ~/cifar10 --limit 2000 --margin 2pp
      a test set that decides: not worse by 2 points or more
  ./cloudtrial release --model resnet18-cifar10@candidate --dry-run
      what would be done, without doing it
  ./cloudtrial release --model NAME@candidate --stacks gcp_cloudrun,heroku --images DIR
      stacks gcp_cloudrun-beta, heroku-beta, and so on, by `make up`
  ./cloudtrial release --resume releases/ID
      the rest of a release that was interrupted or killed
  ./cloudtrial release approve releases/ID --reason "5 of 5 mistakes are mislabelled"
      let an undecided stage pass, and go on

stages:
  beta   deployed, ready, self-test by HTTP; the golden set's answers have to be
         the bundle's own. NAME@beta moves.
  gamma  --images, candidate and NAME@prod's version in turns, then the gate of
         `./cloudtrial gate`. NAME@gamma moves.
  prod   a canary beside production on --canary images; NAME@prod moves; production
         follows and is measured again. If it is worse then, or not ready,
         NAME@prod moves back and production is seen to serve the old version.

Everything a release does is in its folder, releases/ID: release.json, journal.jsonl,
the runs (`./cloudtrial report releases/ID/gamma`), and decision.json where it halts.

Exit codes: 0 promoted, 1 worse or failed, 3 undecided, 2 wrong usage, 130 Ctrl-C.
"""


def build_parser() -> argparse.ArgumentParser:
    """Of a new or resumed release."""
    parser = argparse.ArgumentParser(
        prog="./cloudtrial release", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Take a candidate through beta, gamma and prod; stop where it is worse.",
    )  # fmt: skip
    add: Any = parser.add_argument
    add("--model", metavar="NAME@candidate", help="the candidate: an alias or a version of the store")
    add("--stages", type=comma_separated, default=list(STAGES), metavar="A,B", help=f"of {','.join(STAGES)} (default)")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--local", action="store_true", help="twins on this machine (the default)")
    group.add_argument(
        "--stacks", type=comma_separated, metavar="A,B", help=f"stacks without their stage: {', '.join(TARGETS)}"
    )
    add(
        "--targets",
        type=comma_separated,
        default=[LOCAL_TARGET],
        metavar="A,B",
        help=f"whose twins (default: {LOCAL_TARGET})",
    )
    add("--engine", choices=ENGINES, help="of the twins (default: the model's plain one)")
    add("--store", default=os.environ.get("MODEL_STORE") or str(DEFAULT_STORE), metavar="URL",
        help="folder, s3://, gs:// (default: $MODEL_STORE, else the repository's .store)")  # fmt: skip
    add("--images", metavar="DIR", help="test set, as for `./cloudtrial run` (default: the golden set)")
    add("--limit", type=whole_number(1), metavar="N", help="images of it, stratified by class (default: all)")
    add("--canary", type=whole_number(1), default=300, metavar="N", help="images of the canary (default: 300)")
    add("--seed", type=int, default=0, metavar="N", help="of the sample and the order (default: 0)")
    add("--margin", type=parse_points, default=0.005, metavar="Npp", help="of every score (default: 0.5pp)")
    add("--p95-margin", type=parse_percent, default=0.10, metavar="P%", help="of p95 (default: 10%%)")
    add("--failure-margin", type=parse_points, default=0.01, metavar="Npp", help="of failed requests (default: 1pp)")
    add("--only", type=parse_metrics, metavar="CRITERION,...", help="what gamma judges (default: all of `./cloudtrial "
        "gate`; of twins without p95 and cost, as both versions share this machine)")  # fmt: skip
    add("--token-env", metavar="VARIABLE", help="environment variable with the stacks' bearer token")
    add("--dry-run", action="store_true", help="print the steps and end")
    add("--out", type=Path, metavar="DIR", help="new folder of the release (default: releases/ID)")
    add("--resume", type=Path, metavar="DIR", help="go on with a release; all options but --token-env are its own")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; an error that a user can mend is one line."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with Interruptions().raised():
            return _approve(argv[1:]) if argv[:1] == ["approve"] else _release(argv)
    except (ReleaseError, EvalError, InfraError, ServiceError) as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return FAILED
    except OSError as error:
        print(printable_lines(f"{error.filename or 'the output'}: {error.strerror or error}"), file=sys.stderr)
        return FAILED
    except BaseException as error:
        if not is_interruption(error):
            raise
        print("stopped; --resume goes on", file=sys.stderr)
        return INTERRUPTED


def _release(argv: Sequence[str]) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.resume:
        if others := [word for word in argv if word.startswith("--") and word.partition("=")[0] not in KEPT]:
            parser.error(f"{others[0]}: a resumed release has its own options; give --resume and --token-env alone")
        return _go_on(arguments.resume, read_plan(arguments.resume), arguments.token_env)
    if not arguments.model:
        parser.error("--model NAME@candidate is needed, or --resume DIR")
    try:
        plan = _new_plan(arguments)
    except ReleaseError as error:
        parser.error(str(error))
    if arguments.dry_run:
        from release.text import plan_lines

        print(printable_lines("\n".join(plan_lines(plan, steps(plan)))))
        return 0
    if plan.released and not plan.stacks:  # twins follow whenever they are started
        print(f"{plan.model}@{PROD} is {plan.version} already: there is nothing to release")
        return 0
    folder = arguments.out or RELEASES / plan.id
    if (folder / "release.json").exists():
        parser.error(f"--out {folder} has a release already; go on with --resume {folder}")
    if folder.is_dir() and any(folder.iterdir()):  # a release replaces DIR/prod and the like
        parser.error(f"--out {folder} holds something else; name a new folder, or leave --out away: releases/ID")
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, plan)
    print(f"Release {folder}: {plan.model}@{plan.version}, production {plan.production or 'not set'}", flush=True)
    return _go_on(folder, plan, arguments.token_env)


def _approve(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial release approve",
        description="Let an undecided stage pass, and go on. Who, when and why is kept in the journal, and"
        " why in the alias's record, too. What is worse cannot be approved.",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the release, such as releases/ID")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="a line for those who read it later")
    parser.add_argument("--token-env", metavar="VARIABLE", help="as of `./cloudtrial release`")
    arguments = parser.parse_args(argv)
    reason = arguments.reason.strip()
    if not reason or not reason.isprintable() or len(reason) > MAX_REASON_CHARACTERS:
        parser.error(f"--reason: say why, in a line of at most {MAX_REASON_CHARACTERS} characters")
    return _go_on(arguments.folder, read_plan(arguments.folder), arguments.token_env, reason)


def _new_plan(arguments: argparse.Namespace) -> Plan:
    """The plan, with the versions that the aliases point to now. Raises ReleaseError, StoreError."""
    from eval.run.run_dir import new_run_id
    from store.model_store import ModelStore

    reference, stacks = parse_reference(arguments.model), bool(arguments.stacks)
    places = tuple(arguments.stacks or arguments.targets)
    if unknown := [place for place in places if place not in TARGETS]:
        raise ReleaseError(f"{unknown[0]!r} is no target; there are {', '.join(TARGETS)}")
    store = ModelStore.open(arguments.store)
    production = store.aliases(reference.name).get(PROD)
    return Plan(
        id=new_run_id(),
        model=reference.name,
        reference=arguments.model,
        version=store.resolve(arguments.model),
        production=production.version if production else None,
        store=arguments.store if "://" in arguments.store else str(Path(arguments.store).expanduser().absolute()),
        stages=check_stages(tuple(arguments.stages)),
        places=places,
        stacks=stacks,
        engine=arguments.engine,
        images=str(Path(arguments.images).expanduser().absolute())
        if _is_folder(arguments.images)
        else arguments.images,
        limit=arguments.limit,
        canary=arguments.canary,
        seed=arguments.seed,
        margin=arguments.margin,
        p95_margin=arguments.p95_margin,
        failure_margin=arguments.failure_margin,
        only=arguments.only or (() if stacks else LOCAL_CRITERIA),
    )


def _go_on(folder: Path, plan: Plan, token_env: str | None, approval: str | None = None) -> int:
    from release.journal import only_release_of

    with only_release_of(plan.model, folder.absolute().parent):
        release = _open_release(folder, plan, token_env)
        if approval is not None:
            release.approve(approval)
        return release.run()


def _open_release(folder: Path, plan: Plan, token_env: str | None) -> Release:
    from eval.progress import Reporter
    from eval.targets.tokens import read_token
    from release.environments.local import LocalStages
    from release.environments.stacks import StackStages
    from release.measure import Meter
    from release.stages import Release
    from store.model_store import ModelStore

    token = read_token(token_env, os.environ).token if token_env else None
    reporter = Reporter()
    store = ModelStore.open(plan.store)
    environment = (
        StackStages(plan, folder, reporter.print) if plan.stacks else LocalStages(plan, folder, reporter.print, store)
    )
    return Release(folder, plan, store, environment, Meter(plan, reporter, token), reporter.print)


def _is_folder(images: str | None) -> bool:
    return images is not None and images not in ("golden", "cifar10")


KEPT = ("--resume", "--token-env")


if __name__ == "__main__":
    sys.exit(main())
