"""The reference answers: the classifier without HTTP, queue or concurrency.

    ls *.png | ./cloudtrial reference

reads paths from standard input, one a line, and writes one JSON line for each, in order:
{"id": 3, "probabilities": [ten numbers, six digits]}. The settings are those of the service. Images are computed
BATCH_MAX at a time, as fast as the machine does it: nothing is measured here. PyTorch computes in float32, also where a
service takes bfloat16. Of a model of rows, each file holds one row as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np

from service.engines import load_reference_engine
from service.errors import BundleError, Problem, SettingsError
from service.images.preprocess import decode_image
from service.manifest.records import TabularInput
from service.model import Bundle, load_for_engine
from service.schema import Prediction
from service.settings import Settings
from service.tabular.rows import read_rows


def main() -> None:
    # With neighbours on the cores, OpenMP's waiting in a loop took this five times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    settings = Settings.from_env(os.environ)
    if settings.refusal:
        raise SettingsError(f"MODEL_STORE: {settings.refusal.why}")
    bundle = load_for_engine(settings.model_dir, settings.engine)
    engine = load_reference_engine(settings.engine, bundle)
    while lines := list(islice(sys.stdin, settings.batch_max)):
        images = [_read(Path(line.rstrip("\n")), bundle) for line in lines]
        for row in engine.probabilities(np.stack(images)):
            answer = Prediction(tuple(row.tolist()), bundle.classes).to_json(with_probabilities=True)
            print(json.dumps({key: answer[key] for key in ("id", "probabilities")}))
        sys.stdout.flush()


def _read(path: Path, bundle: Bundle) -> np.ndarray:
    try:
        if isinstance(bundle.input, TabularInput):
            return read_rows(json.loads(path.read_bytes()), bundle.input.features).values[0]
        return decode_image(path.read_bytes(), bundle)
    except ValueError as error:
        sys.exit(f"reference: {path} is not JSON: {error}")
    except Problem as problem:
        sys.exit(f"reference: {path}: {problem.detail}")


if __name__ == "__main__":
    try:
        main()
    except (BundleError, SettingsError, OSError) as error:
        sys.exit(f"reference: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
