"""Rows of a table as requests, in the order of the model's features, with their classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.dataset import golden
from eval.dataset.golden import is_golden
from eval.dataset.images import load_images
from eval.errors import ImagesError
from eval.samples.model import TABULAR
from infra import models
from tests.helpers.bundles import write_bundle

TABLE = "width, length,class\n1,2.5,yes\n3,4,no\n\n5,6,yes\n"


@pytest.fixture(autouse=True)
def bundles(tmp_path, monkeypatch) -> None:
    """A model of rows, and one of images."""
    write_bundle(tmp_path / "models" / "rows", ["no", "yes"], features=["length", "width"], name="rows")
    write_bundle(tmp_path / "models" / "pictures", ["no", "yes"], name="pictures")
    monkeypatch.setattr(models, "MODELS_DIR", tmp_path / "models")


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "data" / "rows.csv"
    path.parent.mkdir()
    path.write_text(TABLE, encoding="utf-8")
    return path


def load(selection, **options):
    return load_images(str(selection), None, 0, print, **{"model": "rows"} | options)


@pytest.mark.parametrize("named_by", ["file", "folder"])
def test_rows_are_json_in_the_order_of_the_models_features(table, named_by):
    found = load(table if named_by == "file" else table.parent)
    assert [json.loads(row.data) for row in found.images] == [[2.5, 1.0], [4.0, 3.0], [6.0, 5.0]]
    assert {row.media_type for row in found.images} == {"application/json"}
    assert [(row.entry.name, row.entry.label) for row in found.images] == [("row 1", 1), ("row 2", 0), ("row 3", 1)]
    assert (found.kind, found.model, found.classes) == (TABULAR, "rows", ("no", "yes"))
    assert found.source == "data/rows.csv"


def test_a_table_for_an_address_alone_says_its_own_classes(table):
    table.write_text("a,class\n1,two\n2,one\n", encoding="utf-8")
    found = load(table, model="pictures", own_classes=True)
    assert (found.classes, found.model) == (("one", "two"), None)
    assert [json.loads(row.data) for row in found.images] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "the first line has to name the features, and 'class' last", id="empty"),
        pytest.param("length,width\n1,2\n", "and 'class' last", id="no-class"),
        pytest.param("length,width,class\n", "has 0 rows below its header", id="no-rows"),
        pytest.param("length,width,class\n1,no\n", "line 2: 2 cells, and the header has 3", id="ragged"),
        pytest.param("length,width,class\n1,wide,no\n", "line 2: width is 'wide', expected a number", id="text"),
        pytest.param("length,width,class\n1,nan,no\n", "line 2: width is 'nan', expected a number", id="nan"),
        pytest.param("length,width,class\n1,,no\n", "line 2: width is '', expected a number", id="gap"),
        pytest.param("length,height,class\n1,2,no\n", "columns length, height; rows takes length, width", id="name"),
        pytest.param("length,width,class\n1,2,maybe\n", "'maybe' is not a class of the model; its", id="class"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_one_line(table, text, message):
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ImagesError) as error:
        load(table)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_one_line(table):
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImagesError, match=r"^cannot read .*rows.csv as CSV: 'utf-8' codec"):
        load(table)


def test_images_are_not_sent_to_a_model_of_rows_or_the_reverse(table):
    (table.parent / "no").mkdir()
    table.rename(table.parent / "other.csv")
    with pytest.raises(ImagesError, match=r"^rows takes rows of numbers: give --images a CSV file"):
        load(table.parent)
    with pytest.raises(ImagesError, match=r"^pictures takes images, and .*other.csv is a table"):
        load(table.parent / "other.csv", model="pictures")


def test_each_model_has_its_own_golden_set(table, monkeypatch):
    monkeypatch.setattr(golden, "GOLDEN_DIR", table.parent.parent)
    table.parent.rename(table.parent.with_name("rows"))
    assert load("golden").source == "rows of rows (bundled)" and not is_golden(load("golden").source)
    with pytest.raises(ImagesError, match=r"^pictures has no golden set in .*: give images or rows with --images"):
        load_images(None, None, 0, print, model="pictures")  # no CIFAR-10 is looked for


def test_an_unknown_model_is_an_error_with_those_there():
    with pytest.raises(ImagesError, match=r"^no model is called 'row'; models/ has pictures, rows$"):
        load("golden", model="row")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("golden set (synthetic, bundled)", True),
        ("golden set (synthetic, bundled); a sample of 20 of 100", True),
        ("golden set of efficientnet (bundled)", True),
        ("golden set/, class folders of PNG files", False),
        ("CIFAR-10 test set, original pixels as PNG", False),
    ],
)
def test_the_source_says_whether_labels_are_the_models_own(source, expected):
    assert is_golden(source) is expected
