"""The question under an answer, "Was this right?", in a real browser against the real service."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import Settings
from tests.helpers.accessibility import accessibility_faults
from tests.helpers.bundles import one_coloured, write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.pages import watched_pages
from tests.helpers.running_service import Server, ready_service

CLASSES = ["dark", "<b>middle</b>", "bright"]
TOKEN = "open-sesame-open-sesame"
DARK = {"name": "dark.png", "mimeType": "image/png", "buffer": one_coloured(0)}
BRIGHT = {"name": "bright.png", "mimeType": "image/png", "buffer": one_coloured(255)}
SCRIPTED = pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"), CLASSES)


@pytest.fixture(scope="module")
def server(browser, bundle, tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("page") / "log", MODEL_DIR=str(bundle)) as server:
        yield server


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def guarded_server(browser, bundle, kept, tmp_path_factory):
    log = tmp_path_factory.mktemp("guarded") / "log"
    with ready_service(log, MODEL_DIR=str(bundle), API_TOKEN=TOKEN, KEEP_IMAGES=str(kept)) as server:
        yield server


@pytest.fixture
def visit(browser, server):
    """Opens the page of a service; the module's own where none is named."""
    with watched_pages(browser) as open_page:
        yield lambda at=server, **options: open_page(f"http://127.0.0.1:{at.port}/", **options)


def classify(page: Page, picture: dict, scripted: bool = True) -> None:
    page.get_by_label("Choose a picture").set_input_files(picture)
    if not scripted:
        press(page, "Classify", scripted)
    expect(page.locator("#label")).to_have_text("dark" if picture is DARK else "bright")


def press(page: Page, name: str, scripted: bool) -> None:
    button = page.get_by_role("button", name=name, exact=True)
    if scripted:
        button.click()
        return
    with page.expect_navigation():
        button.click()


def say_no(page: Page, label: str, scripted: bool = True) -> None:
    unfold(page)
    page.get_by_label("What is it?").select_option(label)
    press(page, "Send", scripted)


def unfold(page: Page) -> None:
    page.locator("summary", has_text="No").click()


def thanks(page: Page, scripted: bool):
    return page.locator("#judged" if scripted else ".thanks")


def outcomes(server: Server) -> dict[tuple[str, str], float]:
    """True class and outcome -> feedback that was counted."""
    families = text_string_to_metric_families(server.get("/metrics").body.decode())
    found = [s for family in families for s in family.samples if s.name == "classifier_feedback_total"]
    return {(sample.labels["label"], sample.labels["outcome"]): sample.value for sample in found}


def rise(server: Server, before: dict, label: str, outcome: str) -> None:
    """Exactly this one was counted."""
    assert outcomes(server) == before | {(label, outcome): before.get((label, outcome), 0) + 1}


def test_without_a_memory_the_page_does_not_ask(bundle):
    for memory, asks in (("0", False), ("1", True)):
        app = create_app(settings=Settings.from_env({"MODEL_DIR": str(bundle), "FEEDBACK_MEMORY": memory}))
        assert ("Was this right?" in app.test_client().get("/").text) == asks


def test_a_page_that_does_not_ask_answers_all_the_same(browser, bundle, tmp_path):
    log, settings = tmp_path / "log", {"MODEL_DIR": str(bundle), "FEEDBACK_MEMORY": "0"}
    with ready_service(log, **settings) as server, watched_pages(browser) as open_page:
        page = open_page(f"http://127.0.0.1:{server.port}/")
        classify(page, DARK)
        expect(page.locator("#answer")).to_have_attribute("data-state", "result")


def test_after_a_change_of_the_model_its_own_classes_are_offered(browser, bundle, tmp_path):
    root = tmp_path / "store"
    night = write_bundle(tmp_path / "night", ["night", "noon", "day"], weight=25)
    first, second = (add_version(root, "tiny", each) for each in (bundle, night))
    point(root, "tiny", "prod", first)
    settings = {"MODEL_STORE": str(root), "MODEL": "tiny@prod", "MANAGE_TOKEN": TOKEN}
    with ready_service(tmp_path / "log", **settings) as server, watched_pages(browser) as open_page:
        page = open_page(f"http://127.0.0.1:{server.port}/")
        classify(page, DARK)
        point(root, "tiny", "prod", second)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert server.ask("POST", "/v2/repository/models/tiny/load", b"{}", bearer).status == 200
        page.get_by_label("Choose a picture").set_input_files(BRIGHT)
        expect(page.locator("#label")).to_have_text("day")
        assert page.locator(".chips li").all_inner_texts() == ["night", "noon", "day"]
        expect(page.get_by_role("heading", name="The 3 things it knows")).to_be_visible()
        say_no(page, "noon")
        expect(thanks(page, scripted=True)).to_have_text("Thank you. Counted as wrong: noon, not day.")


