"""`./cloudtrial run`: measure, report, print the verdict."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.cli.arguments import (
    access_options,
    add_access_options,
    comma_separated,
    peak_to_mean,
    positive_seconds,
    scenario_list,
)
from eval.cli.report import write_run_report
from eval.errors import EvalError
from eval.formatting import plural, usd
from eval.interruption import is_interruption
from eval.load.nodes.destinations import Node, parse_nodes
from eval.plan.config import Config
from eval.progress import Reporter
from eval.run.run_dir import create_run_dir, lock_run_dir, new_run_id
from eval.samples.model import TABULAR, Run
from eval.targets.access import CA, CERTIFICATE, Access, environment_secrets, read_access
from eval.targets.tokens import ALLOW_FLAG, Scrubber, TokenOption, read_token
from eval.validation import MAX_COUNT
from infra.errors import ModelError
from infra.models import DEFAULT_MODEL, choose_engine, model_names, read_model
from infra.targets import TARGETS
from service.command_line import positive, whole_number
from service.engines.names import PLAIN_ENGINE, read_engines, twin_names
from service.settings import ENGINES

if TYPE_CHECKING:  # scipy and aiohttp take seconds to import, which --help should not wait for
    from eval.dataset.image_set import ImageSet
    from eval.load.load_generator import RunOptions
    from eval.targets.endpoints import TargetSet

REPORTS_DIR = Path("reports")
CONFIG_FIELDS = {field.name for field in dataclasses.fields(Config)}
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # of a run that Ctrl-C has ended; 128 and its number for another signal

EXAMPLES = f"""
examples:
  ./cloudtrial run
      five twins on this machine, images as below
  ./cloudtrial run --limit 300 --images ~/cifar10
      300 images of class folders, stratified by class
  ./cloudtrial run --local --model iris
      five twins with another model of models/, and its golden set
  ./cloudtrial run --local --engines torch,onnx
      ten twins: compare the engines on each target
  ./cloudtrial run --stacks aws_ec2,heroku
      stacks that `pulumi up` has deployed
  ./cloudtrial run --target heroku=https://app.example --target mine=http://127.0.0.1:8080
      two URLs, the first priced as a Heroku dyno
  ./cloudtrial run --target mine=https://example.org/v1/classify --images flowers
      any service, with the classes of your folders; ./cloudtrial check says how it
      is understood, docs/own-service.md what can be set
  ./cloudtrial run --target mine=sagemaker:my-endpoint@us-east-1 --images flowers
      an endpoint of Amazon SageMaker, or sagemaker-serverless:..., signed for with
      the credentials, profile and region that AWS's own tools find
  ./cloudtrial run --stacks aws_ec2,heroku --token-env heroku=TOKEN
      the bearer token of heroku is in $TOKEN, and is stored nowhere
  ./cloudtrial run --stacks heroku --scenario poisson --cluster 10.0.0.2,10.0.0.3
      two other machines send, over ssh
  ./cloudtrial run --resume reports/latest --stacks aws_ec2,heroku
      the rest of a run; addresses other than this machine's have to be named again

An endpoint called {", ".join(TARGETS)} (or aws_ec2-STAGE
and so on) is priced as that target; any other by --priced-as, or without costs.
Two of one target with different engines in /version, such as heroku and
heroku-onnx, are compared by engine, on this machine or deployed.

Without --images: of resnet18-cifar10, $CIFAR10_DIR, then the CIFAR-10 copy in
~/.cache/cloudtrial (downloaded once), then the golden set that comes with the
project; of another model, its golden set.

scenarios:
  single    closed loop: one request at a time, every image once to every target;
            between its rounds each target is restarted --restarts times, if there
            is a way: a twin's process, a deployed one by --cold-command
  poisson   open loop: --rate requests per second at random times
  ramp      open loop: the rate grows from 0 to --rate
  burst     --burst simultaneous requests, five times
  max_rate  the highest rate with p95 within --slo-ms: doubling from --rate until
            a step fails, then bisection
  repeat    the same image repeatedly: is there a cache?
  cold      --restarts restarts of each target, also without single; one that has
            no way to be restarted fails
  idle      --idle gaps of --gap seconds without a request: a cold start after it?

Without a terminal, progress is a line a minute, with time and target; with
--json-log every line is a JSON object.

