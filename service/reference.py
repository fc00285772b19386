"""The reference answers: the classifier without HTTP, queue or concurrency.

    ls *.png | python -m service.reference

reads paths from standard input, one a line, and writes one JSON line for each, in order and at once:
{"id": 3, "probabilities": [ten numbers, six digits]}. The settings are those of the service.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from service.engines import engine_class
from service.model import BundleError, load_bundle
from service.preprocess import read_picture
from service.schema import Prediction, Problem
from service.settings import Settings, SettingsError


def main() -> None:
    settings = Settings.from_env(os.environ)
    make_engine = engine_class(settings.engine)
    bundle = load_bundle(settings.model_dir, [make_engine.weights])
    engine = make_engine(bundle)
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        try:
            picture = read_picture(path.read_bytes(), bundle)
        except Problem as problem:
            sys.exit(f"reference: {path}: {problem.detail}")
        row = engine.probabilities(picture[None])[0]
        answer = Prediction(tuple(row.tolist()), bundle.classes).to_json(with_probabilities=True)
        print(json.dumps({key: answer[key] for key in ("id", "probabilities")}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (BundleError, SettingsError, OSError) as error:
        sys.exit(f"reference: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
