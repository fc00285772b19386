"""A platform's router gives each scrape to any instance: the rules count them all, those that are gone included."""

from __future__ import annotations

import contextlib
import itertools
import urllib.error
import urllib.request

import pytest

from eval.dataset.images import load_images
from tests.helpers.http_server import http_server, send
from tests.helpers.prometheus import quick_rules, wait_for
from tests.helpers.running_service import ready_service
from watch.programs import prometheus
from watch.scrape_config import Deployment, prometheus_config
from watch.traffic import post

pytestmark = pytest.mark.integration

SETTINGS = {"ENGINE": "onnx", "MODEL_DIR": "models/iris"}


def test_a_scrape_through_a_router_counts_every_instance(needs_tool, tmp_path):
    path = needs_tool("prometheus")
    rows = load_images("golden", None, 7, print, model="iris").images
    with contextlib.ExitStack() as stack:
        stays = stack.enter_context(ready_service(tmp_path / "stays.log", **SETTINGS))
        goes = contextlib.ExitStack()
        stack.push(goes)
        ends = goes.enter_context(ready_service(tmp_path / "ends.log", **SETTINGS))
        ports = itertools.cycle((stays.port, ends.port))

        def route(request, _):
            """To the next instance, or past one that is gone."""
            for port in itertools.islice(ports, 2):
                with contextlib.suppress(urllib.error.URLError):
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{request.path}") as answer:
                        send(request, 200, answer.read().decode(), Content_Type=answer.headers["Content-Type"])
                    return

        router = stack.enter_context(http_server(route))
        deployment = Deployment("gcp_cloudrun", f"http://127.0.0.1:{router}")
        config = prometheus_config([deployment], [quick_rules(tmp_path)], 1)
        url = stack.enter_context(prometheus(path, tmp_path, config)).url
        assert all(post(f"http://127.0.0.1:{server.port}", row) for server in (stays, ends) for row in rows[:40])
        wait_for(url, "classifier:drift_images == 80")
        (instances,) = wait_for(url, "classifier:instances == 2")
        goes.close()
        assert all(post(f"http://127.0.0.1:{stays.port}", row) for row in rows[:5])
        (images,) = wait_for(url, "classifier:drift_images == 85")
    assert instances[0]["job"] == images[0]["job"] == "gcp_cloudrun"