Ctrl-C ends a run early; what was measured is reported, and --resume continues it.
So do SIGTERM and SIGHUP, also for a job in the background, of cron or of systemd;
after nohup a closed terminal ends nothing.
Exit codes: 0 done, 1 failed or no request answered, 2 wrong usage, 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP.
"""


def add_run_command(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "run", help="post the same images to every endpoint and compare", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add: Callable[..., Any] = parser.add_argument
    add("--local", action="store_true", help="the five twins on this machine (the default)")
    add("--twins", type=comma_separated, metavar="A,B", help=f"targets whose twins are started (default: all of"
        f" {', '.join(TARGETS)})")  # fmt: skip
    add("--engines", type=read_engines, metavar="A,B", help=f"a twin of each target for each of {', '.join(ENGINES)}:"
        f" NAME with {PLAIN_ENGINE} (the default, if the model has it), NAME-onnx with onnx")  # fmt: skip
    add("--stacks", type=comma_separated, metavar="A,B", help="deployed Pulumi stacks")
    add("--target", dest="targets", action="append", metavar="NAME=URL", help="any endpoint; may be given again."
        " Amazon SageMaker's: NAME=sagemaker:ENDPOINT[@REGION]")  # fmt: skip
    add("--adapter", dest="adapters", action="append", default=[], metavar="NAME=FILE", help="how an endpoint with a"
        " wire format of its own is asked and read: a YAML file, or one of the ready forms; without it they are tried"
        " where the endpoint does not answer as this project's service")  # fmt: skip
    add("--priced-as", action="append", default=[], metavar="NAME=TARGET[:SIZE]", help=f"price an address as one of"
        f" {', '.join(TARGETS)}")  # fmt: skip
    add("--model", metavar="NAME", help=f"the bundle of models/ that the twins serve, and whose images are sent"
        f" (default: what the targets report, else {DEFAULT_MODEL}); there are {', '.join(model_names())}")  # fmt: skip
    add("--images", metavar="DIR|cifar10|golden", help="CLASS/* or test/CLASS/*, torchvision's folder, a set's name, or"
        " of a tabular model a CSV file with the column `class` last")  # fmt: skip
    add("--classes", metavar="FILE", help="names of a service's classes in its own order, one a line (default: the"
        " folders of --images, in the order of their names)")  # fmt: skip
    add(
        "--limit",
        type=whole_number(1),
        metavar="N",
        help="number of images, stratified by class (default: all)",
    )
    add(
        "--seed",
        type=whole_number(0, MAX_COUNT),
        metavar="N",
        help="of image sample, order and arrival times (default: 0)",
    )
    add(
        "--scenario",
        dest="scenarios",
        type=scenario_list,
        metavar="A,B",
        help="see below (default: single)",
    )
    add("--rate", dest="rate_rps", type=positive, metavar="R", help="requests per second (default: 10)")
    add(
        "--duration",
        dest="duration_s",
        type=positive_seconds,
        metavar="S",
        help="of poisson and ramp, per target (default: 60)",
    )
    add("--slo-ms", type=positive, metavar="MS", help="latency objective for p95 (default: 200)")
    add(
        "--step",
        dest="step_s",
        type=positive_seconds,
        metavar="S",
        help="of each rate of max_rate, and longer where 150 requests take longer (default: 10)",
    )
    add(
        "--peak",
        type=peak_to_mean,
        metavar="X",
        help="rate in the busy hours, over the month's mean: 3 is 8 busy hours a day (default: 3)",
    )
    add("--burst", type=whole_number(2), metavar="N", help="simultaneous requests (default: 32)")
    add("--restarts", type=whole_number(0), metavar="N", help="restarts per target, at most one between two rounds"
        " of single: several instances of each are measured, and their starts (default: 6)")  # fmt: skip
    add(
        "--cold-command", action="append", default=[], metavar="NAME=COMMAND",
        help="restarts a deployed target, as `pulumi up --yes --stack NAME --config cloudtrial:revision={revision}`"
        " does (of aws_ec2 it makes another VM); twins need none",
    )  # fmt: skip
    add("--idle", type=whole_number(1), metavar="N", help="idle gaps per target (default: 5)")
    add("--gap", dest="gap_s", type=positive_seconds, metavar="S", help="length of an idle gap (default: 900)")
    add("--fresh", action="store_true", default=None, help="a new connection for every request")
    add("--in-flight", type=whole_number(1), metavar="N", help="maximum of requests in flight (default: 256)")
    add("--workers", type=whole_number(1), metavar="N", help="processes that send the open loops: at rates beyond one's"
        " thousand a second, with as many free cores. One that ends, ends the run (default: 1)")  # fmt: skip
    add("--cluster", metavar="HOST,HOST", help="machines that send the open loops in place of this one, as ssh takes"
        " them; --workers N is then of each. docs/scale.md")  # fmt: skip
    add("--warmup", type=whole_number(0), metavar="N", help="warm-up requests per target (default: 20)")
    add("--block", type=whole_number(1), metavar="N", help="consecutive requests to one target (default: 25)")
    add(
        "--baseline-rtt",
        type=whole_number(0),
        metavar="N",
        help="no-op round trips, first and last (default: 25)",
    )
    add("--timeout-s", type=positive_seconds, metavar="S", help="for one request (default: 30)")
    add(
        "--max-usd",
        type=positive,
        metavar="X",
        help="end the run at this cost; the estimated cost is printed first",
    )
    add("--token-env", action="append", default=[], metavar="[TARGET=]VARIABLE", help="environment variable with the"
        " bearer token of a target; may be given again. TARGET may be left out if it is the only one")  # fmt: skip
    add_access_options(add, named=True)
    add(ALLOW_FLAG, action="store_true", help="send tokens over plain http, where others can read them")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: reports/ID, linked as"
                        " reports/latest)")  # fmt: skip
    group.add_argument("--resume", type=Path, metavar="DIR", help="continue a run that was interrupted")
    add("--json-log", action="store_true", help="print one JSON object a line, for machines: messages, and progress "
        "once a minute")  # fmt: skip
    add("--yes", action="store_true", help="with --resume: send to every address that the folder names")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, report, print the verdict. Nothing that is printed has a token in it, not even a traceback."""
    arguments.cluster = parse_nodes(arguments.cluster) if arguments.cluster else ()
    token_options = [read_token(text, os.environ) for text in arguments.token_env]
    access = read_access(access_options(arguments), os.environ)
    tokens = [option.token for option in token_options] + environment_secrets()
    tokens += [secret for each in access.values() for secret in each.secrets]
    if arguments.adapters:
        from eval.adapters.loading import parse_adapter

        arguments.adapters = [parse_adapter(text, os.environ) for text in arguments.adapters]
        tokens += [secret for option in arguments.adapters for secret in option.secrets]
    scrub = Scrubber(tokens)
    try:
        return (_resume if arguments.resume else _start)(arguments, token_options, access, scrub)
    except EvalError as error:
        raise EvalError(scrub(str(error))) from None
    except OSError:  # one line, as for other commands
        raise
    except Exception as error:
        if is_interruption(error):
            raise
        print(scrub(traceback.format_exc()), end="", file=sys.stderr)
        return EXIT_FAILED


