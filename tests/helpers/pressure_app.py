"""The service with a network of our own, as `tests.helpers.pressure_app:app`.

It tells one-coloured pictures apart by their brightness, computes like a real one (outside Python's lock, for
as long as WORK says), and holds every pass for as long as there is a file GATE; GATE.entered says that one is held.
BODY_TIMEOUT_S is the service's own, shortened.
"""

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from service.app import create_app
from service.classifier import Classifier
from service.settings import Settings
from service.web import asgi
from tests.helpers.bundles import bundle_in_memory

CLASSES = 10
WORK = bytes(int(os.environ.get("WORK", "0")))  # hashed for each picture; about a millisecond for each MB
GATE = Path(os.environ.get("GATE", "/nowhere"))
BUNDLE = bundle_in_memory("abcdefghij", mean=0.0, std=1.0)


class Engine:
    name, libraries, details = "test", {"test": "1"}, {"form": "brightness"}
    device, caller_may_run = "cpu", True

    def probabilities(self, batch):
        while GATE.exists():
            GATE.with_suffix(".entered").touch()
            time.sleep(0.002)
        for _ in batch:
            hashlib.sha256(WORK)
        return np.eye(CLASSES, dtype=np.float32)[np.rint(batch.mean((1, 2, 3)) * (CLASSES - 1)).astype(int)]


asgi.BODY_TIMEOUT_S = float(os.environ.get("BODY_TIMEOUT_S", asgi.BODY_TIMEOUT_S))
settings = Settings.from_env(os.environ)
app = create_app(Classifier(BUNDLE, Engine(), settings), settings)
