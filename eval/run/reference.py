"""The reference answers: what the model says without a cloud, for parity.

They are those of the plain engine, whichever the targets run, and stand in samples.jsonl like those of a target called
"reference". The golden set brings its own; for other images `./cloudtrial reference` computes them in a process
of its own, so that no torch runs in the client. Answers are kept in the user's cache: the next run of the same images,
weights, processor and PyTorch does not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

from eval.dataset.images import ImageSet, Picture
from eval.errors import NoReference
from eval.load.responses import shortened
from eval.run.reference_cache import Answer, reference_cache
from eval.samples.model import REFERENCE, Sample
from eval.targets.endpoints import ROOT
from eval.targets.engines import REFERENCE_ENGINE

REFERENCE_BLOCK = -1
COMMAND = (sys.executable, "-m", "service.reference")


async def reference_samples(images: ImageSet, command: tuple[str, ...] = COMMAND) -> AsyncGenerator[Sample, None]:
    """One sample per image, in order. Raises NoReference."""
    if images.reference is not None:
        for index, row in enumerate(images.reference):
            yield _sample(index, row.index(max(row)), row, images.reference_version)
        return
    cache = reference_cache() if command == COMMAND else None  # answers of another program are not the model's
    known = cache.read() if cache else {}
    missing = {p.entry.sha256: p for p in images.pictures if p.entry.sha256 not in known}
    with tempfile.TemporaryDirectory(prefix="reference-") as folder:
        paths = _lay_out(missing.values(), Path(folder))
        async with contextlib.aclosing(_answers(paths, command)) as answers:
            for index, picture in enumerate(images.pictures):
                sha256 = picture.entry.sha256
                if sha256 not in known:
                    try:
                        known[sha256] = await anext(answers)
                    except StopAsyncIteration:
                        raise NoReference(f"the reference answered {index} of {len(images.pictures)} images") from None
                    if cache:
                        cache.append(sha256, known[sha256])
                yield _sample(index, *known[sha256], None)


async def _answers(paths: Path, command: tuple[str, ...]) -> AsyncGenerator[Answer, None]:
    """The child's lines. It is in a session of its own, out of reach of the terminal's Ctrl-C, and ended by us."""
    with paths.open("rb") as stdin, tempfile.TemporaryFile() as stderr:
        child = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=os.environ | {"ENGINE": REFERENCE_ENGINE}, stdin=stdin,
            stdout=asyncio.subprocess.PIPE, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        assert child.stdout is not None
        try:
            async for line in child.stdout:
                answer = json.loads(line)
                yield answer["id"], tuple(answer["probabilities"])
            if await child.wait() != 0:
                stderr.seek(0)
                lines = stderr.read().decode(errors="replace").strip().splitlines()
                raise NoReference(shortened(lines[-1] if lines else f"it ended with {child.returncode}"))
        except (ValueError, KeyError, TypeError):
            raise NoReference("it wrote a line that is not an answer") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()


def _lay_out(pictures: Iterable[Picture], folder: Path) -> Path:
    """Write the posted bytes as files; returns the file that lists them."""
    names = []
    for index, picture in enumerate(pictures):
        path = folder / f"{index:05d}"
        path.write_bytes(picture.data)
        names.append(f"{path}\n")
    listing = folder / "paths"
    listing.write_text("".join(names))
    return listing


def _sample(index: int, label: int, row: tuple[float, ...], version: str | None) -> Sample:
    return Sample(
        target=REFERENCE, scenario=REFERENCE, phase="measure", block=REFERENCE_BLOCK, place=index, image=index,
        started_s=0.0, latency_ms=0.0, service_ms=0.0, lateness_ms=0.0, new_connection=False, label=label,
        probabilities=row, model_version=version,
    )  # fmt: skip