def _start(
    arguments: argparse.Namespace, token_options: Sequence[TokenOption], access: Mapping[str, Access], scrub: Scrubber
) -> int:
    """Measure a new run."""
    reporter, config = Reporter(scrub=scrub, as_json=arguments.json_log), _merge_config(arguments, Config())
    engines, twins = _twins_of(config)
    with reporter.activity("Reading the options"):  # imports, and a call of pulumi for each stack
        from eval.load.invocations import check_payloads
        from eval.run.record_size import check_record_size
        from eval.run.runner import execute_run, new_run
        from eval.targets.endpoints import start_targets
        from eval.targets.restart import check_restart_targets

        options = _run_options(arguments, scrub)
        remote = _remote_targets(arguments, config, token_options, access, reporter, scrub)
    reported = _measured_model(config, remote, scrub, reporter)
    model = reported or DEFAULT_MODEL
    image_set = _load_images(config, model, reporter, is_reported=reported is not None)
    check_payloads(remote.endpoints, image_set.images)
    what = "Rows" if image_set.kind == TABULAR else "Images"
    reporter.print(f"{what}: {image_set.source} ({len(image_set.images):,})")
    measured = [*twin_names(twins, engines), *(endpoint.name for endpoint in remote.endpoints)]
    check_restart_targets(options.restart_commands, [*measured, *remote.start_failures])
    check_record_size(config, measured, image_set)
    options = _with_senders(options, arguments.cluster, reporter)
    run_id = new_run_id()
    run_dir = arguments.out or REPORTS_DIR / run_id
    create_run_dir(run_dir)
    with start_targets(engines, remote, run_dir / "logs", reporter, model, twins) as target_set:
        with reporter.activity("Preparing the run"):
            run_record = new_run(run_id, target_set, image_set, config, options)
        finished_run = execute_run(
            run_dir, run_record, target_set, image_set, config, options, reporter, latest=arguments.out is None
        )
    return _finish(run_dir, finished_run, image_set, reporter)


def _resume(
    arguments: argparse.Namespace, token_options: Sequence[TokenOption], access: Mapping[str, Access], scrub: Scrubber
) -> int:
    """Measure the rest of a run."""
    with lock_run_dir(arguments.resume):
        return _measure_rest(arguments, token_options, access, scrub)


