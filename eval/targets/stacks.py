"""The endpoints of `--stacks` and `--target`: what Pulumi stacks export, and addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from eval.errors import EndpointError, InvalidInput
from eval.samples.sizes import sized_target
from eval.targets.endpoints import (
    ROOT,
    SAGEMAKER,
    Endpoint,
    TargetSet,
    parse_target,
    stack_target_name,
    target_for_name,
    validate_url,
)
from eval.targets.sagemaker.naming import SageMakerEndpoint, parse_sagemaker
from eval.validation import MAX_SHOWN_CHARS, parse_json, printable
from infra.targets import TARGETS

PULUMI_TIMEOUT_S = 60
GOOGLE_SIZE = re.compile(r"([0-9.]{1,5}) vCPU, ([0-9]{1,6}) ([MG]iB)")  # as the Google programs export it


def remote_targets(twin_names: Sequence[str], stacks: Sequence[str], addresses: Sequence[str]) -> TargetSet:
    """The endpoints of `--stacks` and `--target`; names must differ from the twins'.

    A stack without a valid address is left out of the run, unless nothing else is in it. Raises EndpointError.
    """
    endpoints, failures = [parse_target(text) for text in addresses], dict[str, str]()
    names = [*twin_names, *(endpoint.name for endpoint in endpoints), *map(stack_target_name, stacks)]
    for name in names:
        if names.count(name) > 1:
            raise EndpointError(f"two endpoints are called {name!r}: rename one")
    pulumi = _find_pulumi(stacks[0]) if stacks else ""
    for stack in stacks:
        try:
            endpoints.append(stack_endpoint(pulumi, stack))
        except EndpointError as error:
            failures[stack_target_name(stack)] = str(error)
    if failures and not endpoints and not twin_names:
        raise EndpointError("; ".join(failures.values()))
    return TargetSet(tuple(endpoints), failures)


def _find_pulumi(stack: str) -> str:
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise EndpointError(
            f"--stacks {stack} needs the pulumi program on PATH: `make pulumi` installs it and prints the PATH to set;"
            " or give the address with --target NAME=URL"
        )
    return pulumi


def stack_endpoint(pulumi: str, stack: str) -> Endpoint:
    """The endpoint that a Pulumi stack exports. Raises EndpointError, which names the stack."""
    command = [pulumi, "stack", "output", "--json", "--stack", stack, "--non-interactive"]
    try:
        result = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PULUMI_TIMEOUT_S,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        raise EndpointError(f"stack {stack}: pulumi did not respond within {PULUMI_TIMEOUT_S} s") from None
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"pulumi ended with {result.returncode}"]
        raise EndpointError(f"stack {stack}: {printable(lines[-1][:MAX_SHOWN_CHARS])}")
    return _endpoint_from_outputs(stack, result.stdout)


def _endpoint_from_outputs(stack: str, output: str) -> Endpoint:
    try:
        outputs = parse_json(output)
    except InvalidInput:
        outputs = None
    if not isinstance(outputs, dict) or "url" not in outputs:
        raise EndpointError(f"stack {stack} exports no url; run `pulumi up --stack {stack}` first")
    try:
        url = validate_url(outputs["url"])
    except EndpointError as error:
        raise EndpointError(f"stack {stack}, output url: {error}; run `pulumi up --stack {stack}` again") from None
    name, exported = stack_target_name(stack), outputs.get("target", "")
    sagemaker = _sagemaker_of(stack, outputs) if exported == SAGEMAKER else None
    target = exported if exported in tuple(TARGETS) else target_for_name(name)
    size, region = _priced_size(stack, target, outputs), _priced_region(target, outputs)
    return Endpoint(name, target, url, size=size, region=region, sagemaker=sagemaker)


def _priced_size(stack: str, target: str | None, outputs: Mapping[str, Any]) -> str | None:
    """The size as eval.samples.sizes reads it; None for the target's own."""
    size = outputs.get("size")
    if target is None or size in (None, TARGETS[target].size):
        return None
    size = printable(str(size)[:MAX_SHOWN_CHARS])
    if google := GOOGLE_SIZE.fullmatch(size):
        vcpus, memory, unit = google.groups()
        size = f"{vcpus}:{int(memory) * (1024 if unit == 'GiB' else 1)}"
    try:
        sized_target(target, size)
    except InvalidInput as error:
        raise EndpointError(f"stack {stack}, output size: {error}; or give its address with --target") from None
    return size


def _priced_region(target: str | None, outputs: Mapping[str, Any]) -> str | None:
    """The region; None for the target's own, which is that of the prices."""
    region = outputs.get("region")
    if target is None or region in (None, TARGETS[target].region):
        return None
    return printable(str(region)[:MAX_SHOWN_CHARS])


def _sagemaker_of(stack: str, outputs: Mapping[str, Any]) -> SageMakerEndpoint | None:
    scheme = "sagemaker-serverless" if str(outputs.get("size")).startswith("serverless") else "sagemaker"
    try:
        return parse_sagemaker(f"{scheme}:{outputs.get('endpoint') or ''}@{outputs.get('region') or ''}")
    except EndpointError as error:
        raise EndpointError(f"stack {stack}, outputs endpoint and region: {error}") from None
