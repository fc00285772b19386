"""The command line: `python -m eval run`, `report`, `prices`, `cost`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.endpoints import open_fleet, remote_endpoints
from eval.folder import claim_folder, new_run_id, point_latest
from eval.harness import INTERRUPTED, SINGLE, Options, run_comparison
from eval.images import ImageSet, open_images
from eval.progress import Screen
from eval.samples import Run, RunError
from infra.targets import TARGETS

REPORTS = Path("reports")
VOLUME = 100_000  # requests a month, where none are given
COST_FIGURES = ("region", "size", "vcpus", "memory_mib", "concurrency", "max_instances", "instances", "service_ms",
                "boot_s")  # fmt: skip
FAILED, MISUSED, STOPPED = 1, 2, 130  # exit codes

RUN_EXAMPLES = f"""
examples:
  python -m eval run
      four twins on this machine, pictures as below
  python -m eval run --limit 300 --images ~/cifar10
      300 pictures of class folders, each class alike
  python -m eval run --stacks aws_ec2,heroku
      what `pulumi up` has deployed
  python -m eval run --target heroku=https://app.example --target mine=http://127.0.0.1:8080
      two addresses, the first priced as a Heroku dyno
  API_TOKEN=... python -m eval run --stacks gcp_cloudrun --token-env API_TOKEN
      with a bearer token, which is stored nowhere

An endpoint called {", ".join(TARGETS)} (or aws_ec2-STAGE
and so on) is priced as that target; any other is measured without costs.

Without --images: $CIFAR10_DIR, then the CIFAR-10 copy in ~/.cache/cloudtrial
(downloaded once), then the golden set that comes with the project.

Ctrl-C ends a run early; what was measured is reported.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says. Gives the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    arguments.line = ("python", "-m", "eval", *argv)
    # SIGTERM, with which schedulers end a job, leaves as good a run as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return arguments.command(arguments)
    except RunError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED


def run(arguments: argparse.Namespace) -> int:
    """Measure, report, say the verdict."""
    screen = Screen()
    token = _token(arguments.token_env)
    local = arguments.local or not (arguments.stacks or arguments.target)
    remote = remote_endpoints(local, arguments.stacks, arguments.target)
    images = open_images(arguments.images, arguments.limit, arguments.seed, screen.say)
    screen.say(f"Images: {images.source} ({len(images.pictures):,})")
    run_id = new_run_id()
    folder = arguments.out or REPORTS / run_id
    claim_folder(folder)
    options = Options(arguments.seed, arguments.warmup, arguments.block, arguments.timeout_s, token, arguments.line)
    with open_fleet(local, remote, folder / "logs", screen.say) as fleet:
        done = run_comparison(folder, run_id, fleet, images, options, screen)
    if arguments.out is None:
        point_latest(folder)
    return _conclude(folder, done, images, screen)


def report(arguments: argparse.Namespace) -> int:
    """Write the reports of a run again."""
    _report(arguments.folder, Screen())
    return 0


def prices(arguments: argparse.Namespace) -> int:
    """Print the dated table."""
    from eval.prices import load_prices, table

    print(table(load_prices()))
    return 0


def cost(arguments: argparse.Namespace) -> int:
    """Print what a deployment would cost."""
    from eval.estimate import Deployment, estimate, lines
    from eval.prices import load_prices

    asked = {name: value for name, value in vars(arguments).items() if name in COST_FIGURES and value is not None}
    found = estimate(Deployment(arguments.target, **asked), arguments.requests_per_month or [VOLUME], load_prices())
    print(json.dumps(found) if arguments.json else "\n".join(lines(found)))
    return 0


