"""One session of watching: what is started, in which order, and what is printed of it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.dataset.golden import is_golden
from eval.dataset.image_set import ImageSet
from eval.dataset.images import load_images
from eval.targets.endpoints import Endpoint, assign_tokens
from eval.targets.stacks import remote_targets
from eval.targets.tokens import read_token
from infra.local.process import Process
from infra.local.running.twin import Twin
from infra.local.twins import local_twins
from infra.models import read_model
from infra.targets import AWS_SAGEMAKER
from service.monitoring.reference import REFERENCE
from watch import programs
from watch.errors import WatchError
from watch.scrape_config import Deployment, prometheus_config
from watch.session_folder import session_folder, token_file
from watch.traffic import Traffic

OPS = Path(__file__).resolve().parent.parent / "ops"
RULES = OPS / "prometheus" / "rules"
ALERTMANAGER_CONFIG = OPS / "alertmanager" / "alertmanager.yml"
POLL_S = 0.5  # between two looks whether all still run
PRINTED_INTERVAL_S = 15.0  # of a configuration for people's own Prometheus
TOKEN_FILE = "/etc/prometheus/{}.token"  # in such a configuration
SEED = 7  # of the sample of images
SYNTHETIC = (
    "These images are synthetic, unlike the photographs that the model's reference is of: after some 20 minutes alerts"
    " of drift fire, as they should. Send others with --images."
)


def print_config(arguments: argparse.Namespace, env: Mapping[str, str]) -> None:
    """Write prometheus.yml to standard output."""
    deployments = [
        Deployment(each.name, each.url, Path(TOKEN_FILE.format(each.name)) if each.token else None)
        for each in _remote(arguments, env)
    ]
    for deployment in deployments:
        if deployment.token_file:
            print(f"# {deployment.token_file}: the token of {deployment.name}, readable by Prometheus alone")
    print("# rules/: copies of ops/prometheus/rules/*.yml")
    print(prometheus_config(deployments, ["rules/*.yml"], PRINTED_INTERVAL_S), end="")


def watch(arguments: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Start everything, print the addresses, wait. 0 after Ctrl-C, 1 when something has ended by itself."""
    endpoints = _remote(arguments, env)
    images = _images(arguments) if arguments.local and arguments.rate else None  # before anything is started
    with session_folder() as folder, contextlib.ExitStack() as stack:
        twins = stack.enter_context(_twins(arguments)) if arguments.local else []
        deployments = [Deployment(twin.name, twin.url) for twin in twins]
        deployments += [_deployment(endpoint, folder, stack) for endpoint in endpoints]
        started = _start_prometheus(stack, folder, deployments, arguments.interval)
        traffic = None
        if images:
            say(f"Sending {arguments.rate:g} images a second to each twin: {images.source}")
            if golden_images_drift(images, arguments.model):
                say(SYNTHETIC)
            traffic = stack.enter_context(Traffic([twin.url for twin in twins], images.images, arguments.rate))
        try:
            say("Ctrl-C ends it all.")
            while (ended := _ended(twins, started)) is None:
                time.sleep(POLL_S)
            say(ended)
            return 1
        except KeyboardInterrupt:
            if traffic:
                say(f"{traffic.sent:,} images were sent, {traffic.failed:,} without an answer.")
            return 0


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def _remote(arguments: argparse.Namespace, env: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """The stacks and addresses, with their tokens. Raises EndpointError, or WatchError for one that has no metrics."""
    names = arguments.targets if arguments.local else []
    remote = remote_targets(names, arguments.stacks, arguments.target)
    for reason in remote.start_failures.values():
        print(f"not watched: {reason}", file=sys.stderr, flush=True)  # standard output may become a prometheus.yml
    tokens = [read_token(text, env) for text in arguments.token_env]
    endpoints = assign_tokens(remote, tokens, allow_http=arguments.allow_token_over_http).endpoints
    is_sagemaker = {each.name: each.sagemaker or each.target == AWS_SAGEMAKER.name for each in endpoints}
    for name, closed in ({twin: twin == AWS_SAGEMAKER.name for twin in names} | is_sagemaker).items():
        if closed:
            raise WatchError(f"{name}: SageMaker lets no GET /metrics through: see CloudWatch (docs/watch.md)")
    return endpoints


@contextlib.contextmanager
def _twins(arguments: argparse.Namespace) -> Iterator[list[Twin]]:
    """The twins that started."""
    with local_twins(arguments.targets, on_event=say, engines=(), model=arguments.model) as twins:
        if not twins.running:
            raise WatchError("no twin could be started")
        yield twins.running


def _deployment(endpoint: Endpoint, folder: Path, stack: contextlib.ExitStack) -> Deployment:
    """What is scraped of an endpoint, and the file of its token, which this user alone may read."""
    if endpoint.token is None:
        return Deployment(endpoint.name, endpoint.url)
    file = stack.enter_context(token_file(folder, endpoint.name, endpoint.token.secret))
    return Deployment(endpoint.name, endpoint.url, file)


def _start_prometheus(
    stack: contextlib.ExitStack, folder: Path, deployments: Sequence[Deployment], interval_s: float
) -> dict[str, Process]:
    """Prometheus and Alertmanager, as far as they are installed, by title."""
    path = programs.PROMETHEUS.find()
    if path is None:
        say(f"No Prometheus here ({programs.PROMETHEUS.how_to_get}). The metrics:")
        for deployment in deployments:
            say(f"  {deployment.metrics_url}")
        return {}
    alerts, started = None, dict[str, Process]()
    if alertmanager := programs.ALERTMANAGER.find():
        alerts = stack.enter_context(programs.alertmanager(alertmanager, folder, ALERTMANAGER_CONFIG))
        started["Alertmanager"] = alerts.process
    config = prometheus_config(deployments, [f"{RULES}/*.yml"], interval_s, alerts.address if alerts else None)
    prometheus = stack.enter_context(programs.prometheus(path, folder, config))
    started["Prometheus"] = prometheus.process
    jobs = ", ".join(deployment.name for deployment in deployments)
    say(f"Prometheus: {prometheus.url}/ (alerts: {prometheus.url}/alerts), every {interval_s:g} s: {jobs}")
    if alerts:
        say(f"Alertmanager: {alerts.url}/")
    say(f"Grafana, if you have one: import ops/grafana/dashboards/*.json, with {prometheus.url} as source")
    return started


def _images(arguments: argparse.Namespace) -> ImageSet:
    """What the twins are sent. Raises ImagesError."""
    return load_images(arguments.images, None, SEED, say, model=arguments.model)


def golden_images_drift(images: ImageSet, model: str) -> bool:
    """Whether they raise alerts by themselves: golden images are synthetic, and no reference is of such ones."""
    return is_golden(images.source) and REFERENCE in read_model(model).files


def _ended(twins: Sequence[Twin], started: Mapping[str, Process]) -> str | None:
    """The first that has ended by itself, with its last lines."""
    for twin in twins:
        if not twin.alive():
            return f"{twin.title} has ended.\n{twin.log_tail()}"
    for title, process in started.items():
        if process.exit_status() is not None:
            return f"{title} has ended.\n{process.log_tail()}"
    return None