@SCRIPTED
def test_yes_counts_as_right(visit, server, scripted):
    page, before = visit(java_script_enabled=scripted), outcomes(server)
    expect(page.get_by_text("Was this right?")).to_be_hidden()
    classify(page, DARK, scripted)
    press(page, "Yes", scripted)
    expect(thanks(page, scripted)).to_have_text("Thank you. Counted as right.")
    rise(server, before, "dark", "right")


@SCRIPTED
def test_no_asks_which_and_counts_as_wrong(visit, server, scripted):
    page, before = visit(java_script_enabled=scripted), outcomes(server)
    classify(page, BRIGHT, scripted)
    expect(page.get_by_label("What is it?")).to_be_hidden()
    unfold(page)
    expect(page.get_by_role("option", name="bright")).to_be_disabled()
    unfold(page)
    say_no(page, "<b>middle</b>", scripted)
    expect(thanks(page, scripted)).to_have_text("Thank you. Counted as wrong: <b>middle</b>, not bright.")
    rise(server, before, "<b>middle</b>", "wrong")


def test_with_the_script_the_answer_stays_and_is_judged_once(visit):
    page = visit()
    page.evaluate("window.stayed = true")
    classify(page, DARK)
    press(page, "Yes", True)
    expect(page.get_by_text("Was this right?")).to_be_hidden()
    expect(page.locator("#label")).to_have_text("dark")
    assert page.evaluate("window.stayed")


def test_each_new_answer_is_asked_about_anew(visit, server):
    page = visit()
    classify(page, DARK)
    unfold(page)
    page.get_by_label("What is it?").select_option("bright")
    press(page, "Send", True)
    expect(page.locator("#judged")).to_contain_text("Thank you")
    classify(page, BRIGHT)
    expect(page.locator("#judged")).to_be_empty()
    expect(page.get_by_label("What is it?")).to_be_hidden()
    before = outcomes(server)
    press(page, "Yes", True)
    expect(page.locator("#judged")).to_contain_text("Counted as right")
    rise(server, before, "bright", "right")


def test_no_without_a_class_is_not_sent(visit, server):
    page, before = visit(), outcomes(server)
    classify(page, DARK)
    unfold(page)
    press(page, "Send", True)
    assert page.get_by_label("What is it?").evaluate("select => select.matches(':invalid')")
    assert outcomes(server) == before


@SCRIPTED
def test_an_answer_of_another_instance_is_explained(visit, server, scripted):
    page, before = visit(java_script_enabled=scripted), outcomes(server)
    classify(page, DARK, scripted)
    page.locator("#feedback input[name=instance]").evaluate("field => field.value = '0123456789ab'")
    press(page, "Yes", scripted)
    if scripted:
        expect(page.locator("#judged")).to_contain_text("Not counted: instance '0123456789ab' has answered, and this")
        expect(page.get_by_text("Was this right?")).to_be_hidden()
    else:
        expect(page.get_by_role("alert")).to_contain_text("This answer cannot be judged here")
        expect(page.get_by_role("alert")).to_contain_text("instance '0123456789ab' has answered, and this is")
    assert outcomes(server) == before


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "Not counted: no answer came back. Try again."),
        ({"status": 502, "body": "<html>502</html>"}, "Not counted: the service answers 502"),
        ({"status": 200, "body": "<html>hello</html>"}, "Not counted: the service answers 200"),
        ({"status": 503, "body": json.dumps({"detail": "<b>full</b>"})}, "Not counted: <b>full</b>"),
    ],
)
def test_what_goes_wrong_on_the_way_can_be_tried_again(visit, reply, words):
    page = visit()
    page.route("**/feedback", lambda route: route.fulfill(**reply) if reply else route.abort(), times=1)
    classify(page, DARK)
    press(page, "Yes", True)
    expect(page.locator("#judged")).to_have_text(words)
    press(page, "Yes", True)
    expect(page.locator("#judged")).to_have_text("Thank you. Counted as right.")


def test_late_thanks_do_not_stand_under_a_newer_answer(visit):
    page, held = visit(), []
    page.route("**/feedback", lambda route: held.append(route), times=1)
    classify(page, DARK)
    with page.expect_request("**/feedback"):
        press(page, "Yes", True)
    classify(page, BRIGHT)
    with page.expect_response("**/feedback"):
        held[0].continue_()
    press(page, "Yes", True)
    expect(page.locator("#judged")).to_have_text("Thank you. Counted as right.")


