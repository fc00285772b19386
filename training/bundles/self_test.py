"""Inputs for a bundle's self-test: small synthetic images that its network tells apart clearly.

They are computed from a seed, so that no image of anybody is shipped with a model.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from service.images.preprocess import decode_image
from service.model import Bundle
from training.bundles.manifest import SelfTest

SIDE_PX = 48
CANDIDATES, CHOSEN = 48, 3
CELLS = (2, 3, 4, 6, 8)  # of the coarse grid of colours that is enlarged
SEED = 0


def candidate_images() -> list[bytes]:
    """PNG files of soft colours, always the same."""
    rng = np.random.default_rng(SEED)
    images = []
    for index in range(CANDIDATES):
        cells = CELLS[index % len(CELLS)]
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(buffer, "PNG", optimize=True)
        images.append(buffer.getvalue())
    return images


def image_self_test(bundle: Bundle, engines: dict[str, Callable[[np.ndarray], np.ndarray]]) -> SelfTest:
    """The candidates of which every engine is surest, and its answers; of as many classes as there are."""
    files = candidate_images()
    inputs = np.stack([decode_image(data, bundle) for data in files])
    answers = {name: run(inputs) for name, run in engines.items()}
    margins = np.min([_margins(rows) for rows in answers.values()], axis=0)
    labels = next(iter(answers.values())).argmax(1)
    order = np.argsort(-margins)
    first_of_class = [i for place, i in enumerate(order) if labels[i] not in labels[order[:place]]]
    chosen = (first_of_class + [i for i in order if i not in first_of_class])[:CHOSEN]
    encoded = [base64.b64encode(files[i]).decode() for i in chosen]
    return SelfTest(encoded, {name: rows[chosen] for name, rows in answers.items()})


def _margins(rows: np.ndarray) -> np.ndarray:
    """How far the most probable class is above the next: [N]."""
    ordered = np.sort(rows, axis=1)
    return ordered[:, -1] - ordered[:, -2]
