"""The page for a person, opened from its file: decisions by mouse, keyboard and name, kept, exported, applied."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.helpers.accessibility import accessibility_faults
from tests.helpers.pages import watched_pages
from training.labelling import page
from training.labelling.answers import Answer
from training.labelling.page import thumbnail_uri, write_pages
from training.labelling.proposal import Image, Proposal, propose, summary
from training.labelling.threshold import Goal

pytestmark = pytest.mark.integration

CLASSES = ("cat", "dog", 'a "quoted", <b>class</b>')
NAMES = ("a, b/1.png", "<i>2.png", "3.png", "4.png", "5.png")


@pytest.fixture(scope="module")
def proposal(tmp_path_factory) -> Proposal:
    """Five images for a person."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    unlabelled = []
    for number, name in enumerate(NAMES):
        path = folder / f"{number}.png"
        Pillow.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        first, second = number % 3, (number + 1) % 3
        unlabelled.append(Image(name, path, Answer(name, "", name, 0.5, first, 0.5, second, 0.49 - number / 100)))
    return propose(
        [Image("h", folder / "h", Answer("h", "", "h", 0.5, 0, 0.9, 1, 0.1), 0)], unlabelled, CLASSES, Goal(0.9)
    )


@pytest.fixture
def review(proposal, tmp_path) -> Path:
    content = {"model": {"name": "mine"}, **summary(proposal)}
    write_pages(tmp_path, proposal, content)
    return tmp_path / "review.html"


@pytest.fixture
def open_page(browser):
    with watched_pages(browser) as open_:
        yield open_


def save(opened, folder: Path) -> list[tuple[str, ...]]:
    """The rows of the CSV that the page hands out."""
    with opened.expect_download() as started:
        opened.get_by_role("button", name="Download CSV").click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(map(tuple, csv.reader(file)))


def test_decisions_by_key_click_and_name_are_exported(review, open_page, tmp_path):
    opened = open_page(review.as_uri())
    assert opened.get_by_role("button", name="Download CSV").is_disabled()
    opened.keyboard.press("1")
    opened.keyboard.press("2")
    opened.locator(".card").nth(2).get_by_role("button").first.click()
    opened.get_by_label("another class for 4.png").fill("a fish")
    opened.keyboard.press("Enter")
    assert opened.locator("#count").inner_text() == "4 of 5 decided"
    rows = save(opened, tmp_path)
    assert rows == [
        ("path", "label"),
        (NAMES[0], "cat"),
        (NAMES[1], CLASSES[2]),
        ("3.png", CLASSES[2]),
        ("4.png", "a fish"),
    ]


def test_a_page_that_is_opened_again_goes_on(review, open_page):
    opened = open_page(review.as_uri())
    opened.keyboard.press("1")
    opened.keyboard.press("1")
    opened.keyboard.press("u")
    opened.reload()
    assert opened.locator("#count").inner_text() == "1 of 5 decided"
    assert opened.locator(".card.done").get_attribute("data-path") == NAMES[0]
    assert opened.locator(".card.current").get_attribute("data-path") == NAMES[1]
    opened.get_by_role("button", name="Hide decided").click()
    assert opened.locator(".card:visible").count() == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(review, open_page, scheme):
    opened = open_page(review.as_uri(), viewport={"width": 390, "height": 844}, color_scheme=scheme)
    opened.keyboard.press("1")
    assert accessibility_faults(opened) == []
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_many_images_are_spread_over_pages(proposal, tmp_path, monkeypatch, open_page):
    monkeypatch.setattr(page, "PER_PAGE", 2)
    write_pages(tmp_path, proposal, {"model": {"name": "mine"}, **summary(proposal)})
    opened = open_page((tmp_path / "review.html").as_uri())
    opened.get_by_role("link", name="page 3").click()
    opened.keyboard.press("1")
    assert save(opened, tmp_path) == [("path", "label"), ("5.png", "dog")]
    assert (tmp_path / "decisions-3.csv").exists()


def test_names_of_files_and_classes_are_text_in_the_page(review):
    text = review.read_text(encoding="utf-8")
    assert "<i>" not in text and "<b>class" not in text and 'data-path="&lt;i&gt;2.png"' in text


def test_a_large_photo_becomes_a_small_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Pillow.fromarray(noise).resize((1600, 1200), Pillow.Resampling.BICUBIC).save(tmp_path / "large.jpg")
    uri, exact = thumbnail_uri(tmp_path / "large.jpg")
    assert uri.startswith("data:image/jpeg;base64,") and len(uri) < 20_000 and not exact
    assert thumbnail_uri(tmp_path / "gone.jpg") == ("", False)
