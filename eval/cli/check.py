"""`./cloudtrial check`: send one image to an address, and say how the answer was understood."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.cli.arguments import access_options, add_access_options
from eval.errors import EndpointError, EvalError
from eval.progress import Reporter
from eval.samples.model import TABULAR
from eval.targets.access import environment_secrets, read_access
from eval.targets.tokens import ALLOW_FLAG, Scrubber, read_token
from infra.models import DEFAULT_MODEL

if TYPE_CHECKING:  # aiohttp takes a second to import
    from eval.adapters.loading import AdapterOption
    from eval.dataset.image_set import ImageSet
    from eval.targets.endpoints import Endpoint

NAME = "endpoint"
TIMEOUT_S = 60.0  # for one request: the service may have to start
EPILOG = """
examples:
  ./cloudtrial check https://example.org/v1/classify --images flowers
      classes are the folders of flowers/; the form of the request is found by trying
  ./cloudtrial check https://example.org/v1/classify --adapter json-image
      sends {"image": BASE64}; the ready forms are in eval/adapters/ready.yaml
  ./cloudtrial check https://example.org/v1/classify --adapter mine.yaml
      as the file says; eval/adapters/adapter.py explains it
  ./cloudtrial check sagemaker:my-endpoint@us-east-1 --images flowers
      an endpoint of Amazon SageMaker, with the credentials that AWS's tools find

Measure it with ./cloudtrial run --target mine=URL and the same options
(--adapter mine=FILE). Exit code 0 if the answer was understood, else 1.
"""


def add_check(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "check", help="send one image to an address, and say how the answer was understood", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--images", default="golden", metavar="DIR", help="CLASS/*; the first image is sent"
                        " (default: the golden set of the model that /version reports)")  # fmt: skip
    parser.add_argument("--classes", metavar="FILE", help="names of the service's classes in its own order, one a line")
    parser.add_argument("--adapter", metavar="FILE", help="a YAML file, or one of the ready forms")
    parser.add_argument("--token-env", metavar="VARIABLE", help="environment variable with a bearer token")
    add_access_options(parser.add_argument, named=False)
    parser.add_argument(ALLOW_FLAG, action="store_true", help="send the token over plain http, too")
    parser.set_defaults(command=check)


def check(arguments: argparse.Namespace) -> int:
    """Send one image and print what came of it. Returns the exit code; raises EvalError."""
    try:
        return _check(arguments)
    except EvalError as error:  # of a run's options, which name their address; here it is the only one
        raise EvalError(re.sub(f"(--[a-z-]+ ){NAME}=", r"\1", str(error))) from None


def _check(arguments: argparse.Namespace) -> int:
    from eval.adapters.loading import parse_adapter
    from eval.dataset.class_names import read_class_names
    from eval.dataset.images import folder_classes, load_images
    from eval.load.foreign import check_adapters
    from eval.load.invocations import check_payloads
    from eval.run.reported_model import reported_model
    from eval.targets.endpoints import TargetSet, assign_access, assign_tokens, is_foreign, parse_target
    from eval.targets.sagemaker.connect import assign_signers, check_sagemaker_options

    tokens = [read_token(arguments.token_env, os.environ)] if arguments.token_env else []
    options = [parse_adapter(f"{NAME}={arguments.adapter}", os.environ)] if arguments.adapter else []
    access = read_access(access_options(arguments, NAME), os.environ)
    secrets = [s for each in (*options, *access.values()) for s in each.secrets]
    scrub = Scrubber([*(option.token for option in tokens), *secrets, *environment_secrets()])
    allow_http = arguments.allow_token_over_http
    targets = TargetSet((parse_target(f"{NAME}={arguments.url}"),), {})
    check_adapters(targets, options, allow_http=allow_http)
    check_sagemaker_options(targets, tokens)
    with_tokens = assign_tokens(targets, tokens, allow_http=allow_http)
    with_access = assign_access(with_tokens, access, allow_http=allow_http)
    (endpoint,) = assign_signers(with_access, scrub, allow_http=allow_http).endpoints
    reporter = Reporter(scrub=scrub)
    class_names, folder = None, Path(arguments.images).expanduser()
    reported = reported_model([endpoint], scrub)
    if arguments.classes:
        class_names = read_class_names(Path(arguments.classes))
    elif is_foreign(endpoint, reported is not None) and folder.is_dir():
        class_names = folder_classes(folder)
    images = load_images(
        arguments.images, None, 0, reporter.print, own_classes=True, class_names=class_names,
        model=reported or DEFAULT_MODEL,
    )  # fmt: skip
    check_payloads([endpoint], images.images)
    for line in asyncio.run(_exchange(endpoint, images, options, scrub)):
        reporter.print(line)
    return 0


async def _exchange(
    endpoint: Endpoint, images: ImageSet, options: Sequence[AdapterOption], scrub: Scrubber
) -> list[str]:
    """What was sent, what came, and how it was understood. Raises EndpointError."""
    from eval.adapters.loading import ready_forms
    from eval.load.client import Client, RequestSpec
    from eval.load.foreign import find_adapter, first_images, forms_at
    from eval.plan.config import SINGLE

    image, option = images.images[0], options[0] if options else None
    request = RequestSpec(SINGLE, "warmup", -1, 0, image)
    async with Client(
        endpoint.name, endpoint.url, images.classes, TIMEOUT_S, time.perf_counter(), endpoint.token, scrub=scrub,
        access=endpoint.access, signer=endpoint.signer,
    ) as client:  # fmt: skip
        if client.signer:
            await client.fetch_version(image)  # raises what AWS refuses
        sample = None if option else (await client.send(request))[0]
        if sample is None or sample.error:
            forms = forms_at(endpoint.url, [option.request] if option else ready_forms().values())
            client.adapter = await find_adapter(
                client, first_images(images.images), forms, option.answer if option else None
            )
            sample, _ = await client.send(request)
    if sample.predicted_class is None:
        raise EndpointError(f"{endpoint.url} was understood, but the next request failed: {sample.detail}; check again")
    label, probabilities = images.classes[sample.predicted_class], sample.probabilities
    probability = f"{probabilities[sample.predicted_class]:.3f}" if probabilities else "not told"
    adapter = client.adapter
    told = {
        "probabilities": sample.probabilities,
        "Server-Timing: total": sample.server_timing_ms.get("total"),
        "an instance's ID": sample.instance_id,
    }
    missing = [name for name, value in told.items() if value is None]
    return [
        f"{'Row' if images.kind == TABULAR else 'Image':<10}{image.entry.name}, a {images.classes[image.entry.label]}",
        f"Sent      {adapter.request.text() if adapter else 'its bytes, as the service takes them'}",
        f"Read      {adapter.answer.text() if adapter else 'as the service answers'}",
        f"Answer    {label}; probability {probability}; {sample.latency_ms:.0f} ms",
        *([f"Not told  {', '.join(missing)}"] if missing else []),
    ]
