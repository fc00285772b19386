"""`./cloudtrial run`: measure, report, say the verdict."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.cli.arguments import at_least, names, number, scenarios, seconds
from eval.cli.report import write_report
from eval.errors import EvalError
from eval.formatting import usd
from eval.plan.config import Config
from eval.progress import Screen
from eval.run.run_dir import claim_folder, new_run_id, point_latest
from eval.samples.model import Run
from infra.local.names import PLAIN_ENGINE, read_engines, twin_names
from infra.targets import TARGETS
from service.settings import ENGINES

if TYPE_CHECKING:  # scipy and aiohttp take seconds to import, which --help should not wait for
    from eval.dataset.images import ImageSet
    from eval.load.load_generator import Options

REPORTS = Path("reports")
CONFIG = {field.name for field in dataclasses.fields(Config)}
STOPPED = 130  # exit code of a run that was interrupted

EXAMPLES = f"""
examples:
  ./cloudtrial run
      four twins on this machine, pictures as below
  ./cloudtrial run --limit 300 --images ~/cifar10
      300 pictures of class folders, each class alike
  ./cloudtrial run --local --engines torch,onnx
      eight twins: what the switch of the engine is worth on each target
  ./cloudtrial run --stacks aws_ec2,heroku
      what `pulumi up` has deployed
  ./cloudtrial run --target heroku=https://app.example --target mine=http://127.0.0.1:8080
      two addresses, the first priced as a Heroku dyno
  API_TOKEN=... ./cloudtrial run --stacks gcp_cloudrun --token-env API_TOKEN
      with a bearer token, which is stored nowhere

An endpoint called {", ".join(TARGETS)} (or aws_ec2-STAGE
and so on) is priced as that target; any other is measured without costs.
Two of one target that say in /version that they run different engines, such
as heroku and heroku-onnx, are compared as such, on this machine or deployed.

Without --images: $CIFAR10_DIR, then the CIFAR-10 copy in ~/.cache/cloudtrial
(downloaded once), then the golden set that comes with the project.

scenarios:
  single    one request after the other, every picture once to every target
  poisson   --rate requests a second at random times, answered or not
  ramp      the same, the rate growing from nothing to --rate
  burst     --burst requests at once, five times
  max_rate  the highest rate at which p95 stays within --slo-ms: doubling from
            --rate until it breaks, then bisection
  repeat    one picture again and again: is there a cache in between?
  cold      --cold forced starts of each target
  idle      --idle gaps of --gap seconds: does it start anew by itself?

Ctrl-C ends a run early; what was measured is reported, and --resume goes on.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C.
"""


def add_run(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser(
        "run", help="post the same pictures to every endpoint and compare", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add: Callable[..., Any] = parser.add_argument
    add("--local", action="store_true", help="the four twins on this machine (the default)")
    add("--engines", type=read_engines, metavar="A,B", help=f"a twin of each target for each of {', '.join(ENGINES)}:"
        f" NAME with {PLAIN_ENGINE} (the default), NAME-onnx with onnx")  # fmt: skip
    add("--stacks", type=names, metavar="A,B", help="deployed Pulumi stacks")
    add("--target", dest="targets", action="append", metavar="NAME=URL", help="any endpoint; may be given again")
    add("--images", metavar="DIR|cifar10|golden", help="CLASS/* or test/CLASS/*, torchvision's folder, or a set's name")
    add("--limit", type=at_least(1), metavar="N", help="pictures, chosen by the seed, each class alike (default: all)")
    add("--seed", type=int, metavar="N", help="of sample, order and arrival times (default: 0)")
    add("--scenario", dest="scenarios", type=scenarios, metavar="A,B", help="what to try, see below (default: single)")
    add("--rate", dest="rate_rps", type=number, metavar="R", help="requests a second (default: 10)")
    add("--duration", dest="duration_s", type=seconds, metavar="S", help="of poisson and ramp, a target (default: 60)")
    add("--slo-ms", type=number, metavar="MS", help="that p95 is held against (default: 200)")
    add("--burst", type=at_least(2), metavar="N", help="requests at once (default: 32)")
    add("--cold", type=at_least(1), metavar="N", help="starts of each target to force (default: 20)")
    add(
        "--cold-command", action="append", default=[], metavar="NAME=COMMAND",
        help="starts a deployed target anew, as `pulumi up --yes --stack NAME --config cloudtrial:revision={revision}`"
        " does; twins need none",
    )  # fmt: skip
    add("--idle", type=at_least(1), metavar="N", help="gaps to leave each target alone for (default: 5)")
    add("--gap", dest="gap_s", type=seconds, metavar="S", help="length of such a gap (default: 900)")
    add("--fresh", action="store_true", default=None, help="a new connection for every request")
    add("--in-flight", type=at_least(1), metavar="N", help="requests under way at once, at most (default: 256)")
    add("--workers", type=at_least(1), metavar="N", help="processes that send the open streams (default: 1)")
    add("--scheduler", metavar="ADDRESS", help="dask scheduler whose workers send them, such as tcp://10.0.0.5:8786")
    add("--warmup", type=at_least(0), metavar="N", help="requests a target before measuring (default: 20)")
    add("--block", type=at_least(1), metavar="N", help="requests in a row to one target (default: 25)")
    add("--floor", type=at_least(0), metavar="N", help="no-op round trips, first and last of all (default: 25)")
    add("--timeout-s", type=seconds, metavar="S", help="for one request (default: 30)")
    add("--max-usd", type=number, metavar="X", help="end the run when it has cost so much; what it may cost is said")
    add("--token-env", metavar="NAME", help="environment variable with the bearer token for all endpoints")
    folder = parser.add_mutually_exclusive_group()
    folder.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: reports/ID, linked as"
                        " reports/latest)")  # fmt: skip
    folder.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run that was ended")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, report, say the verdict."""
    from eval.dataset.images import open_images
    from eval.load.load_generator import Options
    from eval.run.runner import opening, run_comparison
    from eval.targets.endpoints import open_fleet, remote_endpoints
    from eval.targets.restart import read_cold_commands, refuse_unknown

    screen = Screen()
    cold_commands = read_cold_commands(arguments.cold_command)
    options = Options(
        _token(arguments.token_env), arguments.line, cold_commands, arguments.max_usd, arguments.scheduler
    )
    if arguments.resume:
        return _go_on(arguments, options, screen)
    config = _config(arguments, Config())
    engines, twins = _twins(config)
    remote = remote_endpoints(twins, config.stacks, config.targets)
    images = open_images(config.images, config.limit, config.seed, screen.say)
    screen.say(f"Images: {images.source} ({len(images.pictures):,})")
    refuse_unknown(cold_commands, [*twins, *(endpoint.name for endpoint in remote)])
    run_id = new_run_id()
    folder = arguments.out or REPORTS / run_id
    claim_folder(folder)
    with open_fleet(engines, remote, folder / "logs", screen.say) as fleet:
        begun = opening(run_id, fleet, images, config, options)
        done = run_comparison(folder, begun, fleet, images, config, options, screen)
    if arguments.out is None:
        point_latest(folder)
    return _conclude(folder, done, images, screen)


