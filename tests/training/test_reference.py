"""python -m training.reference, and what it computes: distributions against a computed truth, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from service.app import create_app
from service.manifest.records import Feature, ImageInput, TabularInput
from service.model import load_bundle
from service.monitoring.histogram import PROBABILITIES
from service.monitoring.reference import REFERENCE, read_reference
from service.settings import Settings
from tests.helpers.bundles import one_coloured, write_bundle
from training.bundles.reference import distribution, feature_bounds, measured, reference_of
from training.reference import main

GREYS = {"dark": (0, 10, 20, 200), "bright": (255, 250, 240, 230)}  # one of the dark ones is bright


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "tiny", list(GREYS))


@pytest.fixture
def images(tmp_path):
    for name, greys in GREYS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for grey in greys:
            (tmp_path / "images" / name / f"{grey}.png").write_bytes(one_coloured(grey))
    return tmp_path / "images"


def test_shares_are_of_the_values_not_above_a_bound():
    found = distribution(np.array([0.1, 0.2, 0.2, 0.9]), (0.05, 0.2, 0.5))
    assert found == {"bounds": [0.05, 0.2, 0.5], "shares": [0.0, 0.75, 0.75]}


def test_a_features_bounds_part_its_values_equally_and_rise():
    values = np.random.default_rng(0).normal(5, 1, 10_000)
    bounds = feature_bounds(values)
    assert len(bounds) == 19
    np.testing.assert_allclose(np.diff([0, *distribution(values, bounds)["shares"], 1]), 0.05, atol=0.01)
    assert feature_bounds(np.full(9, 3.0)) == (3.0,)


def test_bounds_of_large_numbers_that_are_alike_differ():
    northings = np.random.default_rng(0).normal(5_412_328, 500, 10_000).astype(np.float32)
    bounds = feature_bounds(northings)
    assert len(bounds) == 19 and bounds[0] == pytest.approx(5_411_500, abs=50)
    np.testing.assert_allclose(np.diff([0, *distribution(northings, bounds)["shares"], 1]), 0.05, atol=0.01)


def test_answers_are_summed_up_by_label_confidence_and_margin():
    taken = TabularInput((Feature("length", 0, 1),))
    rows = np.array([[0.5], [1.5], [2.5], [3.5]], np.float32)
    answers = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.0, 1.0, 0.0]], np.float32)
    found = reference_of(taken, measured(rows, taken), {"onnx": answers}, np.array([0, 1, 2, 1]), "four rows")
    own = found["answers"]["onnx"]
    assert (found["count"], own["labels"], own["accuracy"]) == (4, [0.25, 0.75, 0.0], 0.75)
    assert own["confidence_mean"] == pytest.approx(0.775)
    at = dict(zip(own["margin"]["bounds"], own["margin"]["shares"], strict=True))  # 0.3, 0.5, 0.7 and 1
    assert (at[0.2], at[0.4], at[0.6], at[0.999]) == (0, 0.25, 0.5, 0.75)
    at = dict(zip(PROBABILITIES, own["confidence"]["shares"], strict=True))
    assert (at[0.5], at[0.85], at[0.999]) == (0, 0.75, 0.75)


def test_one_class_alone_has_a_reference():
    taken = ImageInput(8, 8, (0.0,) * 3, (1.0,) * 3)
    numbers = measured(np.zeros((2, 3, 8, 8), np.float32), taken)
    found = reference_of(taken, numbers, {"onnx": np.ones((2, 1), np.float32)}, None, "black")
    assert found["answers"]["onnx"]["margin"] == found["answers"]["onnx"]["confidence"]
    assert found["inputs"]["brightness"]["shares"][0] == 1


def test_class_folders_give_the_accuracy_and_the_version_stays(bundle, images, capsys):
    version = load_bundle(bundle).version("float32.onnx")
    main(["--model", str(bundle), "--images", str(images), "--data", "greys"])
    read = load_bundle(bundle)
    assert read.version("float32.onnx") == version and REFERENCE in read.files_for("onnx")
    reference = read_reference(read, "onnx")
    assert reference and reference.count == 8 and reference.answers
    assert (reference.answers.accuracy, reference.answers.labels) == (0.875, (0.375, 0.625))
    assert json.loads((bundle / REFERENCE).read_text(encoding="utf-8"))["data"] == "greys"
    assert "onnx, 8 images 87.50% right" in capsys.readouterr().out


def test_the_service_counts_the_same_images_as_the_reference_has(bundle, images):
    """Every share of every gauge is that of the histogram, when the service is sent what the reference was made of."""
    main(["--model", str(bundle), "--images", str(images)])
    app = create_app(settings=Settings.from_env({"ENGINE": "onnx", "MODEL_DIR": str(bundle)}))
    client = app.test_client()
    for path in images.rglob("*.png"):
        assert client.post("/predict", data=path.read_bytes(), content_type="image/png").status_code == 200
    reference = read_reference(load_bundle(bundle), "onnx")
    assert reference and reference.answers
    shares = {**reference.inputs, "confidence": reference.answers.confidence, "margin": reference.answers.margin}
    monitor = app.extensions["model_switcher"]._current.model.monitor
    families = {family.name.removeprefix("classifier_"): family for family in monitor.collect()}
    for name, expected in shares.items():
        buckets = [sample.value / 8 for sample in families[name].samples if "le" in sample.labels]
        assert buckets == [*expected.shares, 1], name


def test_images_of_unknown_classes_give_no_accuracy(bundle, tmp_path):
    (tmp_path / "flat").mkdir()
    for grey in (0, 255):
        (tmp_path / "flat" / f"{grey}.png").write_bytes(one_coloured(grey))
    main(["--model", str(bundle), "--images", str(tmp_path / "flat")])
    reference = read_reference(load_bundle(bundle), "onnx")
    assert reference and reference.answers and reference.answers.accuracy is None


def test_rows_give_each_feature_its_distribution(tmp_path):
    bundle = write_bundle(tmp_path / "rows", ["small", "large"], features=["length", "width"])
    (tmp_path / "rows.csv").write_text("length,width,class\n1,1,small\n9,9,large\n8,8,small\n", encoding="utf-8")
    main(["--model", str(bundle), "--rows", str(tmp_path / "rows.csv")])
    reference = read_reference(load_bundle(bundle), "onnx")
    assert reference and set(reference.inputs) == {"length", "width"} and reference.answers
    assert reference.answers.accuracy == pytest.approx(2 / 3, abs=1e-6)


def test_one_broken_file_is_left_out_and_named(bundle, images, capsys):
    (images / "dark" / "broken.png").write_bytes(b"no image")
    main(["--model", str(bundle), "--images", str(images)])
    assert "left out: 1 of 9 files cannot be read, the first: broken.png" in capsys.readouterr().out


def damage(images, bundle, kind: str) -> list[str]:
    """The arguments of a command that cannot do what it is asked."""
    match kind:
        case "rows":
            return ["--rows", "sklearn:iris"]
        case "broken":
            for path in images.rglob("*.png"):
                path.write_bytes(b"no image")
        case "class":
            (images / "zebra").mkdir()
            (images / "zebra" / "0.png").write_bytes(one_coloured(0))
        case "nothing":
            return ["--images", str(images / "nowhere")]
        case "engine":
            return ["--images", str(images), "--engine", "torch"]
    return ["--images", str(images)]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rows", "tiny takes images: give --images"),
        ("broken", "8 of 8 files cannot be read, the first: "),
        ("class", "has folders of no class of tiny: zebra"),
        ("nothing", "no folder .*nowhere"),
        ("engine", "has no file for the engine 'torch'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(bundle, images, kind, message):
    before = (bundle / "model.json").read_bytes()
    with pytest.raises(SystemExit, match=f"^reference: .*{message}"):
        main(["--model", str(bundle), *damage(images, bundle, kind)])
    assert (bundle / "model.json").read_bytes() == before and not (bundle / REFERENCE).exists()


@pytest.mark.parametrize("name", ["resnet18-cifar10", "iris"])
def test_the_shipped_models_have_a_reference_of_each_engine(bundle_dir, name):
    bundle = load_bundle(bundle_dir.parent / name)
    manifest = json.loads((bundle.folder / "model.json").read_text(encoding="utf-8"))
    test = manifest["metrics"]["test"]
    for engine in bundle.engines:
        reference = read_reference(bundle, engine)
        assert reference and reference.answers
        measured_on = manifest["exports"]["int8.onnx"] if (name, engine) == ("resnet18-cifar10", "onnx") else test
        assert reference.count == measured_on["n"]
        assert reference.answers.accuracy == pytest.approx(measured_on["accuracy"], abs=0.001)
