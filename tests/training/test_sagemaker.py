"""`train` as SageMaker starts it: what it reads, what it leaves, what it says when it fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.classifier import Classifier
from service.model import load_bundle
from service.settings import Settings
from tests.conftest import ROOT
from tests.helpers.class_folders import write_class_folders
from training.sagemaker import data_folder, main

pytestmark = pytest.mark.integration

QUICK = {"base": "resnet18-cifar", "name": "insects", "sagemaker_program": "added by AWS's own tools"}


def job(root: Path, hyperparameters: Mapping[str, object] = QUICK) -> Path:
    """What SageMaker mounts, without channels."""
    config = root / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters), encoding="utf-8")
    for folder in ("input/data", "model", "output"):
        (root / folder).mkdir()
    return root


def failure(root: Path) -> str:
    return (root / "output" / "failure").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    root = job(tmp_path_factory.mktemp("ml"))
    write_class_folders(root / "input" / "data" / "train", {"ant": 12, "bee": 12})
    write_class_folders(root / "input" / "data" / "test", {"ant": 6, "bee": 6}, seed=1)
    assert main([str(root)]) == 0
    return root


def test_a_job_leaves_a_bundle_that_serves(trained):
    bundle = load_bundle(trained / "model")
    assert (bundle.name, bundle.classes) == ("insects", ("ant", "bee"))
    Classifier.load(Settings.from_env({"MODEL_DIR": str(trained / "model")}))  # runs its self-test
    assert not (trained / "output" / "failure").exists()


def test_a_job_leaves_its_figures_and_log(trained):
    run = json.loads((trained / "output" / "data" / "run.json").read_text(encoding="utf-8"))
    assert run["metrics"]["n"] == 12 and run["data"]["train"] + run["data"]["validation"] == 24
    assert {path.name for path in (trained / "output" / "data").iterdir()} >= {"log.csv", "curves.svg"}


def test_one_channel_of_any_name_is_split(tmp_path):
    root = job(tmp_path / "ml", QUICK | {"name": "test"})
    write_class_folders(root / "input" / "data" / "training", {"ant": 14, "bee": 14})
    (root / "checkpoints").mkdir()  # as with managed spot training
    assert main([str(root)]) == 0
    assert (root / "checkpoints" / "checkpoint.safetensors").exists()
    run = json.loads((root / "output" / "data" / "run.json").read_text(encoding="utf-8"))
    assert run["data"]["split_here"] and run["metrics"]["n"] == 6
    assert load_bundle(root / "model").name == "test"
    assert {path.name for path in (root / "checkpoints" / "test").iterdir()} == {"ant", "bee"}


def test_a_channel_train_alone_is_split(tmp_path):
    write_class_folders(tmp_path / "train", {"ant": 4, "bee": 4})
    assert data_folder(tmp_path) == tmp_path / "train"


def test_channels_without_test_are_refused(tmp_path):
    root = job(tmp_path / "ml")
    for channel in ("train", "validation"):
        write_class_folders(root / "input" / "data" / channel, {"ant": 4, "bee": 4})
    assert main([str(root)]) == 1
    assert "has the channels train, validation; give `train` and `test` with CLASS/* each" in failure(root)


@pytest.mark.parametrize(
    ("hyperparameters", "reason"),
    [
        ({"epoch": "5"}, "there is no hyperparameter 'epoch'; there are base, weights,"),
        ({"epochs": "five"}, "the hyperparameter epochs: 'five' is not a whole number of at least 1"),
        ({"unfreeze": "yes"}, "the hyperparameter unfreeze: 'yes' is not true or false"),
        ({"lr": "fast"}, "the hyperparameter lr: 'fast' is not a number above 0"),
        ({"batch_size": "-1"}, "the hyperparameter batch_size: '-1' is not a whole number of at least 2"),
        ({"floor": "95"}, "the hyperparameter floor: '95' is not a fraction from 0 to 1, such as 0.95 for 95%"),
        ({"name": "../model"}, "'../model' is no name of a model"),
        ({"epochs": 5}, "has to be an object of strings"),
        ({"base": "resnet51"}, "there is no base 'resnet51'"),
        ({}, "has the channels none; give `train` and `test` with CLASS/* each"),
    ],
)
def test_a_failed_job_says_why_in_one_line(tmp_path, hyperparameters, reason):
    root = job(tmp_path / "ml", hyperparameters)
    if hyperparameters:
        write_class_folders(root / "input" / "data" / "train", {"ant": 12, "bee": 12})
    assert main([str(root)]) == 1
    assert reason in failure(root) and "\n" not in failure(root)


def test_an_unforeseen_failure_is_named_and_cut(tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise OSError("x" * 2000)

    monkeypatch.setattr("training.sagemaker.train", fail)
    assert main([str(tmp_path)]) == 1
    assert failure(tmp_path).startswith("OSError: xxx") and len(failure(tmp_path)) == 1024
    assert "Traceback" in capsys.readouterr().err


def test_a_stopped_job_ends_at_once(tmp_path):
    root = job(tmp_path / "ml", {"base": "resnet18-cifar", "weights": "none", "epochs": "1000"})
    write_class_folders(root / "input" / "data" / "train", {"ant": 30, "bee": 30})
    write_class_folders(root / "input" / "data" / "test", {"ant": 6, "bee": 6}, seed=1)
    command = [sys.executable, "-m", "training.sagemaker", str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        next(line for line in process.stdout if line.startswith("whole"))  # an epoch has ended
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert not (root / "output" / "failure").exists() and not list((root / "model").iterdir())