def _measure_rest(
    arguments: argparse.Namespace, token_options: Sequence[TokenOption], access: Mapping[str, Access], scrub: Scrubber
) -> int:
    reporter, run_dir = Reporter(scrub=scrub, as_json=arguments.json_log), arguments.resume
    with reporter.activity("Reading the run"):  # imports, and a call of pulumi for each stack
        from eval.run.resume import (
            check_confirmed,
            check_options_given,
            check_same_config,
            check_senders,
            load_resumable,
            resume_run,
        )
        from eval.run.runner import execute_run
        from eval.targets.endpoints import start_targets
        from eval.targets.restart import check_restart_targets

        options = _run_options(arguments, scrub)
        run_record, config = load_resumable(run_dir)
        given = {"--cold-command": bool(arguments.cold_command), "--max-usd": arguments.max_usd is not None}
        check_options_given(run_dir, run_record, given)
        check_restart_targets(options.restart_commands, [target.name for target in run_record.targets])
        if arguments.images:  # the same may be found elsewhere: their checksum is compared
            config = dataclasses.replace(config, images=arguments.images)
        check_same_config(run_dir, _merge_config(arguments, config), config)
        engines, twins = _twins_of(config, run_record)
        remote = _remote_targets(arguments, config, token_options, access, reporter, scrub)
    for endpoint in remote.endpoints:
        reporter.print(f"{endpoint.name} at {endpoint.url}{', with a token' if endpoint.token else ''}")
    if not arguments.yes:
        check_confirmed(run_dir, remote, arguments.targets or (), arguments.stacks or ())
    check_senders(run_dir, run_record, arguments.cluster)
    options = _with_senders(options, arguments.cluster, reporter)
    model = run_record.model or config.model or DEFAULT_MODEL
    image_set = _load_images(config, model, reporter, is_reported=run_record.model is not None)
    with start_targets(engines, remote, run_dir / "logs", reporter, model, twins) as target_set:
        with reporter.activity("Preparing the run"):
            run_record, resume_state = resume_run(run_dir, run_record, target_set, image_set)
        count = len(resume_state.completed)
        reporter.print(f"Resuming {run_record.id} in {run_dir}: {count:,} requests are measured already")
        finished_run = execute_run(run_dir, run_record, target_set, image_set, config, options, reporter, resume_state)
    return _finish(run_dir, finished_run, image_set, reporter)


def _run_options(arguments: argparse.Namespace, scrub: Scrubber) -> RunOptions:
    from eval.load.load_generator import RunOptions
    from eval.targets.restart import parse_restart_commands

    restart_commands = parse_restart_commands(arguments.cold_command)
    adapters = {option.target: option for option in arguments.adapters}
    return RunOptions(
        arguments.line, restart_commands, arguments.max_usd, scrub, adapters, arguments.interruptions
    )  # fmt: skip


def _with_senders(options: RunOptions, nodes: Sequence[Node], reporter: Reporter) -> RunOptions:
    """The options with what starts a worker on each machine of --cluster, which is made ready now."""
    if not nodes:
        return options
    from eval.load.nodes.prepare import prepare_nodes

    with reporter.activity(f"Preparing {plural(len(nodes), 'machine')} to send"):
        return dataclasses.replace(options, nodes=prepare_nodes(nodes, reporter.event))


def _remote_targets(
    arguments: argparse.Namespace,
    config: Config,
    token_options: Sequence[TokenOption],
    access: Mapping[str, Access],
    reporter: Reporter,
    scrub: Scrubber,
) -> TargetSet:
    """The targets but the twins, with their tokens and all else that they need."""
    from eval.load.foreign import check_adapters
    from eval.targets.endpoints import assign_access, assign_tokens, price_as
    from eval.targets.restart import parse_restart_commands
    from eval.targets.sagemaker.connect import assign_signers, check_sagemaker_options
    from eval.targets.stacks import remote_targets

    allow_http = arguments.allow_token_over_http
    engines, twins = _twins_of(config)
    remote = price_as(remote_targets(twin_names(twins, engines), config.stacks, config.targets), arguments.priced_as)
    check_adapters(remote, arguments.adapters, allow_http=allow_http)
    for name, reason in remote.start_failures.items():
        reporter.print(f"{name} is left out: {reason}")
    if arguments.cluster and any(each.ca_file or each.certificate_file for each in access.values()):
        raise EvalError(f"{CA} and {CERTIFICATE} name files of this machine, which those of --cluster lack")
    check_sagemaker_options(remote, token_options, parse_restart_commands(arguments.cold_command))
    with_tokens = assign_tokens(remote, token_options, allow_http=allow_http)
    return assign_signers(assign_access(with_tokens, access, allow_http=allow_http), scrub, allow_http=allow_http)


