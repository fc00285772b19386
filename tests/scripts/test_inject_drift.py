"""Drift sent to a real twin raises its alert in a real Prometheus; the rules' copy has a shorter window."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from scripts.simulations.drift.answers import ENGINE, kept
from scripts.simulations.drift.kinds import DRIFTS, EQUAL
from scripts.simulations.drift.rules import RULES, with_window
from scripts.simulations.inject_drift import inject, main
from service.model import load_bundle
from service.monitoring.reference import read_reference
from training.reference import main as write_reference

DARK = next(kind for kind in DRIFTS if kind.name == "dark")


@pytest.fixture(scope="module")
def images(golden_dir, tmp_path_factory):
    """The golden set as folders of classes: no image of CIFAR-10 is in the repository."""
    root = tmp_path_factory.mktemp("images")
    for path in golden_dir.glob("*.png"):
        folder = root / path.stem.split("-", 1)[1]
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


@pytest.fixture(scope="module")
def bundle(bundle_dir, images, tmp_path_factory):
    """The shipped model, with these images as its reference."""
    folder = tmp_path_factory.mktemp("models") / bundle_dir.name
    shutil.copytree(bundle_dir, folder)
    write_reference(["--model", str(folder), "--images", str(images), "--engine", ENGINE])
    return load_bundle(folder)


@pytest.mark.slow
@pytest.mark.integration
def test_dark_images_raise_the_alert_of_brightness(bundle, images, needs_tool):
    said: list[str] = []
    control, dark = inject(bundle, images, [DARK], 20, 90, needs_tool("prometheus"), said.append, control_windows=1.5)
    assert control.kind is EQUAL and control.images and not control.raised and not control.failed
    assert "BrightnessDrift" in {each.name for each in dark.raised}
    first = min(each.images for each in dark.raised)
    assert 0 < first <= dark.images and "BrightnessDrift" in dark.row() and "half as bright" in said


def test_answers_are_measured_once_and_are_the_references(bundle, images, tmp_path, monkeypatch):
    found = kept(tmp_path, bundle, images, (DARK,), limit=10)
    reference = read_reference(bundle, ENGINE)
    assert reference and reference.answers
    equal, dark = found["equal"], found["dark"]
    assert len(equal.truth) == reference.count == 100 and len(dark.truth) == 10
    assert equal.right.mean() == reference.answers.accuracy
    assert equal.numbers["confidence"].mean() == pytest.approx(reference.answers.confidence_mean, abs=1e-6)
    ratio = dark.numbers["brightness"] / equal.numbers["brightness"][:10]
    assert ratio == pytest.approx(np.full(10, 0.5), abs=0.02)
    monkeypatch.setattr("scripts.simulations.drift.answers.measure", None)
    again = kept(tmp_path, bundle, images, (DARK,), limit=10)
    assert (again["dark"].numbers["contrast"] == dark.numbers["contrast"]).all()


def test_a_shorter_window_is_one_in_all_places(tmp_path):
    folder = with_window(tmp_path / "rules", 60)
    recording, alerts = ((folder / name).read_text(encoding="utf-8") for name in ("recording.yml", "alerts.yml"))
    text = "\n".join(line for line in recording.splitlines() if not line.lstrip().startswith("#"))
    assert set(re.findall(r"\[(\w+)\]", text)) == {"60s", "1d"}
    assert set(re.findall(r"offset (\w+)", text)) == {"60s", "15s", "1d"} and "interval: 1s" in text
    assert set(re.findall(r"for: (\w+)", alerts.split("name: service")[0])) == {"5s"}
    assert (RULES / "recording.yml").read_text(encoding="utf-8").count("[1h]") == recording.count("[60s]")


def test_too_few_images_for_a_window_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="--window-s 750 at least"):
        main(["--images", str(tmp_path), "--rate", "1"])
