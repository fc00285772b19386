"""LitServe and BentoML themselves, measured with one command each, in an environment of their own.

Plain Flask with another shape, an Open Inference server, and one of labels alone are in test_foreign.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.samples.store import read_run
from infra.local.health import free_ports
from scripts.benchmarks.serving.process_tree import START_LIMIT_S, ProcessTree, Start, running
from scripts.benchmarks.serving.servers import BASELINES_PYTHON
from tests.conftest import ROOT
from tests.helpers.foreign.colours import write_flowers

pytestmark = pytest.mark.integration

PARTS = "tests.helpers.foreign"
SHORT = ("--warmup", "1", "--baseline-rtt", "2", "--block", "4", "--restarts", "0")


@pytest.fixture(scope="module")
def python(complain) -> str:
    """That of the environment in which both are installed."""
    if not BASELINES_PYTHON.exists():
        complain("LitServe and BentoML are not installed: make .venv-baselines/.made")
    return str(BASELINES_PYTHON)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    return write_flowers(tmp_path_factory.mktemp("flowers"), per_class=4)


@contextlib.contextmanager
def server(command: Sequence[str], port: int, folder: Path, **env: str) -> Iterator[str]:
    """Its address, once it responds."""
    start = Start(tuple(command), ROOT, {"HOME": str(folder), "TMPDIR": str(folder), **env})
    with running(start, [0], folder / "log") as tree:
        wait_for(tree, port)
        yield f"http://127.0.0.1:{port}"


def wait_for(tree: ProcessTree, port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            if connection.getresponse().status < 500:
                return
        assert not tree.ended() and time.monotonic() < deadline, tree.last_words()
        time.sleep(0.05)  # between two tries


def measured(url: str, flowers: Path, out: Path) -> tuple[str, dict]:
    """How it was understood, and its report."""
    assert main(["run", "--target", f"mine={url}", "--images", str(flowers), *SHORT, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())["targets"]["mine"]
    return read_run(out).targets[0].adapter or "", report


def test_litserve_is_measured_unasked(python, flowers, tmp_path):
    (port,) = free_ports(1)
    with server((python, "-m", f"{PARTS}.litserve_colours", str(port)), port, tmp_path) as url:
        adapter, report = measured(f"{url}/predict", flowers, tmp_path / "run")
    assert adapter == "sent a form with the image in its part 'request'; read scores at output"
    assert report["accuracy"]["value"] == report["roc_auc"]["value"] == 1
    assert report["sent"] == report["succeeded"] == 8


def test_bentoml_is_measured_unasked(python, flowers, tmp_path):
    (port,) = free_ports(1)
    command = (python, "-m", "bentoml", "serve", f"{PARTS}.bentoml_colours:Colours", "--host", "127.0.0.1")
    env = {"BENTOML_HOME": str(tmp_path / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    with server((*command, "--port", str(port)), port, tmp_path, **env) as url:
        adapter, report = measured(f"{url}/classify", flowers, tmp_path / "run")
    assert adapter.endswith("read label at prediction.class_id")
    assert report["accuracy"]["value"] == 1 and report["roc_auc"]["value"] is None
    assert report["sent"] == report["succeeded"] == 8
