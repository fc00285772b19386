"""The endpoints of a run: local twins, Pulumi stacks, or URLs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infra.models import DEFAULT_MODEL
from infra.targets import TARGETS
from service.schema import PREDICT

if TYPE_CHECKING:
    from eval.targets.sagemaker.signer import Signer
    from infra.local.running.twin import Twin

from eval.errors import EndpointError, InvalidInput
from eval.progress import Reporter
from eval.samples.model import REFERENCE
from eval.samples.sizes import sized_target
from eval.targets.access import CA, CERTIFICATE, KEEPALIVE_S, Access
from eval.targets.sagemaker.naming import SageMakerEndpoint, parse_sagemaker
from eval.targets.tokens import Token, TokenOption, check_route
from eval.validation import MAX_SHOWN_CHARS

ROOT = Path(__file__).resolve().parents[2]
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
STACK_PATTERN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99}/){0,2}[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
URL_PATTERN = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,500}")  # RFC 3986
HOST_PATTERN = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
SAGEMAKER = "aws_sagemaker"  # the target that has InvokeEndpoint in front, deployed and as a twin


@dataclass(frozen=True)
class Endpoint:
    """One service under test."""

    name: str  # unique in the run
    target: str | None  # key of infra.targets.TARGETS, None for a custom endpoint
    url: str  # without a trailing slash
    twin: Twin | None = None
    size: str | None = None  # by which it is priced; None: the target's own
    region: str | None = None  # the same
    token: Token | None = None
    access: Access = field(default_factory=Access)
    sagemaker: SageMakerEndpoint | None = None  # its URL is known once it has a signer
    signer: Signer | None = None

    @property
    def keepalive_s(self) -> float:
        """How long an idle connection to it may be reused."""
        return TWIN_KEEPALIVE_S if self.twin else KEEPALIVE_S


@dataclass(frozen=True)
class TargetSet:
    """The endpoints of a run, and the targets that have none."""

    endpoints: tuple[Endpoint, ...]
    start_failures: Mapping[str, str]  # name of a twin or stack -> why it did not start, or has no address


def assign_tokens(remote: TargetSet, options: Sequence[TokenOption], *, allow_http: bool) -> TargetSet:
    """The targets with their tokens. Twins have none: they answer without. Raises EndpointError."""
    names = [*(endpoint.name for endpoint in remote.endpoints), *remote.start_failures]
    listed, tokens = ", ".join(names) or "twins", dict[str, Token]()
    for option in options:
        if option.target is None and len(names) != 1:
            raise EndpointError(
                f"--token-env {option.text}: say whose token it is, as TARGET={option.text}; the run has {listed}"
            )
        name = names[0] if option.target is None else option.target
        if name not in names:
            raise EndpointError(f"--token-env {option.text}: no target {name!r} that can have a token, only {listed}")
        if name in tokens:
            raise EndpointError(f"--token-env {option.text}: {name} has a token already; give it one")
        tokens[name] = option.token
    endpoints = tuple(replace(endpoint, token=tokens.get(endpoint.name)) for endpoint in remote.endpoints)
    for endpoint in endpoints:
        if endpoint.token and not allow_http:
            check_route(endpoint.name, endpoint.url)
    return replace(remote, endpoints=endpoints)


def assign_access(remote: TargetSet, access: Mapping[str, Access], *, allow_http: bool) -> TargetSet:
    """The targets with what each needs beside its address. Raises EndpointError."""
    names = [endpoint.name for endpoint in remote.endpoints]
    if unknown := [name for name in access if name not in names]:
        raise EndpointError(f"no address is called {unknown[0]!r}, only {', '.join(names) or 'none'}")
    endpoints = tuple(replace(each, access=access.get(each.name, each.access)) for each in remote.endpoints)
    for endpoint in endpoints:
        if endpoint.token and any(name.lower() == "authorization" for name in endpoint.access.headers):
            raise EndpointError(f"{endpoint.name} has a token, and a header Authorization too: give it one of the two")
        if (endpoint.access.ca_file or endpoint.access.certificate_file) and endpoint.url.startswith("http://"):
            raise EndpointError(f"{CA} and {CERTIFICATE} are for https: {endpoint.name} is {endpoint.url}")
        if endpoint.access.secrets and not allow_http:
            check_route(endpoint.name, endpoint.url)
    return replace(remote, endpoints=endpoints)


def price_as(targets: TargetSet, options: Sequence[str]) -> TargetSet:
    """The targets, those of `--priced-as NAME=TARGET[:SIZE]` priced as that one. Raises EndpointError."""
    endpoints = {endpoint.name: endpoint for endpoint in targets.endpoints}
    for text in options:
        name, _, priced = text.partition("=")
        target, _, size = priced.partition(":")
        if target not in TARGETS:
            raise EndpointError(f"--priced-as {text}: expected NAME=TARGET[:SIZE], with one of {', '.join(TARGETS)}")
        if name not in endpoints:
            names = ", ".join(endpoints) or "none"
            raise EndpointError(f"--priced-as {text}: no address is called {name!r}, only {names}")
        try:
            sized_target(target, size)
        except InvalidInput as error:
            raise EndpointError(f"--priced-as {text}: {error}") from None
        endpoints[name] = replace(endpoints[name], target=target, size=size or None, region=None)
    return replace(targets, endpoints=tuple(endpoints.values()))


@contextlib.contextmanager
def start_targets(
    engines: Sequence[str],
    remote: TargetSet,
    log_dir: Path,
    reporter: Reporter,
    model: str = DEFAULT_MODEL,
    names: Sequence[str] = tuple(TARGETS),
) -> Iterator[TargetSet]:
    """The remote endpoints, and these targets' twins with the model and these engines, which stop with the context.

    Raises EndpointError.
    """
    if not engines:
        yield remote
        return
    from infra.errors import TwinError
    from infra.local.twins import local_twins

    with contextlib.ExitStack() as stack:
        try:
            with reporter.activity("Starting the twins"):
                twins = stack.enter_context(
                    local_twins(names, log_dir, on_event=reporter.event, engines=engines, model=model)
                )
        except TwinError as error:
            raise EndpointError(f"the twins cannot be started: {error}") from None
        twin_endpoints = [_twin_endpoint(twin) for twin in twins.running]
        try:
            yield TargetSet((*twin_endpoints, *remote.endpoints), {**twins.failures, **remote.start_failures})
        finally:
            with reporter.activity("Stopping the twins"):
                stack.close()


def _twin_endpoint(twin: Twin) -> Endpoint:
    endpoint = Endpoint(twin.name, twin.target.name, twin.url, twin)
    if twin.target.name != SAGEMAKER:
        return endpoint
    from eval.targets.sagemaker.connect import with_twin_signer

    return with_twin_signer(endpoint, twin.port)


def parse_target(text: str) -> Endpoint:
    """The endpoint of `--target NAME=URL`, or of NAME=sagemaker:ENDPOINT, which is not connected yet."""
    name, separator, url = text.partition("=")
    if not separator:
        raise EndpointError(f"--target {text}: expected NAME=URL, such as heroku=https://app.example")
    if sagemaker := parse_sagemaker(url):
        return Endpoint(_validate_name(name), target_for_name(name), sagemaker.text, sagemaker=sagemaker)
    return Endpoint(_validate_name(name), target_for_name(name), validate_url(url))


def has_own_path(url: str) -> bool:
    """Whether an address says where predictions are, and that is elsewhere than this project's services have them."""
    return urlsplit(url).path.rstrip("/").removesuffix(PREDICT) != ""


