"""./cloudtrial tabular: rows of numbers become a bundle of schema 2."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from service.app import create_app
from service.model import load_bundle
from service.settings import Settings
from training.__main__ import main
from training.bundles.onnx_export import run_onnx
from training.bundles.tabular import read_rows

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    root = tmp_path_factory.mktemp("tabular")
    main(["tabular", "sklearn:iris", "--bundle", str(root / "iris"), "--golden", str(root / "rows.csv")])
    return root


def test_iris_is_under_a_kilobyte_and_the_shipped_one(iris, bundle_dir):
    assert (iris / "iris" / "model.onnx").stat().st_size < 1000
    shipped = bundle_dir.parent / "iris"
    assert load_bundle(iris / "iris").files == load_bundle(shipped).files
    assert (iris / "rows.csv").read_bytes() == (bundle_dir.parents[1] / "eval/golden/iris/rows.csv").read_bytes()


def test_the_bundle_answers_the_held_out_rows(iris):
    rows = read_rows(str(iris / "rows.csv"))
    found = run_onnx(iris / "iris" / "model.onnx", rows.values, "features")
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    manifest = json.loads((iris / "iris" / "model.json").read_text(encoding="utf-8"))
    assert (found.argmax(1) == rows.labels).mean() == manifest["metrics"]["test"]["accuracy"] >= 0.9
    assert len(rows.labels) == manifest["metrics"]["test"]["n"] == 50


def test_the_self_test_has_the_answers_of_its_rows(iris):
    test = json.loads((iris / "iris" / "self_test.json").read_text(encoding="utf-8"))
    found = run_onnx(iris / "iris" / "model.onnx", np.array(test["inputs"], np.float32), "features")
    np.testing.assert_allclose(found, test["probabilities"]["onnx"], atol=1e-5)


def test_a_csv_file_gives_a_binary_model(tmp_path):
    rng = np.random.default_rng(0)
    with (tmp_path / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "class"])
        writer.writerows([*rng.normal(label, 0.3, 2).round(3), name] for label, name in ((0, "no"), (1, "yes")) * 15)
    main(["tabular", str(tmp_path / "mine.csv"), "--bundle", str(tmp_path / "mine")])
    bundle = load_bundle(tmp_path / "mine")
    assert bundle.classes == ("no", "yes")
    assert run_onnx(tmp_path / "mine" / "model.onnx", np.array([[1, 1]], np.float32), "features")[0, 1] > 0.9


def test_the_table_is_not_replaced_by_the_rows_held_out(iris, tmp_path):
    (tmp_path / "rows.csv").write_bytes((iris / "rows.csv").read_bytes())
    words = ["--bundle", str(tmp_path / "mine"), "--golden", str(tmp_path / "." / "rows.csv")]
    with pytest.raises(SystemExit, match=r"^tabular: --golden .*rows\.csv is the table itself"):
        main(["tabular", str(tmp_path / "rows.csv"), *words])
    assert (tmp_path / "rows.csv").read_bytes() == (iris / "rows.csv").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda lines: [lines[0], "1,2,3,4,setosa\n"], id="other rows"),
        pytest.param(lambda lines: ["a,b,class\n", *lines[1:4]], id="other columns"),
        pytest.param(lambda lines: [*lines, *lines[1:10]], id="more than are held out"),
        pytest.param(lambda lines: ["dear diary\n"], id="no rows"),
    ],
)
def test_a_file_of_the_users_own_is_no_place_for_rows(content, iris, tmp_path):
    mine = tmp_path / "test.csv"
    mine.write_text("".join(content((iris / "rows.csv").read_text().splitlines(keepends=True))))
    before = mine.read_bytes()
    with pytest.raises(SystemExit, match=r"^tabular: --golden .*test\.csv is there, and holds more or other rows"):
        main(["tabular", "sklearn:iris", "--bundle", str(tmp_path / "mine"), "--golden", str(mine)])
    assert mine.read_bytes() == before and not (tmp_path / "mine").exists()


def test_the_rows_of_an_earlier_fit_are_replaced(iris, tmp_path):
    for seed in ("1", "0"):
        words = ["--golden", str(tmp_path / "rows.csv"), "--seed", seed]
        main(["tabular", "sklearn:iris", "--bundle", str(tmp_path / "mine"), *words])
    assert (tmp_path / "rows.csv").read_bytes() == (iris / "rows.csv").read_bytes()


def test_a_table_of_large_numbers_is_served_and_known(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        [round(468_000 + 90 * label + rng.normal(0, 40), 1), round(5_412_300 + rng.normal(0, 200), 1), name]
        for label, name in ((0, "oak"), (1, "pine")) * 40
    ]
    with (tmp_path / "trees.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["easting", "northing", "class"], *rows])
    main(["tabular", str(tmp_path / "trees.csv"), "--bundle", str(tmp_path / "trees")])
    client = create_app(settings=Settings.from_env({"MODEL_DIR": str(tmp_path / "trees")})).test_client()
    found = [client.post("/predict", json=row[:2]).json for row in rows]
    warned = [row for row, answer in zip(rows, found, strict=True) if "warnings" in answer]
    assert len(warned) < 10  # of the rows that were held out, a few reach beyond the others
    low, high = (choose(row[0] for row in rows if row not in warned) for choose in (min, max))
    assert f"{low:.7g} to {high:.7g} in training" in client.get("/").text
    beyond = client.post("/predict", json=[468_300.25, rows[0][1]]).json["warnings"]
    assert beyond == [f"easting is 468300.25; the training data had {low:.7g} to {high:.7g}"]
    reference = json.loads((tmp_path / "trees" / "reference.json").read_text(encoding="utf-8"))
    assert all(len(each["bounds"]) > 15 for each in reference["inputs"].values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a,b\n1,2\n", "the last column has to be named 'class'", id="no class"),
        pytest.param("a,class\n1,x\nq,y\n", "line 3: could not convert string to float: 'q'", id="a word"),
        pytest.param("a,class\n1,x\nnan,y\n", "line 3: a value is missing, infinite", id="nan"),
        pytest.param("a,class\n1,x\n1e39,y\n", "line 3: a value is missing, infinite or beyond float32", id="beyond"),
        pytest.param('a,class\n"1,x\n' + "2,y\n" * 40_000, "is no CSV file with a header: field larger", id="a quote"),
        pytest.param("a,class\n1,x,2\n", "line 2: 3 values in 2 columns", id="columns"),
        pytest.param("a,a,class\n1,1,x\n", "two columns have one name", id="one name"),
        pytest.param("a,class\n1,x\n2,x\n", "has one class", id="one class"),
        pytest.param("a,class\n" + "1,x\n" * 9 + "2,y\n", "has 1 rows of 'y'", id="tiny"),
        pytest.param(",a,class\n0,1,x\n", "the column 1 has no name: an index", id="index"),
        pytest.param("a,b\u3000c,class\n0,1,x\n", "the column 2 is called .* 1 to 100 printable", id="heading"),
        pytest.param("a,class\n" + "1,x\n" * 9 + "2, \n" * 9, "line 11: the class is ''", id="no class said"),
        pytest.param("a,class\n1," + "x" * 101, "line 2: the class is .* 1 to 100 printable", id="long class"),
        pytest.param("", "is no CSV file with a header", id="empty"),
    ],
)
def test_bad_rows_are_one_line(text, message, tmp_path):
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=f"^tabular: .*{message}"):
        main(["tabular", str(tmp_path / "rows.csv"), "--bundle", str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()