def _merge_config(arguments: argparse.Namespace, base: Config) -> Config:
    """The configuration, with the options of the command line."""
    overrides = {name: value for name, value in vars(arguments).items() if name in CONFIG_FIELDS and value is not None}
    if not overrides.get("local", True):  # not given
        overrides["local"] = base.local
    if "stacks" in overrides or "targets" in overrides:
        overrides["local"] = arguments.local
    if "engines" in overrides and not overrides.get("local", base.local):
        raise EvalError(
            "--engines is for local twins, and this run has none: add --local, or leave it out; a "
            "deployed stack runs the engine of its own configuration (pulumi config set cloudtrial:engine onnx)"
        )
    if "twins" in overrides:
        if not overrides.get("local", base.local):
            raise EvalError("--twins names local twins, and this run has none: add --local, or leave it out")
        if unknown := [name for name in overrides["twins"] if name not in TARGETS]:
            raise EvalError(f"--twins: no target is called {unknown[0]!r}; choose from {', '.join(TARGETS)}")
    if overrides.get("local", base.local):
        overrides = _with_engines_of_model(overrides, base)
    return dataclasses.replace(base, **{name: tuple(v) if isinstance(v, list) else v for name, v in overrides.items()})


def _load_images(config: Config, model: str, reporter: Reporter, *, is_reported: bool) -> ImageSet:
    """The images. Where only addresses are measured, folders may have other classes than the model.

    is_reported: whether the model is what the targets report, and not the default.
    """
    from eval.dataset.class_names import read_class_names
    from eval.dataset.images import folder_classes, load_images
    from eval.targets.endpoints import is_foreign, parse_target

    own_classes = not config.local and not config.stacks
    if config.classes and not (own_classes and config.images):
        raise EvalError("--classes names those of a service that is measured by --target alone, with folders --images")
    class_names = read_class_names(Path(config.classes)) if config.classes else None
    folder = Path(config.images or "golden").expanduser()
    foreign = own_classes and all(is_foreign(parse_target(text), is_reported) for text in config.targets)
    if class_names is None and foreign and folder.is_dir():  # else they may be some of the model's
        class_names = folder_classes(folder)
    return load_images(
        config.images, config.limit, config.seed, reporter.print, reporter.activity, own_classes=own_classes,
        class_names=class_names, model=model,
    )  # fmt: skip


def _measured_model(config: Config, remote: TargetSet, scrub: Scrubber, reporter: Reporter) -> str | None:
    """The bundle of models/ that is measured: of --model, else of the twins, else as the targets report, or None."""
    if config.model or config.local:
        return config.model or DEFAULT_MODEL
    from eval.run.reported_model import reported_model

    with reporter.activity("Reading the model's name"):
        return reported_model(remote.endpoints, scrub)


def _with_engines_of_model(overrides: dict[str, Any], base: Config) -> dict[str, Any]:
    """The overrides, in which the twins' engines are those of the model. Raises EvalError for others."""
    try:
        model = read_model(overrides.get("model", base.model) or DEFAULT_MODEL)
        engines = overrides.get("engines")
        if engines is None:
            return overrides if "model" not in overrides else overrides | {"engines": [choose_engine(model)]}
        return overrides | {"engines": [choose_engine(model, engine) for engine in engines]}
    except ModelError as error:
        raise EvalError(str(error)) from None


def _twins_of(config: Config, run: Run | None = None) -> tuple[tuple[str, ...], list[str]]:
    """The engines of the twins, and their targets; of a run that is resumed, those that it began with."""
    begun = dict.fromkeys(target.target for target in run.targets if target.twin and target.target) if run else {}
    return config.engines if config.local else (), list(begun) or list(config.twins) or list(TARGETS)


def _finish(run_dir: Path, finished_run: Run, image_set: ImageSet, reporter: Reporter) -> int:
    """Write the reports of the run. Returns the exit code."""
    from eval.run.runner import INTERRUPTED_PREFIX, WORKER_LOST_PREFIXES

    interrupted = (finished_run.incomplete_reason or "").startswith(INTERRUPTED_PREFIX)
    if finished_run.incomplete_reason:
        reporter.print(f"Not complete: {finished_run.incomplete_reason}")
    if finished_run.cost.get("usd"):
        reporter.print(f"The run has cost at most {usd(finished_run.cost['usd'])}")
    any_success = write_run_report(run_dir, reporter, image_set)
    failed = not any_success or (finished_run.incomplete_reason or "").startswith(WORKER_LOST_PREFIXES)
    return EXIT_INTERRUPTED if interrupted else EXIT_FAILED if failed else 0
