"""The reference process, and the answers that are kept for the next run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from eval.dataset.image_set import ImageSet
from eval.run import reference, reference_cache
from eval.run.reference_cache import ReferenceCache
from infra.models import read_model
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import image_set

pytestmark = pytest.mark.integration

ANSWER = (1, (0.25, 0.75))
# Answers with the length of what it is given, and notes each path
PROGRAM = """
import json, pathlib, sys
for line in sys.stdin:
    size = len(pathlib.Path(line.strip()).read_bytes())
    with open(sys.argv[1], "a") as asked:
        print(size, file=asked)
    print(json.dumps({"id": size % 10, "probabilities": [0.1] * 10}), flush=True)
"""


@pytest.fixture
def cached_command(tmp_path, monkeypatch):
    """A program in the reference's place, with a cache; returns the file in which it notes what it was asked."""
    program, asked = tmp_path / "program.py", tmp_path / "asked"
    program.write_text(PROGRAM)
    monkeypatch.setattr(reference, "REFERENCE_COMMAND", (sys.executable, str(program), str(asked)))
    cache = ReferenceCache(tmp_path / "cache" / "answers.jsonl")
    monkeypatch.setattr(reference, "open_reference_cache", lambda bundle, engine: cache)
    return asked


def collect(images):
    async def gather():
        return [sample async for sample in reference.reference_samples(images, reference.REFERENCE_COMMAND)]

    return asyncio.run(gather())


def bare(count):
    """Images without reference answers beside them."""
    images = image_set(count)
    return ImageSet(images.source, images.classes, images.images)


def test_only_images_without_a_kept_answer_are_computed(cached_command):
    images = bare(5)
    first = collect(ImageSet(images.source, images.classes, images.images[:3]))
    assert len(cached_command.read_text().split()) == 3
    found = collect(images)
    assert len(cached_command.read_text().split()) == 5
    assert found[:3] == first
    assert [(s.image_index, s.predicted_class) for s in found] == [
        (i, len(p.data) % 10) for i, p in enumerate(images.images)
    ]


def test_an_image_that_occurs_twice_is_computed_once(cached_command):
    images = bare(2)
    twice = ImageSet(images.source, images.classes, images.images * 2)
    assert len(collect(twice)) == 4
    assert len(cached_command.read_text().split()) == 2


def test_a_torn_line_of_the_cache_counts_as_not_there(tmp_path):
    cache = ReferenceCache(tmp_path / "new" / "answers.jsonl")
    assert cache.read(2) == {}
    cache.append("aa", ANSWER)
    cache.append("bb", ANSWER)
    cache.path.write_bytes(cache.path.read_bytes()[:-9])
    assert cache.read(2) == {"aa": ANSWER}


def test_a_cache_that_cannot_be_written_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ReferenceCache(tmp_path / "file" / "answers.jsonl")
    cache.append("aa", ANSWER)
    assert cache.read(2) == {}


def test_reference_cache_is_keyed_by_weights_and_processor(tmp_path, monkeypatch, bundle_dir):
    bundle = read_model(bundle_dir.name)

    def name(engine="torch"):
        cache = reference_cache.open_reference_cache(bundle, engine, tmp_path)
        return cache and cache.path.name

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    shipped = name()
    weights = json.loads((bundle_dir / "model.json").read_text())["files"]["weights.safetensors"]
    assert shipped.startswith(weights[:12])
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert name() != shipped
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    normalised = replace(bundle, input=replace(bundle.image, mean=(0.5, 0.5, 0.5)))
    other = reference_cache.open_reference_cache(normalised, "torch", tmp_path)
    assert other and other.path.name.startswith(weights[:12]) and other.path.name != shipped
    assert name("onnx").startswith(bundle.files["int8.onnx"][:12])
    monkeypatch.setattr(reference_cache, "LIBRARY_OF", {"torch": "no-such-library"})
    assert name() is None


def test_reference_labels_match_the_golden_manifest_in_order(golden_dir):
    rows = json.loads((golden_dir / "manifest.json").read_text())["images"][::5]
    assert len(rows) > 16  # more than one batch
    done = subprocess.run(
        [sys.executable, "-m", "service.offline_predict"], cwd=ROOT, capture_output=True, text=True, check=True,
        input="".join(f"{golden_dir / row['name']}\n" for row in rows),
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(rows)
    for answer, row in zip(found, rows, strict=True):
        assert answer["probabilities"] == pytest.approx(row["probabilities"], abs=0.03)
