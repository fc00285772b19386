"""A run whose record could not be read again is refused before it starts, or ends while it can be."""

from __future__ import annotations

import dataclasses

import pytest

from eval.__main__ import main
from eval.dataset.image_set import EncodedImage, ImageSet
from eval.errors import EvalError
from eval.plan.config import Config
from eval.plan.schedule import build_schedule
from eval.run.record_size import check_record_size, planned_samples
from eval.samples.model import MAX_IMAGES, ImageEntry
from eval.samples.store import read_run, write_run
from tests.helpers.fake_endpoint import fake_endpoint, image_set
from tests.helpers.synthetic_run import make_run


def photos(count: int) -> ImageSet:
    """Images of which nothing is posted."""
    entries = [ImageEntry(f"test/automobile/{index:06d}.png", "0" * 64, 0) for index in range(count)]
    return ImageSet("photos", ("cat",), tuple(EncodedImage(entry, b"", "image/png") for entry in entries))


@pytest.mark.integration
def test_more_requests_than_a_run_holds_are_refused_unsent(tmp_path, capsys):
    with fake_endpoint() as fake:
        targets = ["--target", f"a={fake.url}", "--target", f"b={fake.url}"]
        options = ["--images", "golden", "--scenario", "poisson", "--rate", "5000", "--duration", "300"]
        assert main(["run", *targets, *options, "--out", str(tmp_path / "run")]) == 1
        assert not fake.posts
    (line,) = capsys.readouterr().err.splitlines()
    assert "requests to 2 targets, and a run holds 3,000,000: lower --duration, --rate or --limit" in line
    assert not (tmp_path / "run").exists()


def test_planned_samples_are_those_of_the_schedule():
    names, config = ["a", "b"], Config(scenarios=("single", "poisson", "ramp", "burst", "idle"), rate_rps=200.0)
    scheduled = sum(len(block.image_indices) for block in build_schedule(config, names, 300))
    assert planned_samples(config, names, 300) == pytest.approx(300 + scheduled, rel=0.02)


def test_more_images_than_run_json_holds_are_refused(tmp_path):
    images = photos(MAX_IMAGES)
    with pytest.raises(EvalError, match=r"^250,000 images with their names are too many for run.json, .*--limit"):
        check_record_size(Config(), ["a"], images)
    run = dataclasses.replace(make_run(n_images=20)[0], image_manifest=images.entries)
    with pytest.raises(EvalError, match=r"run\.json would be larger than 32 MiB"):
        write_run(tmp_path, run)
    assert not any(tmp_path.iterdir())


def test_as_many_images_as_are_allowed_are_read_again(tmp_path):
    images = photos(200_000)
    check_record_size(Config(), ["a"], images)
    write_run(tmp_path, dataclasses.replace(make_run(n_images=20)[0], image_manifest=images.entries))
    assert len(read_run(tmp_path).image_manifest) == 200_000


def test_an_ordinary_run_is_small_enough():
    check_record_size(Config(), ["a", "b"], image_set(10))
