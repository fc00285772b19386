"""Releases on real twins, by the command: a tiny network, images in greys, a store in a folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from eval.progress import Reporter
from release.endpoint import Endpoint, serves
from release.environments.local import LocalStages
from release.measure import Meter
from release.plan import BETA, GAMMA, PROD, STAGES, write_plan
from release.stages import Release
from service.model import load_bundle
from store.model_store import ModelStore
from tests.conftest import ROOT, descendants
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.quick_release import make_plan

pytestmark = pytest.mark.integration

CLASSES = ("black", "grey", "white")
PER_CLASS = 20
PLACES = ("gcp_cloudrun", "aws_sagemaker")
OPTIONS = ("--store", "store", "--images", "images", "--margin", "10pp", "--out", "one", "--model", "tiny@candidate")
RESUME = ("--resume", "one")


@pytest.fixture
def store(tmp_path) -> ModelStore:
    """With tiny@prod."""
    for place, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            level = min(255, max(0, round(place * 127.5) + number - 10))
            (tmp_path / "images" / name / f"{number:02}.png").write_bytes(one_coloured(level))
    store = ModelStore.open(str(tmp_path / "store"))
    push(store, tmp_path / "old", PROD)
    return store


def push(store: ModelStore, folder: Path, alias: str, weight: float = 20.0, classes=CLASSES, **options) -> str:
    version = store.push(write_bundle(folder, classes, weight=weight, **options)).version
    store.move_alias("tiny", alias, version, reason="for a test")
    return version


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "cloudtrial"), "release", *words]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=folder, capture_output=True, text=True)


def versions(store: ModelStore, alias: str) -> list[str]:
    return [record.version for record in store.history("tiny", alias)]


def test_an_equal_candidate_is_promoted_and_its_runs_are_kept(store, tmp_path):
    """On Cloud Run's twin, which follows the store by itself, and SageMaker's, which takes signed calls alone."""
    old, new = store.resolve("tiny@prod"), push(store, tmp_path / "new", "candidate", weight=21.0)
    done = call(tmp_path, *OPTIONS, "--targets", ",".join(PLACES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [versions(store, alias) for alias in STAGES] == [[new], [new], [old, new]]
    for place in PLACES:
        assert f"beta: {place} is ready and serves tiny@{new}" in done.stdout
        assert f"prod: {place} is ready and serves tiny@{new}" in done.stdout
    assert done.stdout.count("60 of 60 answers are the bundle's own") == len(PLACES)
    assert done.stdout.endswith(f"Done: tiny@prod is {new}\n")
    for run in ("beta", "gamma", "prod", "verify"):
        assert json.loads((tmp_path / "one" / run / "run.json").read_text())["complete"]


def test_a_worse_candidate_ends_in_gamma(store, tmp_path):
    old = store.resolve("tiny@prod")
    own_answers = {"onnx": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}  # of black and white
    test = json.loads((tmp_path / "old" / "self_test.json").read_text()) | {"probabilities": own_answers}
    manifest = write_bundle(tmp_path / "new", CLASSES, self_test=test) / "model.json"
    manifest.write_text(manifest.read_text().replace('"std": [1.0, 1.0, 1.0]', '"std": [1.5, 1.5, 1.5]'))
    new = store.push(tmp_path / "new").version
    store.move_alias("tiny", "candidate", new, reason="takes white for grey")
    done = call(tmp_path, *OPTIONS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (versions(store, BETA), versions(store, PROD), GAMMA in store.aliases("tiny")) == ([new], [old], False)
    decision = json.loads((tmp_path / "one" / "decision.json").read_text())
    accuracy = next(each for each in decision["criteria"] if each["metric"] == "accuracy")
    assert (accuracy["target"], accuracy["verdict"]) == ("gcp_cloudrun", "worse")
    assert accuracy["production"] == 1 and accuracy["candidate"] == pytest.approx(2 / 3)


def test_a_candidate_that_fails_its_self_test_is_broken(store, tmp_path):
    wrong = json.loads((tmp_path / "old" / "self_test.json").read_text())
    wrong["probabilities"]["onnx"].reverse()
    push(store, tmp_path / "new", "candidate", self_test=wrong)
    done = call(tmp_path, *OPTIONS)
    assert (done.returncode, done.stderr) == (1, "")
    decision = json.loads((tmp_path / "one" / "decision.json").read_text())
    assert (decision["stage"], decision["verdict"]) == (BETA, "worse")
    assert "does not start" in decision["reasons"][0] and "expected 'white'" in decision["reasons"][0]
    assert set(store.aliases("tiny")) == {PROD, "candidate"}


@pytest.mark.slow
def test_killed_with_its_twins_it_goes_on_where_it_was(store, tmp_path):
    """Again and again: while it measures, when it has decided, and when production's alias has moved."""
    old, new = store.resolve("tiny@prod"), push(store, tmp_path / "new", "candidate", weight=21.0)
    words = OPTIONS
    for line in ("beta: measuring 60 of images/", "beta: Not worse.", "prod: tiny@prod -> "):
        with subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert any(line in printed for printed in process.stdout), line
            started = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        psutil.wait_procs(started, timeout=30)
        assert started and not [each for each in started if each.is_running()]
        words = RESUME
    done = call(tmp_path, *RESUME)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [versions(store, alias) for alias in STAGES] == [[new], [new], [old, new]]


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_ends_the_twins(store, tmp_path):
    push(store, tmp_path / "new", "candidate", weight=21.0)
    with subprocess.Popen(
        command(*OPTIONS), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert any("beta: measuring 60" in printed for printed in process.stdout)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == "stopped; --resume goes on\n"
    assert process.returncode == 130
    assert started and not [each for each in started if each.is_running()]
    assert set(store.aliases("tiny")) == {PROD, "candidate"}


class Dying(LocalStages):
    """Production ends as soon as it serves the candidate."""

    ready_timeout_s = 5.0
    candidate = ""

    def follow_production(self, bundle):
        addresses = super().follow_production(bundle)
        if bundle.folder.name == self.candidate:
            for twin in self._twins["production"]:
                twin.stop()
        return addresses


def test_production_that_dies_is_rolled_back_and_serves_again(store, tmp_path):
    old, new = store.resolve("tiny@prod"), push(store, tmp_path / "new", "candidate", weight=21.0)
    plan = make_plan(new, old, images=str(tmp_path / "images"), margin=0.1, engine="onnx", only=("accuracy",))
    write_plan(tmp_path, plan)
    stages = Dying(plan, tmp_path, print, store)
    stages.candidate = new
    served = []
    release = Release(tmp_path, plan, store, stages, Meter(plan, Reporter()))
    close = stages.close
    stages.close = lambda: (served.append(what_production_serves(stages, tmp_path / "old")), close())  # type: ignore[method-assign]
    assert release.run() == 1
    assert versions(store, PROD) == [old, new, old] and versions(store, GAMMA) == [new]
    assert served == [True]
    assert json.loads((tmp_path / "decision.json").read_text())["rolled_back_to"] == old
    assert descendants() == []


def what_production_serves(stages: LocalStages, bundle: Path) -> bool:
    (twin,) = stages._twins["production"]
    return serves(Endpoint(twin.url).version(), load_bundle(bundle))
