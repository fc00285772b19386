"""Feedback to real services, the accuracy that a real Prometheus makes of it, and what it alone can show."""

from __future__ import annotations

import contextlib
import json

import pytest

from eval.stats.intervals import proportion
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.prometheus import quick_rules, wait_for
from tests.helpers.running_service import Server, ready_service
from watch.programs import prometheus
from watch.scrape_config import Deployment, prometheus_config

pytestmark = pytest.mark.integration

CLASSES = ["dark", "middle", "bright"]
ANSWERS, WRONG = 50, 10


def send_and_judge(server: Server, wrong: int) -> None:
    """The same images to each; the first ones are no longer what they were when the model was trained."""
    for number in range(ANSWERS):
        answer = server.post("/predict", one_coloured((0, 128, 255)[number % 3]), "image/png")
        label = CLASSES[(number + (number < wrong)) % 3]
        said = {"instance": answer.headers["X-Instance-Id"], "ordinal": int(answer.headers["X-Request-Ordinal"])}
        body = json.dumps(said | {"label": label}).encode()
        assert server.post("/feedback", body, "application/json").status == 200


@pytest.fixture(scope="module")
def ask(needs_tool, tmp_path_factory):
    """Asks a Prometheus that has seen two deployments: an expression -> value by job."""
    path, folder = needs_tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    model = write_bundle(folder / "model", CLASSES)
    with contextlib.ExitStack() as stack:
        jobs = {"as-trained": 0, "changed": WRONG}
        servers = {job: stack.enter_context(ready_service(folder / job, MODEL_DIR=str(model))) for job in jobs}
        for job, wrong in jobs.items():
            send_and_judge(servers[job], wrong)
        deployments = [Deployment(job, f"http://127.0.0.1:{server.port}") for job, server in servers.items()]
        config = prometheus_config(deployments, [quick_rules(folder)], 1)
        url = stack.enter_context(prometheus(path, folder, config)).url

        def query(expression: str) -> dict[str, float]:
            """Waits until there is a value of both."""
            found = wait_for(url, expression, lambda series: {labels["job"] for labels, _ in series} == jobs.keys())
            return {labels["job"]: value for labels, value in found}

        yield query


@pytest.mark.parametrize("series", ["measured", "measured_low", "measured_high"])
def test_accuracy_is_measured_with_its_interval(ask, series):
    wanted = {job: proportion(right, ANSWERS) for job, right in (("as-trained", 50), ("changed", 40))}
    part = {"measured": "value", "measured_low": "low", "measured_high": "high"}[series]
    found = ask(f"classifier:accuracy_{series} and classifier:feedback_answers == {ANSWERS}")
    for job, value in found.items():
        assert value == pytest.approx(getattr(wanted[job], part), abs=1e-3), job


@pytest.mark.parametrize("expression", [*(f'classifier_predictions_total{{label="{c}"}}' for c in CLASSES),
                                        "classifier:confidence_mean"])  # fmt: skip
def test_nothing_but_feedback_shows_a_change_of_what_is_right(ask, expression):
    ask(f"classifier:feedback_answers == {ANSWERS}")
    found = ask(expression)
    assert found["as-trained"] == pytest.approx(found["changed"])
