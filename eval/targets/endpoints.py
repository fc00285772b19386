"""The endpoints of a run: local twins, Pulumi stacks, or URLs."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infra.targets import TARGETS

if TYPE_CHECKING:
    from infra.local.twins import Twin

from eval.errors import EndpointError
from eval.samples.model import REFERENCE

ROOT = Path(__file__).resolve().parents[2]
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PULUMI_TIMEOUT_S = 60


@dataclass(frozen=True)
class Endpoint:
    """One service under test."""

    name: str  # unique in the run
    target: str | None  # key of infra.targets.TARGETS, None for a custom endpoint
    url: str  # without a trailing slash
    twin: Twin | None = None

    @property
    def keepalive_s(self) -> float:
        """How long an idle connection to it may be reused."""
        return TWIN_KEEPALIVE_S if self.twin else KEEPALIVE_S


@dataclass(frozen=True)
class TargetSet:
    """The endpoints of a run, and the twins that could not be started."""

    endpoints: tuple[Endpoint, ...]
    start_failures: Mapping[str, str]  # name of a twin -> why it did not start


def remote_endpoints(twin_names: Sequence[str], stacks: Sequence[str], addresses: Sequence[str]) -> list[Endpoint]:
    """The endpoints of `--stacks` and `--target`; names must differ from the twins'. Raises EndpointError."""
    endpoints = [parse_target(text) for text in addresses] + [stack_endpoint(stack) for stack in stacks]
    names = [*twin_names, *(endpoint.name for endpoint in endpoints)]
    for name in names:
        if names.count(name) > 1:
            raise EndpointError(f"two endpoints are called {name!r}: rename one")
    return endpoints


@contextlib.contextmanager
def start_targets(
    engines: Sequence[str], remote: Sequence[Endpoint], log_dir: Path, notify: Callable[[str], None]
) -> Iterator[TargetSet]:
    """The remote endpoints, and each target's twins with these engines, which stop with the context.

    Raises EndpointError.
    """
    if not engines:
        yield TargetSet(tuple(remote), {})
        return
    from infra.errors import TwinError
    from infra.local.twins import local_twins

    try:
        with local_twins(tuple(TARGETS), log_dir, on_event=notify, engines=engines) as twins:
            twin_endpoints = [Endpoint(twin.name, twin.target.name, twin.url, twin) for twin in twins.running]
            yield TargetSet((*twin_endpoints, *remote), twins.failures)
    except TwinError as error:
        raise EndpointError(f"the twins cannot be started: {error}") from None


def parse_target(text: str) -> Endpoint:
    """The endpoint of `--target NAME=URL`."""
    name, separator, url = text.partition("=")
    if not separator:
        raise EndpointError(f"--target {text}: expected NAME=URL, such as heroku=https://app.example")
    return Endpoint(_validate_name(name), target_for_name(name), _validate_url(url))


def target_for_name(name: str) -> str | None:
    """The target that a stack or endpoint is named for: aws_ec2-prod is aws_ec2."""
    prefix = name.partition("-")[0]
    return prefix if prefix in TARGETS else None


def stack_endpoint(stack: str) -> Endpoint:
    """The endpoint that a Pulumi stack exports. Raises EndpointError when Pulumi or the stack is not there."""
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise EndpointError(
            f"--stacks {stack} needs the pulumi program on PATH: `make pulumi` installs it and prints the PATH to set;"
            " or give the address with --target NAME=URL"
        )
    command = [pulumi, "stack", "output", "--json", "--stack", stack, "--non-interactive"]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PULUMI_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise EndpointError(f"stack {stack}: pulumi did not respond within {PULUMI_TIMEOUT_S} s") from None
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"pulumi ended with {result.returncode}"]
        raise EndpointError(f"stack {stack}: {lines[-1]}")
    return _endpoint_from_outputs(stack, result.stdout)


def _endpoint_from_outputs(stack: str, output: str) -> Endpoint:
    try:
        outputs = json.loads(output)
        url = outputs["url"]
    except (ValueError, KeyError, TypeError):
        raise EndpointError(f"stack {stack} exports no url; run `pulumi up --stack {stack}` first") from None
    name = _validate_name(stack.rpartition("/")[2])
    target = outputs.get("target")
    return Endpoint(name, target if target in TARGETS else target_for_name(name), _validate_url(url))


def _validate_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name) or name == REFERENCE:
        raise EndpointError(f"{name!r} cannot name an endpoint: use letters, digits, . _ - (and not {REFERENCE!r})")
    return name


def _validate_url(url: str) -> str:
    """The URL without a trailing slash. It must contain no secret, because it is stored with the run."""
    try:
        split_url = urlsplit(url)
        _ = split_url.port
    except ValueError as error:
        raise EndpointError(f"{url!r} is not an address: {error}") from None
    if split_url.scheme not in ("http", "https") or not split_url.hostname:
        raise EndpointError(f"{url!r} is not an address: expected http://HOST[:PORT] or https://HOST[:PORT]")
    if split_url.username or split_url.password or split_url.query or split_url.fragment:
        raise EndpointError(
            f"the address of {split_url.hostname} has a user, a query or a fragment: leave them out;"
            " --token-env takes a token"
        )
    return url.rstrip("/")


KEEPALIVE_S = 55.0  # below the 60 s after which nginx and many load balancers close an idle connection
TWIN_KEEPALIVE_S = 1.5  # functions-framework closes one after 2 s, and no proxy in front keeps it open here