def _conclude(folder: Path, done: Run, images: ImageSet, screen: Screen) -> int:
    """Report as far as there is something to report."""
    interrupted = (done.note or "").startswith(INTERRUPTED)
    if done.planned == 0:
        reasons = "; ".join(f"{t.name}: {(t.failure or '').splitlines()[0]}" for t in done.targets if t.failure)
        raise RunError(f"nothing could be measured, see {folder}: {reasons}")
    if done.note:
        screen.say(f"Not complete: {done.note}")
    _report(folder, screen, images)
    return STOPPED if interrupted else 0


def _report(folder: Path, screen: Screen, images: ImageSet | None = None) -> None:
    from eval import report  # plotting takes a second to import, and has no place beside the measuring

    picture = (lambda index: images.pictures[index].data) if images else None
    written = report.write_reports(folder, picture)
    for name in (report.REPORT_HTML, report.REPORT_MD, report.REPORT_JSON):
        screen.say(str(folder / name))
    screen.say(written["verdict"]["sentence"])


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise RunError(f"--token-env {variable}: no such environment variable, or an empty one")
    return token


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval", description="Measure the service where it is deployed.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    one = commands.add_parser("report", help="write the reports of a run again, from its samples alone")
    one.add_argument("folder", type=Path, metavar="RUN_DIR", help="such as reports/latest")
    one.set_defaults(command=report)
    table = commands.add_parser("prices", help="print every price used, with its source and date")
    table.set_defaults(command=prices)
    _add_cost(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run", help="post the same pictures to every endpoint and compare", epilog=RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add: Callable[..., Any] = parser.add_argument
    add("--local", action="store_true", help="the four twins on this machine (the default)")
    add("--stacks", type=_names, default=[], metavar="A,B", help="deployed Pulumi stacks")
    add("--target", action="append", default=[], metavar="NAME=URL", help="any endpoint; may be given again")
    add("--images", metavar="DIR|cifar10|golden", help="CLASS/* or test/CLASS/*, torchvision's folder, or a set's name")
    add("--limit", type=_at_least(1), metavar="N", help="pictures, chosen by the seed, each class alike (default: all)")
    add("--seed", type=int, default=0, help="of sample and order (default: 0)")
    add("--scenario", choices=[SINGLE], default=SINGLE, help="single: one request after the other (the default)")
    add("--warmup", type=_at_least(0), default=20, metavar="N", help="requests a target before measuring (default: 20)")
    add("--block", type=_at_least(1), default=25, metavar="N", help="requests in a row to one target (default: 25)")
    add("--timeout-s", type=_seconds, default=30.0, metavar="S", help="for one request (default: 30)")
    add("--token-env", metavar="NAME", help="environment variable with the bearer token for all endpoints")
    add("--out", type=Path, metavar="DIR", help="folder of the run (default: reports/ID, linked as reports/latest)")
    parser.set_defaults(command=run)


def _add_cost(commands: Any) -> None:
    parser = commands.add_parser("cost", help="print what a deployment would cost, before there is a run")
    add: Callable[..., Any] = parser.add_argument
    add("target", choices=tuple(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    add("--requests-per-month", type=_at_least(0), action="append", metavar="N", help=f"default: {VOLUME:,}")
    add("--service-ms", type=_number, metavar="MS", help="of one request in the service (default: 80)")
    add("--boot-s", type=_seconds, metavar="S", help="from nothing to the first answer (default: 8)")
    add("--region", help="such as the target's own, for which the list has prices")
    add("--size", help="of AWS EC2 and Heroku")
    add("--vcpus", type=_number, metavar="N", help="of one instance at Google")
    add("--memory-mib", type=_at_least(1), metavar="N", help="of one instance at Google")
    add("--concurrency", type=_at_least(1), metavar="N", help="requests in one instance at Google")
    add("--max-instances", type=_at_least(1), metavar="N", help="at Google")
    add("--instances", type=_at_least(0), metavar="N", help="that run without any request (dynos)")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(command=cost)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    return _above_zero(text, "number of seconds")


def _number(text: str) -> float:
    return _above_zero(text, "number")


def _above_zero(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what} above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
