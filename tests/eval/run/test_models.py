"""A run follows the model that the targets report: its classes, its golden set, its reference, its report's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.dataset import golden
from infra import models
from tests.helpers.bundles import write_bundle
from tests.helpers.html_pages import Page
from tests.helpers.running_service import Server, ready_service

pytestmark = pytest.mark.integration

CLASSES = ["small <b>", "medium", "großer Wert"]
ROWS = "width,length,class\n" + "".join(f"{n % 11},{n % 11},{CLASSES[(n % 11) // 4]}\n" for n in range(66))
QUICK = ("--warmup", "2", "--baseline-rtt", "2", "--block", "10")
NOT_OF_ROWS = r"(?<!container )(?<!stored )(?<!--)\b[Ii]mages?\b|CIFAR|int8|PyTorch"  # but --image, an option


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", autouse=True)
def bundles(folder) -> Iterator[None]:
    """A model of rows with a golden set."""
    write_bundle(folder / "models" / "rows", CLASSES, features=["length", "width"], name="rows")
    (folder / "golden" / "rows").mkdir(parents=True)
    (folder / "golden" / "rows" / "rows.csv").write_text(ROWS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "MODELS_DIR", folder / "models")
        patch.setattr(golden, "GOLDEN_DIR", folder / "golden")
        yield


@pytest.fixture(scope="module")
def service(folder) -> Iterator[Server]:
    with ready_service(folder / "log", ENGINE="onnx", MODEL_DIR=str(folder / "models" / "rows")) as server:
        yield server


@pytest.fixture(scope="module")
def report(folder, service) -> Path:
    """A run of the service, which nothing but its /version says the model of."""
    address = f"heroku-onnx=http://127.0.0.1:{service.port}"
    assert main(["run", "--target", address, *QUICK, "--scenario", "single,repeat", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_version_decides_classes_golden_set_and_reference(report):
    run = json.loads((report / "run.json").read_text(encoding="utf-8"))
    assert (run["model"], run["input_kind"], run["reference_engine"]) == ("rows", "tabular", "onnx")
    assert run["classes"] == CLASSES and run["images_source"] == "rows of rows (bundled)"
    summary = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert summary["targets"]["heroku-onnx"]["accuracy"]["n"] == 66
    agreement = summary["agreement"]["heroku-onnx|reference"]
    assert (agreement["n"], agreement["disagreements"]) == (66, 0)
    assert not [finding for finding in summary["run"]["findings"] if finding["severity"] == "invalid"]


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_report_of_rows_speaks_of_rows(report, name):
    text = (report / name).read_text(encoding="utf-8")
    text = Page(text).text if name.endswith("html") else text
    assert "66 rows" in text and not re.findall(NOT_OF_ROWS, text)
    assert re.search(r"Correct:? [\d.]+%\.? [Oo]f 66 rows", text)


def test_the_golden_set_is_named_by_the_option_as_well(folder, service, capsys):
    address = f"mine=http://127.0.0.1:{service.port}"
    out = str(folder / "named")
    assert main(["run", "--target", address, "--model", "rows", "--limit", "6", *QUICK, "--out", out]) == 0
    assert "Rows: rows of rows (bundled); a sample of 6 of 66 (6)" in capsys.readouterr().out


def test_targets_of_two_models_are_refused_in_one_line(folder, service, capsys):
    write_bundle(folder / "models" / "others", ["no", "yes"], name="others")
    others = str(folder / "models" / "others")
    with ready_service(folder / "log of others", ENGINE="onnx", MODEL_DIR=others) as other:
        addresses = [f"a=http://127.0.0.1:{service.port}", "--target", f"b=http://127.0.0.1:{other.port}"]
        assert main(["run", "--target", *addresses, "--out", str(folder / "two")]) == 1
    errors = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the targets serve different models (a rows, b others): measure each in a run of its own" in errors


def test_a_model_that_is_not_there_is_one_line(folder, capsys):
    assert main(["run", "--local", "--model", "rowz", "--out", str(folder / "none")]) == 1
    assert "no model is called 'rowz'; models/ has" in capsys.readouterr().err
    assert main(["run", "--local", "--model", "rows", "--engines", "torch", "--out", str(folder / "none")]) == 1
    assert "rows has no engine 'torch'; it has onnx" in capsys.readouterr().err
