"""Rows in another unit, sent to a real service under a real Prometheus: the alert names the features."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence

import pytest

from eval.dataset.images import load_images
from scripts.simulations.drift.rules import with_window
from tests.helpers.prometheus import query, wait_for
from tests.helpers.running_service import Server, ready_service
from watch.programs import prometheus
from watch.scrape_config import Deployment, prometheus_config

pytestmark = pytest.mark.integration

FACTORS = {"centimetres": 1, "millimetres": 10}  # by deployment
WINDOW_S, BATCH, PAUSE_S = 20, 64, 0.2


@contextlib.contextmanager
def sending(server: Server, rows: Sequence[Sequence[float]], factor: float) -> Iterator[None]:
    """Rows in batches, until the context is left."""
    stop = threading.Event()
    body = json.dumps({"instances": [[factor * value for value in row] for row in rows]}).encode()

    def send() -> None:
        while not stop.wait(PAUSE_S):
            assert server.post("/predict/batch", body, "application/json").status == 200

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_rows_in_another_unit_raise_the_alert_of_features(needs_tool, tmp_path):
    path = needs_tool("prometheus")
    posted = [json.loads(each.data) for each in load_images("golden", None, 7, print, model="iris").images]
    rows = (posted * BATCH)[:BATCH]
    with contextlib.ExitStack() as stack:
        deployments = []
        for job, factor in FACTORS.items():
            settings = {"ENGINE": "onnx", "MODEL_DIR": "models/iris"}
            server = stack.enter_context(ready_service(tmp_path / f"{job}.log", **settings))
            deployments.append(Deployment(job, f"http://127.0.0.1:{server.port}"))
            stack.enter_context(sending(server, rows, factor))
        rules = with_window(tmp_path / "rules", WINDOW_S)
        config = prometheus_config(deployments, [f"{rules}/*.yml"], 1)
        url = stack.enter_context(prometheus(path, tmp_path, config)).url
        wait_for(url, "classifier:drift_ready == 1", lambda found: len(found) == len(FACTORS))
        firing = 'ALERTS{alertname="FeatureDrift",alertstate="firing"}'
        found = wait_for(url, firing, lambda found: len(found) >= 4)
        assert {labels["job"] for labels, _ in found} == {"millimetres"}
        assert {labels["feature"] for labels, _ in found} >= {"petal length (cm)", "sepal width (cm)"}
        assert query(url, "classifier:label_psi{job='millimetres'} > classifier:psi_limit")