def test_the_script_sends_the_token_that_was_typed(visit, guarded_server):
    page = visit(guarded_server)
    page.get_by_label("Access token").fill(TOKEN)
    classify(page, DARK)
    expect(page.get_by_label("Your token again")).to_be_hidden()
    say_no(page, "bright")
    expect(page.locator("#judged")).to_have_text("Thank you. Counted as wrong: bright, not dark. The picture is kept.")


def test_without_the_script_the_token_is_asked_for_again(visit, guarded_server, kept):
    page = visit(guarded_server, java_script_enabled=False)
    page.get_by_label("Access token").fill(TOKEN)
    classify(page, BRIGHT, scripted=False)
    expect(page.get_by_text("Your answer keeps the picture, to train the model with.")).to_be_visible()
    before = outcomes(guarded_server)
    page.get_by_label("Your token again").fill("wrong")
    page.get_by_label("Your token again").press("Enter")  # is no Yes
    press(page, "Yes", False)
    expect(page.get_by_role("alert")).to_contain_text("The token is missing or wrong")
    assert outcomes(guarded_server) == before
    page.get_by_label("Access token").fill(TOKEN)
    classify(page, BRIGHT, scripted=False)
    page.get_by_label("Your token again").fill(TOKEN)
    press(page, "Yes", False)
    expect(thanks(page, False)).to_have_text("Thank you. Counted as right. The picture is kept.")
    assert BRIGHT["buffer"] in [path.read_bytes() for path in kept.glob("bright/*")]


@SCRIPTED
def test_a_row_is_judged_too(browser, tmp_path, scripted):
    model = write_bundle(tmp_path / "model", ["small", "large"], features=["length"])
    with ready_service(tmp_path / "log", MODEL_DIR=str(model)) as server, watched_pages(browser) as open_page:
        page = open_page(f"http://127.0.0.1:{server.port}/", java_script_enabled=scripted)
        page.get_by_label("length").fill("10")
        press(page, "Classify", False)
        say_no(page, "small", scripted)
        expect(thanks(page, scripted)).to_have_text("Thank you. Counted as wrong: small, not large.")
        if not scripted:
            expect(page.get_by_label("length")).to_have_value("0")  # the example


@SCRIPTED
def test_everything_in_the_question_has_an_accessible_name(visit, scripted):
    page = visit(java_script_enabled=scripted)
    classify(page, DARK, scripted)
    unfold(page)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = {
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in tree
        if not node["ignored"]
        and node.get("role", {}).get("value") in ("button", "combobox", "form", "DisclosureTriangle")
    }
    assert {("form", "Was this right?"), ("button", "Yes"), ("combobox", "What is it?"), ("button", "Send")} <= found
    assert ("DisclosureTriangle", "No") in found
    assert all(name for role, name in found if role != "form")  # the upload form has none, and is no landmark


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_question_fits_and_axe_finds_no_fault(visit, guarded_server, scheme, width):
    page = visit(guarded_server, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.get_by_label("Access token").fill(TOKEN)
    classify(page, DARK)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert accessibility_faults(page) == []
    yes, no = (page.locator(each).bounding_box() for each in ("#yes", "summary"))
    assert (
        yes and no and yes["y"] == pytest.approx(no["y"], abs=1) and yes["height"] == pytest.approx(no["height"], abs=1)
    )
    press(page, "Yes", True)
    expect(page.locator("#judged")).to_contain_text("Thank you")
    assert accessibility_faults(page) == []


@SCRIPTED
def test_long_names_of_classes_do_not_widen_the_page(browser, tmp_path, scripted):
    names = ["small", "a class  with quite a long name & Ünïcode that goes on and on, really, to its very end"]
    model = write_bundle(tmp_path / "model", names)
    with ready_service(tmp_path / "log", MODEL_DIR=str(model)) as server, watched_pages(browser) as open_page:
        address, phone = f"http://127.0.0.1:{server.port}", {"width": 320, "height": 800}
        page = open_page(f"{address}/", viewport=phone, java_script_enabled=scripted)
        page.get_by_label("Choose a picture").set_input_files(DARK)
        if not scripted:
            press(page, "Classify", scripted)
        unfold(page)
        expect(page.get_by_label("What is it?")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
        page.get_by_label("What is it?").select_option(names[1])
        press(page, "Send", scripted)
        expect(thanks(page, scripted)).to_contain_text(names[1])
        assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"]


def test_the_keyboard_is_enough(visit):
    page = visit()
    classify(page, DARK)
    page.get_by_role("button", name="Yes").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("What is it?")).to_be_focused()
    page.keyboard.type("br")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#judged")).to_have_text("Thank you. Counted as wrong: bright, not dark.")
