"""Reference predictions: those of the model itself, to which the targets' predictions are compared.

The plain engine computes them, or the only one that the model has, whichever engine the targets run; they are in
samples.jsonl like those of a target called "reference". A golden set of images includes its own; for others
`./cloudtrial reference` computes them in a separate process, so that the client does not load torch. They are cached
for the next run with the same images, weights, processor and library.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path

from eval.dataset.image_set import EncodedImage, ImageSet
from eval.errors import InvalidInput, ReferenceUnavailable
from eval.load.responses import to_short_line
from eval.run.reference_cache import Prediction, open_reference_cache, parse_record
from eval.samples.model import REFERENCE, Sample
from eval.targets.endpoints import ROOT
from infra.models import DEFAULT_MODEL, choose_engine, read_model

REFERENCE_BLOCK = -1
REFERENCE_COMMAND = (sys.executable, "-m", "service.offline_predict")


async def reference_samples(
    image_set: ImageSet, command: tuple[str, ...] = REFERENCE_COMMAND
) -> AsyncGenerator[Sample, None]:
    """One sample per image, in order. Raises ReferenceUnavailable."""
    if image_set.reference_probabilities is not None:
        for index, probabilities in enumerate(image_set.reference_probabilities):
            yield _reference_sample(
                index, probabilities.index(max(probabilities)), probabilities, image_set.reference_model_version
            )
        return
    bundle = read_model(image_set.model or DEFAULT_MODEL)
    engine = choose_engine(bundle)
    cache = open_reference_cache(bundle, engine) if command == REFERENCE_COMMAND else None  # of this model only
    predictions = cache.read(len(image_set.classes)) if cache else {}
    uncached_images = {image.entry.sha256: image for image in image_set.images if image.entry.sha256 not in predictions}
    with tempfile.TemporaryDirectory(prefix="reference-") as temp_dir:
        path_list = await asyncio.to_thread(_write_image_files, uncached_images.values(), Path(temp_dir))
        env = {"ENGINE": engine, "MODEL_DIR": str(bundle.folder)}
        async with contextlib.aclosing(
            _compute_predictions(path_list, command, env, len(image_set.classes))
        ) as computed:
            for index, image in enumerate(image_set.images):
                sha256 = image.entry.sha256
                if sha256 not in predictions:
                    try:
                        predictions[sha256] = await anext(computed)
                    except StopAsyncIteration:
                        raise ReferenceUnavailable(
                            f"the reference predicted {index} of {len(image_set.images)} images"
                        ) from None
                    if cache:
                        cache.append(sha256, predictions[sha256])
                yield _reference_sample(index, *predictions[sha256], None)


async def _compute_predictions(
    path_list: Path, command: tuple[str, ...], env: Mapping[str, str], class_count: int
) -> AsyncGenerator[Prediction, None]:
    """Yield the predictions of the process. It has its own session: Ctrl-C does not reach it, and we end it."""
    with path_list.open("rb") as stdin, tempfile.TemporaryFile() as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env={**os.environ, "MODEL_STORE": "", **env}, stdin=stdin,  # of the one bundle in env
            stdout=asyncio.subprocess.PIPE, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                yield parse_record(line, class_count)[1]
            if await process.wait() != 0:
                stderr.seek(0)
                lines = stderr.read().decode(errors="replace").strip().splitlines()
                raise ReferenceUnavailable(to_short_line(lines[-1] if lines else f"it ended with {process.returncode}"))
        except (ValueError, InvalidInput):  # ValueError: a line longer than asyncio reads
            raise ReferenceUnavailable("it wrote a line that is not a prediction") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _write_image_files(images: Iterable[EncodedImage], directory: Path) -> Path:
    """Write the images as files. Returns the file that lists them."""
    path_lines = []
    for index, image in enumerate(images):
        path = directory / f"{index:05d}"
        path.write_bytes(image.data)
        path_lines.append(f"{path}\n")
    path_list = directory / "paths"
    path_list.write_text("".join(path_lines), encoding="utf-8")
    return path_list


def _reference_sample(
    index: int, predicted_class: int, probabilities: tuple[float, ...], model_version: str | None
) -> Sample:
    return Sample(
        target=REFERENCE, scenario=REFERENCE, phase="measure", block=REFERENCE_BLOCK, index_in_block=index,
        image_index=index, scheduled_s=0.0, latency_ms=0.0, service_time_ms=0.0,
        new_connection=False, predicted_class=predicted_class, probabilities=probabilities,
        model_version=model_version,
    )  # fmt: skip