def _go_on(arguments: argparse.Namespace, options: Options, screen: Screen) -> int:
    """Measure what is left of a run."""
    from eval.dataset.images import open_images
    from eval.run.resume import gone_on, read_unfinished, refuse_change
    from eval.run.runner import run_comparison
    from eval.targets.endpoints import open_fleet, remote_endpoints

    folder = arguments.resume
    begun, config = read_unfinished(folder)
    refuse_change(folder, _config(arguments, config), config)
    engines, twins = _twins(config)
    remote = remote_endpoints(twins, config.stacks, config.targets)
    images = open_images(config.images, config.limit, config.seed, screen.say)
    with open_fleet(engines, remote, folder / "logs", screen.say) as fleet:
        begun, past = gone_on(folder, begun, fleet, images)
        screen.say(f"Going on with {folder}: {len(past.keys):,} requests are measured")
        done = run_comparison(folder, begun, fleet, images, config, options, screen, past)
    return _conclude(folder, done, images, screen)


def _config(arguments: argparse.Namespace, known: Config) -> Config:
    """What is known, with what the command line says in its place."""
    said = {name: value for name, value in vars(arguments).items() if name in CONFIG and value is not None}
    if not said.get("local", True):  # not said
        said["local"] = known.local
    if "stacks" in said or "targets" in said:
        said["local"] = arguments.local
    if "engines" in said and not said.get("local", known.local):
        raise EvalError(
            "--engines is of the twins on this machine, and none was asked for: add --local, or leave it out; a "
            "deployed stack runs the engine of its own configuration (pulumi config set cloudtrial:engine onnx)"
        )
    return dataclasses.replace(known, **{name: tuple(v) if isinstance(v, list) else v for name, v in said.items()})


def _twins(config: Config) -> tuple[tuple[str, ...], list[str]]:
    """The engines that there are twins for, and what those twins are called; nothing where there are none."""
    engines = config.engines if config.local else ()
    return engines, twin_names(TARGETS, engines)


def _conclude(folder: Path, done: Run, images: ImageSet, screen: Screen) -> int:
    """Report as far as there is something to report."""
    from eval.run.runner import INTERRUPTED

    interrupted = (done.note or "").startswith(INTERRUPTED)
    if done.planned == 0:
        reasons = "; ".join(f"{t.name}: {(t.failure or '').splitlines()[0]}" for t in done.targets if t.failure)
        raise EvalError(f"nothing could be measured, see {folder}: {reasons}")
    if done.note:
        screen.say(f"Not complete: {done.note}")
    if done.spent.get("usd"):
        screen.say(f"The run has cost at most {usd(done.spent['usd'])}")
    write_report(folder, screen, images)
    return STOPPED if interrupted else 0


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise EvalError(f"--token-env {variable}: no such environment variable, or an empty one")
    return token
