"""Classes of any name and number, from folders through a run to the three reports."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import cmarkgfm
import flask
import pytest
from PIL import Image

from eval.__main__ import main
from tests.helpers.html_pages import Page, text_of
from tests.helpers.http_server import wsgi_server

pytestmark = pytest.mark.integration

HOSTILE = sorted([
    "two words  and more", "caf\u00e9 \u2603 \u65e5\u672c\u8a9e", "<img src=x onerror=pwned=1>", "x" * 100,
    "a&amp;b \"quoted\" 'it'", "| a | b | `c` **d** [e](f)", "{{ 7 * 7 }}", "=HYPERLINK(1)",
])  # fmt: skip
MANY = [f"class {number:03}" for number in range(1000)]
WRONG = 50  # one image of so many is taken for the next class
OPTIONS = ("--warmup", "1", "--baseline-rtt", "0", "--restarts", "0")


def class_id(data: bytes) -> int:
    """As the first pixel says it."""
    with Image.open(io.BytesIO(data)) as image:
        red, green, _ = image.convert("RGB").getpixel((0, 0))
    return red + 256 * green


def write_images(folder: Path, classes: Sequence[str], per_class: int) -> Path:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for image in range(per_class):
            Image.new("RGB", (8, 8 + image), (number % 256, number // 256, 0)).save(folder / name / f"{image}.png")
    return folder


@pytest.fixture(scope="module")
def url():
    """Names the class at /name, and tells the probabilities of a thousand at /many."""
    app = flask.Flask("any_classes")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    @app.post("/name")
    def name():
        number = class_id(flask.request.get_data())
        return {"label": HOSTILE[number if number != 3 else 4]}

    @app.post("/many")
    def many():
        number = class_id(flask.request.get_data())
        row = [0.0001] * len(MANY)
        row[(number + 1) % len(MANY) if number % WRONG == 7 else number] = 1 - 0.0001 * (len(MANY) - 1)
        return {"scores": row}

    with wsgi_server(app) as url:
        yield url


@pytest.fixture(scope="module")
def hostile(url, tmp_path_factory) -> Path:
    """A run with classes of hostile names."""
    images, run_dir = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("run") / "run"
    write_images(images, HOSTILE, per_class=3)
    words = ("run", "--target", f"mine={url}/name", "--images", str(images), *OPTIONS, "--out", str(run_dir))
    assert main(words) == 0
    return run_dir


def test_any_name_of_a_class_is_measured(hostile):
    report = json.loads(text_of(hostile, "report.json"))["targets"]["mine"]
    assert [row["label"] for row in report["per_class"]] == HOSTILE
    assert report["accuracy"]["value"] == 7 / 8
    pair = {"label": HOSTILE[3], "predicted": HOSTILE[4], "images": 3, "support": 3}
    assert report["most_confused"] == [pair]


def test_a_name_of_a_class_is_text_in_every_report(hostile):
    page = Page(text_of(hostile))
    assert not [attributes for tag, attributes in page.elements if "onerror" in attributes]
    for name in HOSTILE:
        assert " ".join(name.split()) in page.text, name
    html = cmarkgfm.github_flavored_markdown_to_html(
        text_of(hostile, "report.md"), cmarkgfm.cmark.Options.CMARK_OPT_UNSAFE
    )
    assert "<img" not in html


def test_a_thousand_classes_are_ten_rows_and_pairs(url, tmp_path):
    """A tenth of them has images."""
    images, run_dir = write_images(tmp_path / "images", MANY[:100], per_class=1), tmp_path / "run"
    (tmp_path / "classes.txt").write_text("\n".join(MANY))
    words = ("--images", str(images), "--classes", str(tmp_path / "classes.txt"), *OPTIONS, "--out", str(run_dir))
    assert main(["run", "--target", f"mine={url}/many", *words]) == 0
    report = json.loads(text_of(run_dir, "report.json"))["targets"]["mine"]
    assert report["accuracy"]["value"] == 1 - 1 / WRONG and report["confusion"] == []
    assert report["top5_accuracy"]["value"] == 0.98 and 0.9 < report["average_precision"]["value"] < 1
    assert len(report["per_class"]) == 1000 and len(report["most_confused"]) == 100 / WRONG
    assert report["roc_auc"]["reason"]["code"] == "classes_without_image"
    page = Page(text_of(run_dir))
    assert "Of 1,000 classes the 10 with the lowest F1." in page.text and "Most confused classes" in page.text
    assert "Confusion matrix" not in page.text
    assert len(text_of(run_dir)) < 1_500_000 and len(text_of(run_dir, "report.json")) < 1_500_000


@pytest.mark.browser
def test_a_page_of_hostile_classes_shows_them_and_runs_nothing(hostile, browser):
    """The last test: a run needs an event loop of its own."""
    page = browser.new_page()
    page.goto((hostile / "report.html").as_uri())
    assert page.evaluate("typeof pwned") == "undefined"
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true })")
    heads = page.locator("table.confusion tbody th").all_inner_texts()
    assert [" ".join(head.split()) for head in heads] == [" ".join(name.split()) for name in HOSTILE]
    turned = page.locator("table.confusion thead .turn").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect().height)"
    )
    assert max(turned) < 250  # 100 letters make no head as high as the page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
