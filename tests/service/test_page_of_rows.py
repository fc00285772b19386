"""The form of numbers, and the page of a model with many classes, in a real browser against the real service."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from playwright.sync_api import expect

from tests.helpers.accessibility import accessibility_faults
from tests.helpers.bundles import write_bundle
from tests.helpers.pages import watched_pages
from tests.helpers.running_service import ready_service

FEATURES = ["length (cm)", "width", "<i>µ</i>"]
CLASSES = ["small", "<b>middle</b>", "größer als alle"]
MANY = [f"<i>{i}</i>, a class with a long name & Ünïcode" for i in range(1000)]


def served(tmp_path, model, **settings):
    return ready_service(tmp_path / "log", ENGINE="onnx", MODEL_DIR=str(model), **settings)


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    with served(folder, write_bundle(folder / "model", CLASSES, features=FEATURES)) as server:
        yield server


@pytest.fixture(scope="module")
def many(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    with served(folder, write_bundle(folder / "model", MANY)) as server:
        yield server


@pytest.fixture
def visit(browser):
    """Opens the page of a service."""
    with watched_pages(browser) as open_page:
        yield lambda at, **options: open_page(f"http://127.0.0.1:{at.port}/", **options)


def enter(page, *values):
    for name, value in zip(FEATURES, values, strict=True):
        page.get_by_label(name).fill(value)
    with page.expect_navigation():
        page.get_by_role("button", name="Classify").click()


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_row_is_entered_answered_and_stays(visit, server, scripted):
    page = visit(server, java_script_enabled=scripted)
    expect(page.get_by_label("<i>µ</i>")).to_have_value("0")  # the example
    expect(page.get_by_text("0 to 10 in training")).to_have_count(3)
    enter(page, "5", "4.5", "5.5")
    expect(page.get_by_role("status")).to_contain_text("<b>middle</b>")
    expect(page.get_by_role("list", name="The most likely things").get_by_role("listitem")).to_have_count(3)
    expect(page.get_by_label("width")).to_have_value("4.5")
    expect(page.locator(".remark")).to_have_count(0)
    assert page.title().startswith("<b>middle</b> ")


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_value_outside_the_training_data_is_remarked(visit, server, scripted):
    page = visit(server, java_script_enabled=scripted)
    enter(page, "5", "5", "50")
    expect(page.locator(".remark")).to_contain_text("<i>µ</i> is 50; the training data had 0 to 10")


def test_the_curl_line_gives_the_same_answer(visit, server, needs_tool):
    page = visit(server)
    enter(page, "10", "9.5", "10")
    command = shlex.split(page.locator("#curl").inner_text())
    assert command[0] == "curl"
    done = subprocess.run([needs_tool("curl"), "-s", *command[1:]], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["label"] == "größer als alle"


def test_what_the_browser_lets_pass_is_explained(visit, server):
    page = visit(server, java_script_enabled=False)
    page.locator("#form").evaluate("form => form.noValidate = true")
    enter(page, "5", "", "7")
    expect(page.get_by_role("alert")).to_contain_text("A number is missing or wrong")
    expect(page.get_by_role("alert")).to_contain_text("width is empty")
    expect(page.get_by_label("length (cm)")).to_have_value("5")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways_or_has_a_fault(visit, server, many, png, width):
    rows = visit(server, viewport={"width": width, "height": 800})
    enter(rows, "5", "5", "50")
    classes = visit(many, viewport={"width": width, "height": 800})
    classes.get_by_label("Choose a picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png})
    expect(classes.locator("#answer")).to_have_attribute("data-state", "result")
    for page in (rows, classes):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert accessibility_faults(page) == []


def test_many_classes_are_folded_and_five_of_them_named(visit, many, png):
    page = visit(many)
    chips = page.locator(".chips li")
    expect(chips).to_have_count(1000)
    expect(chips.first).to_be_hidden()
    page.get_by_text("Show all").click()
    expect(chips.first).to_have_text(MANY[0])
    page.get_by_label("Choose a picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png})
    rows = page.get_by_role("list", name="The most likely things").get_by_role("listitem")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("</i>, a class with a long name & Ünïcode")
    expect(page.get_by_role("heading", name="The 1,000 things it knows")).to_be_visible()


def test_a_token_is_asked_for_in_the_form_of_rows_too(browser, visit, tmp_path):
    model = write_bundle(tmp_path / "model", CLASSES, features=FEATURES)
    token = "open-sesame-open-sesame"
    with served(tmp_path, model, API_TOKEN=token) as guarded:
        page = visit(guarded, java_script_enabled=False)
        for value, says in (("wrong", "The token is missing or wrong"), (token, "small")):
            page.get_by_label("Access token").fill(value)
            enter(page, "0", "0", "0")
            expect(page.locator("#answer")).to_contain_text(says)