def is_foreign(endpoint: Endpoint, reports_model: bool) -> bool:
    """Whether an endpoint is taken for another service than this project's: by its path, or behind SageMaker, where all
    have the same path, by its reporting no model of models/."""
    return not reports_model if endpoint.sagemaker else has_own_path(endpoint.url)


def target_for_name(name: str) -> str | None:
    """The target that a stack or endpoint is named for: aws_ec2-prod is aws_ec2."""
    prefix = name.partition("-")[0]
    return prefix if prefix in TARGETS else None


def stack_target_name(stack: str) -> str:
    """The name of a stack's endpoint: of ORGANISATION/PROJECT/STACK the last part. Raises EndpointError."""
    if not STACK_PATTERN.fullmatch(stack):
        raise EndpointError(
            f"--stacks {_shown(stack)}: expected STACK or ORGANISATION/PROJECT/STACK, such as heroku-prod"
        )
    return _validate_name(stack.rpartition("/")[2])


def _validate_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name) or name == REFERENCE:
        raise EndpointError(
            f"{_shown(name)} cannot name an endpoint: use up to 100 letters, digits, . _ - (and not {REFERENCE!r})"
        )
    return name


def validate_url(url: object) -> str:
    """The URL; without a trailing slash where it is this project's service, whose paths are put behind it.

    Another one keeps it, because many services redirect the form without. The URL must contain no secret, because it
    is stored with the run.
    """
    if not isinstance(url, str):
        raise EndpointError(f"{_shown(url)} is not an address: expected text")
    host = url.partition("//")[2].partition("/")[0]
    if "@" in host or "?" in url or "#" in url:
        raise EndpointError(
            f"the address of {_shown(re.split('[?#]', host.rpartition('@')[2])[0])} has a user, a query or a fragment:"
            " leave them out; --token-env takes a token, --basic-env a user, --query a query"
        )
    try:
        split_url = urlsplit(url)
        _ = split_url.port
    except ValueError as error:
        raise EndpointError(f"{_shown(url)} is not an address: {error}") from None
    if split_url.scheme not in ("http", "https") or not split_url.hostname:
        raise EndpointError(f"{_shown(url)} is not an address: expected http://HOST[:PORT] or https://HOST[:PORT]")
    if not URL_PATTERN.fullmatch(url) or not HOST_PATTERN.fullmatch(split_url.netloc):
        raise EndpointError(
            f"{_shown(url)} is not an address: it has characters that none has, or more than 500; write a name that is"
            " not ASCII as xn--..., and other characters in the path as %XX"
        )
    is_bare = not split_url.path.rstrip("/").removesuffix(PREDICT)
    return url.rstrip("/") if is_bare else url


def _shown(value: object) -> str:
    """The start of the value's repr, in which control characters are escaped."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


TWIN_KEEPALIVE_S = 1.5  # functions-framework closes one after 2 s, and no proxy in front keeps it open here
