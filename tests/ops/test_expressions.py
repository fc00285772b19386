"""Every expression of every dashboard, asked of a real Prometheus that scrapes real services under traffic."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from eval.dataset.images import load_images
from infra.local.health import free_ports
from scripts.dashboards.__main__ import DASHBOARDS
from scripts.dashboards.draw import main as draw_main
from tests.helpers.prometheus import quick_rules, wait_for
from tests.helpers.running_service import Server, ready_service
from watch.programs import prometheus
from watch.scrape_config import Deployment, prometheus_config
from watch.traffic import Traffic

pytestmark = pytest.mark.integration

# What Grafana puts in place of its variables: all deployments, and intervals as of a short look
VARIABLES = {"$job": ".+", "$version": ".+", "$__rate_interval": "10s", "$__range": "1m"}
MODELS = {"gcp_cloudrun": "resnet18-cifar10", "heroku": "iris"}  # by deployment: images and rows, both kinds of bills
SCRAPE_S, RATE_RPS = 1, 20
EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")
    for path in sorted(DASHBOARDS.glob("*.json"))
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
    for target in panel.get("targets", ())
]


def give_feedback(server: Server, image, labels: tuple[str, str]) -> None:
    """Of two answers one was right."""
    for label in labels:
        answer = server.post("/predict", image.data, image.media_type)
        said = {"instance": answer.headers["X-Instance-Id"], "ordinal": int(answer.headers["X-Request-Ordinal"])}
        body = json.dumps(said | {"label": label}).encode()
        assert server.post("/feedback", body, "application/json").status < 300


@pytest.fixture(scope="module")
def prometheus_url(needs_tool, tmp_path_factory) -> Iterator[str]:
    """A Prometheus with the rules of ops/, evaluated each second, that scrapes an image and a row service."""
    path, folder = needs_tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as stack:
        deployments = []
        for job, model in MODELS.items():
            settings = {"ENGINE": "onnx", "MODEL_DIR": f"models/{model}"}
            server = stack.enter_context(ready_service(folder / f"{job}.log", **settings))
            images = load_images("golden", None, 7, print, model=model)
            assert server.post("/predict", b"no image", "image/png").status >= 400
            give_feedback(server, images.images[0], images.classes[:2])
            deployments.append(Deployment(job, f"http://127.0.0.1:{server.port}"))
            stack.enter_context(Traffic([deployments[-1].url], images.images, RATE_RPS))
        config = prometheus_config(deployments, [quick_rules(folder)], SCRAPE_S)
        yield stack.enter_context(prometheus(path, folder, config)).url


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_expression_returns_data(expression, prometheus_url):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert wait_for(prometheus_url, expression)


def test_a_dashboard_is_drawn_with_every_panel(prometheus_url, tmp_path):
    out, page = tmp_path / "service.svg", DASHBOARDS / "cloudtrial-service.json"
    assert draw_main(["cloudtrial-service", "--prometheus", prometheus_url, "--minutes", "1", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    for panel in json.loads(page.read_text(encoding="utf-8"))["panels"]:
        assert f">{panel['title']}<" in text
    assert ">no data<" not in text and "gcp_cloudrun resnet18-cifar10" in text


def test_without_a_prometheus_drawing_ends_with_one_line(tmp_path, capsys):
    (port,) = free_ports(1)
    words = ["cloudtrial-drift", "--prometheus", f"http://127.0.0.1:{port}", "--out", str(tmp_path / "none.svg")]
    assert draw_main(words) == 1
    assert "./cloudtrial watch --local starts a Prometheus" in capsys.readouterr().err.splitlines()[-1]
