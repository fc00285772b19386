"""Pictures for the mock endpoint, and the mock endpoint in this process or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.dataset.image_set import EncodedImage, ImageSet
from eval.errors import EvalError
from eval.load.client import Client, RequestSpec
from eval.mock_server.behaviour import COUNTS_PATH, MockEndpoint
from eval.mock_server.http_protocol import Connection
from eval.mock_server.profile import CIFAR10_CLASSES, EndpointProfile
from eval.samples.model import ImageEntry, Sample
from infra.models import DEFAULT_MODEL
from tests.conftest import ROOT

SHUTDOWN_TIMEOUT_S = 10.0


def pictures(count: int) -> ImageSet:
    """Pictures that only the mock endpoint can read: any bytes will do for it. Labels go round the classes.

    The reference stands beside them, so that no network is asked.
    """
    found = []
    for index in range(count):
        data = f"picture {index}".encode()
        entry = ImageEntry(f"{index}.png", hashlib.sha256(data).hexdigest(), index % 10)
        found.append(EncodedImage(entry, data, "image/png"))
    sure = tuple(tuple(float(i == picture.entry.label) for i in range(10)) for picture in found)
    return ImageSet(
        "mock endpoint's pictures",
        CIFAR10_CLASSES,
        tuple(found),
        sure,
        EndpointProfile().model_version,
        model=DEFAULT_MODEL,
    )


def labels(images: ImageSet) -> dict[str, int]:
    return {picture.entry.sha256: picture.entry.label for picture in images.images}


def with_mock_endpoint(truth: EndpointProfile, use):
    """What `use(url, mock)` gives, with a mock endpoint in the same event loop."""

    async def go():
        loop = asyncio.get_running_loop()
        mock = MockEndpoint(truth, loop.time())
        server = await loop.create_server(lambda: Connection(mock, loop), "127.0.0.1", 0)
        try:
            return await use(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", mock)
        finally:
            server.close()

    return asyncio.run(go())


async def asked_in_turn(url: str, images: ImageSet, count: int | None = None, timeout_s: float = 20.0) -> list[Sample]:
    """One post after the other, of the pictures again and again."""
    samples = []
    async with Client("a", url, images.classes, timeout_s, time.perf_counter()) as client:
        for index in range(count or len(images.images)):
            image = index % len(images.images)
            ask = RequestSpec("single", "measure", 0, image, images.images[image], index)
            samples.append((await client.send(ask, time.perf_counter()))[0])
    return samples


@contextlib.contextmanager
def running_mock_endpoint(profile: EndpointProfile, *options: str) -> Iterator[str]:
    """The address of a mock endpoint with this profile, in a process of its own. Raises EvalError.

    options: of its command line, such as "--core", "1".
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        path.write_text(json.dumps(profile.to_json()))
        command = [sys.executable, "-m", "eval.mock_server", "--profile", str(path), *options]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                if url := process.stdout.readline().strip():
                    yield url
            finally:
                process.terminate()
                stderr_text = _stop_and_show_stderr(process)
            if not url:
                raise EvalError(f"the mock endpoint did not start: {stderr_text}")


def _stop_and_show_stderr(process: subprocess.Popen[str]) -> str:
    """Wait for its end. Returns its standard error, and shows it."""
    try:
        _, stderr_text = process.communicate(timeout=SHUTDOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr_text = process.communicate()
    sys.stderr.write(stderr_text)
    return stderr_text.strip()


def request_counts(url: str) -> dict[str, Any]:
    """What it was sent and how it responded, as GET /mock/counts reports it."""
    with urllib.request.urlopen(url + COUNTS_PATH, timeout=10) as response:
        return json.load(response)
