"""The upload form, in a real browser against the real service."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess

import pytest
from playwright.sync_api import expect

from service.schema import IMAGE_TYPES, MAX_BODY_BYTES
from tests.conftest import picture_bytes
from tests.helpers.accessibility import accessibility_faults
from tests.helpers.http_server import http_server, send
from tests.helpers.pages import watched_pages
from tests.helpers.running_service import ready_service

TOKEN = "open-sesame-open-sesame"
TEXT = {"name": "holiday.png", "mimeType": "image/png", "buffer": b"only text, whatever its name says"}
STATES = ["empty", "result", "problem"]


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("page") / "log", ENGINE="onnx") as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere():
    """The origin of a page that is not the service's."""
    with http_server(lambda request, _: send(request, 200, "<!doctype html>", Content_Type="text/html")) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def guarded_server(browser, tmp_path_factory, elsewhere):
    settings = {"API_TOKEN": TOKEN, "ALLOWED_ORIGINS": elsewhere, "DYNO": "web.1"}
    with ready_service(tmp_path_factory.mktemp("guarded") / "log", ENGINE="onnx", **settings) as server:
        yield server


@pytest.fixture
def visit(browser, server):
    """Opens the page of a service; the module's own where none is named."""
    with watched_pages(browser) as open_page:
        yield lambda at=server, **options: open_page(f"http://127.0.0.1:{at.port}/", **options)


@pytest.fixture
def photo(png):
    return {"name": "photo.png", "mimeType": "image/png", "buffer": png}


@pytest.fixture(scope="module")
def answer(server, png):
    """What the service says about the photo."""
    return server.post_form("/predict", ("image", png, "photo.png")).json


def choose(page, file):
    page.get_by_label("Choose a picture").set_input_files(file)


def post(page, file):
    """As a person without JavaScript does."""
    choose(page, file)
    with page.expect_navigation():
        page.get_by_role("button", name="Classify").click()


def percent(p):
    return ">99.9%" if p >= 0.9995 else "<0.1%" if p < 0.0005 else f"{100 * p:.1f}%"


def expect_result(page, answer):
    expect(page.locator("#answer")).to_have_attribute("data-state", "result")
    expect(page.get_by_role("status")).to_contain_text(answer["label"])
    rows = page.get_by_role("list", name="The most likely things").get_by_role("listitem")
    assert rows.evaluate_all("rows => rows.map(row => row.innerText.toLowerCase().split(/\\s+/))") == [
        [entry["label"], percent(entry["probability"])] for entry in answer["top"]
    ]


def expect_problem(page, text):
    expect(page.get_by_role("alert")).to_contain_text(text)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("#top")).to_be_hidden()


def expect_no_preview(page, name):
    expect(page.locator(".unseen")).to_have_text(f"No preview of {name}")
    expect(page.locator(".unseen")).to_be_visible()
    expect(page.locator("#preview")).to_be_hidden()


def bring_to(page, state, photo):
    if state != "empty":
        choose(page, photo if state == "result" else TEXT)
    expect(page.locator("#answer")).to_have_attribute("data-state", state)


def carrying(page, data):
    """A DataTransfer with one file, as a drop or a paste brings it."""
    return page.evaluate_handle(
        """text => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "photo.png", { type: "image/png" }));
            return transfer;
        }""",
        base64.b64encode(data).decode(),
    )


def test_a_chosen_image_is_shown_and_answered_without_a_reload(visit, photo, answer):
    page = visit()
    page.evaluate("window.stayed = true")
    choose(page, photo)
    expect_result(page, answer)
    expect(page.get_by_role("img", name="Your picture, photo.png")).to_be_visible()
    assert page.evaluate("document.getElementById('preview').naturalWidth") == 32
    assert page.evaluate("window.stayed")
    assert answer["label"] in page.title()


def test_the_answer_says_which_model_and_how_long(visit, photo, answer):
    page = visit()
    choose(page, photo)
    expect_result(page, answer)
    model = answer["model"]
    expect(page.locator(".by")).to_have_text(
        f"Answered by {model['name']}, version {model['version']}, engine {model['engine']} "
        "with int8 weights, "
        f"in {page.locator('#ms').inner_text()} ms"
    )
    assert page.locator("#ms").inner_text().isdigit()


def test_without_javascript_the_server_renders_the_answer(visit, photo, answer):
    page = visit(java_script_enabled=False)
    post(page, photo)
    expect_result(page, answer)
    assert page.locator("#preview").get_attribute("src").startswith("data:image/png;base64,")
    assert answer["label"] in page.title()


def test_both_ways_render_the_same_answer(visit, photo, answer):
    scripted, plain = visit(), visit(java_script_enabled=False)
    choose(scripted, photo)
    post(plain, photo)
    parts = []
    for page in (scripted, plain):
        expect_result(page, answer)
        parts.append([page.locator(part).inner_html() for part in ("#top", ".verdict")])
    assert parts[0] == parts[1]


def test_both_ways_say_the_same_about_a_text_named_png(visit):
    scripted, plain = visit(), visit(java_script_enabled=False)
    choose(scripted, TEXT)
    post(plain, TEXT)
    for page in (scripted, plain):
        expect_problem(page, "That file is not a picture that can be read")
        assert page.title().startswith("Problem: ")
    assert scripted.locator("#problem").inner_text() == plain.locator("#problem").inner_text()
    expect(scripted.locator("#preview")).to_be_hidden()


def test_damaged_image_is_explained_and_the_next_one_classified(visit, photo, png, answer):
    page = visit()
    choose(page, {**photo, "buffer": png[: len(png) // 2]})
    expect_problem(page, "That picture cannot be opened")
    expect_no_preview(page, "photo.png")
    choose(page, photo)
    expect_result(page, answer)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#preview")).to_be_visible()
    expect(page.get_by_text("No preview of")).to_be_hidden()


@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
def test_half_a_picture_is_never_shown(visit, fmt):
    """Not even while the answer is on its way."""
    page = visit()
    page.route("**/predict", lambda route: None)  # never answered
    whole = picture_bytes(size=(400, 300), fmt=fmt)
    choose(page, {"name": "a.png", "mimeType": f"image/{fmt.lower()}", "buffer": whole[: len(whole) // 2]})
    expect_no_preview(page, "a.png")
    expect(page.get_by_role("status")).to_contain_text("Looking at the picture")
    expect_no_preview(page, "a.png")
    choose(page, {"name": "a.png", "mimeType": f"image/{fmt.lower()}", "buffer": whole})
    expect(page.locator("#preview")).to_be_visible()


@pytest.mark.parametrize("status", [415, 422])
def test_what_the_service_cannot_read_is_not_shown(visit, photo, status):
    """However well the browser can."""
    page = visit()
    page.route("**/predict", lambda route: route.fulfill(status=status, json={"detail": ["of", "another", "kind"]}))
    choose(page, photo)
    expect(page.locator("#answer")).to_have_attribute("data-state", "problem")
    expect_no_preview(page, "photo.png")
    expect(page.locator(".detail")).to_be_hidden()


def test_a_file_name_is_shown_short_and_turns_no_text_around(visit):
    page = visit()
    choose(page, {**TEXT, "name": "\u202egpj.exe\u2066" + "<b>x</b>" * 20 + "end.png"})
    expect_no_preview(page, "?gpj.exe?<b>x</b><b>…x</b><b>x</b>end.png")


SAMPLES = ("automobile", "bird", "deer", "horse", "ship")


def test_a_click_on_a_sample_classifies_it(visit):
    page = visit()
    group = page.get_by_role("group", name="Samples, made by the network, not photographs")
    assert group.get_by_role("button").evaluate_all("all => all.map(one => one.value)") == [*SAMPLES]
    for name in SAMPLES:
        group.get_by_role("button", name=name).click()
        expect(page.locator("#label")).to_have_text(name)
        expect(page.get_by_role("img", name=f"Your picture, {name}.png")).to_be_visible()


def test_samples_need_no_javascript(visit):
    page = visit(java_script_enabled=False)
    with page.expect_navigation():
        page.get_by_role("button", name="deer").click()
    expect(page.locator("#label")).to_have_text("deer")
    assert page.locator("#preview").get_attribute("src").startswith("data:image/png;base64,")


def test_a_sample_that_cannot_be_fetched_is_explained(visit):
    page = visit()
    page.route("**/static/samples/*", lambda route: route.abort())
    page.get_by_role("button", name="bird").click()
    expect_problem(page, "No answer came back")


def test_a_file_replaces_a_sample_that_is_still_fetched(visit, photo, answer):
    page = visit()
    page.route("**/static/samples/*", lambda route: None)  # never answered
    page.get_by_role("button", name="ship").click()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/ship.png")):
        choose(page, photo)
    expect_result(page, answer)


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "token"])
def test_the_curl_line_works_as_it_is_copied(
    visit, server, guarded_server, photo, png, answer, guarded, needs_tool, tmp_path
):
    at = guarded_server if guarded else server
    page = visit(at, permissions=["clipboard-read", "clipboard-write"])
    if guarded:
        page.get_by_label("Access token").fill(TOKEN)
    choose(page, photo)
    expect_result(page, answer)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    line = page.evaluate("navigator.clipboard.readText()")
    header = "-H 'Authorization: Bearer TOKEN' " if guarded else ""
    assert line == f"curl {header}-F image=@picture.png http://127.0.0.1:{at.port}/predict"
    (tmp_path / "picture.png").write_bytes(png)
    needs_tool("curl")
    command = [part.replace("TOKEN", TOKEN) for part in shlex.split(line)]
    found = subprocess.run([*command, "--silent", "--show-error"], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(found.stdout)["label"] == answer["label"]


def test_without_a_clipboard_the_curl_line_is_selected(visit, photo, answer):
    """As over plain HTTP."""
    page = visit()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    choose(page, photo)
    expect_result(page, answer)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text(re.compile("Copied|Selected"))
    assert page.evaluate("getSelection().toString()") == page.locator("#curl").inner_text()


def test_a_file_over_the_limit_is_not_even_sent(visit, tmp_path):
    huge = tmp_path / "huge.png"
    huge.write_bytes(bytes(MAX_BODY_BYTES + 1))
    page = visit()
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    choose(page, huge)
    expect_problem(page, "That file is too large")
    assert "POST" not in sent


def test_without_javascript_a_file_over_the_limit_is_explained(visit, tmp_path):
    huge = tmp_path / "huge.png"
    huge.write_bytes(bytes(MAX_BODY_BYTES + 1))
    page = visit(java_script_enabled=False)
    post(page, huge)
    expect_problem(page, "That file is too large")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        pytest.param(None, "No answer came back", id="no connection"),
        pytest.param(
            {"status": 503, "body": json.dumps({"detail": "64 wait already"}), "content_type": "application/json"},
            "The service is busy",
            id="queue full",
        ),
        pytest.param({"status": 413, "body": "<html>413</html>"}, "That file is too large", id="a front refuses"),
        pytest.param({"status": 502, "body": "<html>502</html>"}, "Something went wrong", id="a front fails"),
        pytest.param({"status": 200, "body": "<html>hello</html>"}, "Something went wrong", id="not an answer"),
    ],
)
def test_what_goes_wrong_on_the_way_is_said_in_plain_words(visit, photo, reply, words):
    page = visit()
    page.route("**/predict", lambda route: route.fulfill(**reply) if reply else route.abort())
    choose(page, photo)
    expect_problem(page, words)
    expect(page.get_by_role("alert")).not_to_contain_text("<")


def test_the_services_own_words_are_shown_and_a_retry_offered(visit, photo, answer):
    page = visit()
    busy = {"status": 503, "content_type": "application/problem+json", "body": '{"detail": "64 pictures <b>wait</b>"}'}
    page.route("**/predict", lambda route: route.fulfill(**busy), times=1)
    expect(page.get_by_role("button", name="Classify")).to_be_hidden()
    choose(page, photo)
    expect_problem(page, "The service says: 64 pictures <b>wait</b>")
    page.get_by_role("button", name="Classify").click()
    expect_result(page, answer)
    expect(page.get_by_role("button", name="Classify")).to_be_hidden()


def test_a_second_choice_replaces_one_that_is_still_under_way(visit, photo, answer):
    page = visit()
    page.route("**/predict", lambda route: None, times=1)  # never answered
    choose(page, {**photo, "name": "first.png", "buffer": picture_bytes("L")})
    expect(page.get_by_role("status")).to_contain_text("Looking at the picture")
    choose(page, photo)
    expect_result(page, answer)


def test_a_choice_replaces_an_answer_that_still_arrives(visit, photo, answer):
    page = visit()
    page.add_init_script("""
        const real = fetch;
        window.fetch = async (url, options) => {
          window.fetch = real;
          const never = new ReadableStream({
            start(stream) { options.signal.addEventListener("abort", () => stream.error(options.signal.reason)); },
          });
          return new Response(never, { headers: { "Content-Type": "application/json" } });
        };
    """)
    page.reload()
    page.evaluate("""
        window.titles = [];
        const title = document.querySelector("title");
        new MutationObserver(() => titles.push(document.title)).observe(title, { childList: true });
    """)
    choose(page, {**photo, "name": "first.png", "buffer": picture_bytes("L")})
    expect(page.get_by_role("status")).to_contain_text("Looking at the picture")
    choose(page, photo)
    expect_result(page, answer)
    assert [title for title in page.evaluate("titles") if title.startswith("Problem")] == []


def test_an_image_may_be_dropped_anywhere(visit, png, answer):
    page = visit()
    transfer = carrying(page, png)
    page.dispatch_event("h1", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop is-over")
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop chosen has-image")
    expect_result(page, answer)


def test_dropping_something_else_is_explained(visit):
    page = visit()
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle("new DataTransfer()")})
    expect_problem(page, "There is no picture yet")


def test_an_image_may_be_pasted(visit, png, answer):
    page = visit()
    carrying(page, png).evaluate(
        "clipboardData => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }))"
    )
    expect_result(page, answer)


def test_the_keyboard_is_enough(visit, photo, answer):
    page = visit()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        expect(page.get_by_label("Choose a picture")).to_be_focused()
        assert page.locator("#drop").evaluate("box => getComputedStyle(box).outlineStyle") == "solid"
        page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    expect_result(page, answer)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_everything_has_an_accessible_name(visit, photo, state, scripted):
    page = visit(java_script_enabled=scripted)
    if scripted:
        bring_to(page, state, photo)
    elif state != "empty":
        post(page, photo if state == "result" else TEXT)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "textbox", "list", "image", "region", "navigation", "heading"}
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in tree
        if not node["ignored"] and node.get("role", {}).get("value") in named
    ]
    roles = {role for role, _ in nodes}
    assert {"button", "link", "heading", "region"} <= roles
    assert [node for node in nodes if not node[1] and node[0] != "list"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_scrolls_sideways_and_the_scheme_is_followed(visit, photo, scheme, width):
    page = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for state in STATES:
        bring_to(page, state, photo)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (red < 60) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_in_the_form(visit, photo, scheme):
    page = visit(color_scheme=scheme)
    for state in STATES:
        bring_to(page, state, photo)
        assert accessibility_faults(page) == []


def test_nothing_moves_for_those_who_ask_for_less_motion(visit, photo, answer):
    page = visit(reduced_motion="reduce")
    choose(page, photo)
    expect_result(page, answer)
    assert page.evaluate("document.getAnimations().length") == 0


def test_nothing_is_asked_of_any_other_host(visit, server, photo, answer):
    page = visit()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    choose(page, photo)
    expect_result(page, answer)
    here = f"http://127.0.0.1:{server.port}"
    assert {url.removeprefix(here) for url in asked if not url.startswith("blob:" + here)} >= {
        "/",
        "/static/page.css",
        "/static/page.js",
        "/static/favicon.svg",
        "/predict",
    }
    assert [url for url in asked if not url.startswith((here + "/", "blob:" + here, "data:"))] == []


def test_the_page_says_what_it_takes_and_what_it_knows(visit, server):
    page = visit()
    assert page.get_by_label("Choose a picture").get_attribute("accept") == ",".join(IMAGE_TYPES)
    expect(page.locator("#limits")).to_have_text("PNG, JPEG, WebP, GIF or BMP, up to 16 MiB")
    known = page.get_by_role("list").filter(has_text="airplane").get_by_role("listitem").all_inner_texts()
    answered = server.post("/predict?probabilities=1", picture_bytes(), "image/png").json
    assert len(known) == len(answered["probabilities"])
    for link in ("Version", "API description"):
        assert server.get("/" + page.get_by_role("link", name=link).get_attribute("href")).status == 200


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no script"])
def test_a_token_is_asked_for_where_one_is_needed(visit, guarded_server, photo, answer, scripted):
    page = visit(guarded_server, java_script_enabled=scripted)
    for token in ("wrong", TOKEN):
        choose(page, photo)
        page.get_by_label("Access token").fill(token)
        page.get_by_label("Access token").press("Enter")
        if token == "wrong":
            expect_problem(page, "The token is missing or wrong")
    expect_result(page, answer)
    expect(page.locator(".by")).to_contain_text(f"engine {answer['model']['engine']} with int8 weights, on Heroku")


def test_no_token_is_asked_for_where_none_is_needed(visit):
    expect(visit().get_by_label("Access token")).to_have_count(0)


PREDICT_FROM_A_PAGE = """async ([url, token, picture]) => {
    const body = Uint8Array.from(atob(picture), c => c.charCodeAt(0));
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "image/png" };
    try {
        const reply = await fetch(url, { method: "POST", headers, body });
        return [reply.status, await reply.json(), reply.headers.get("X-Instance-Id") !== null];
    } catch (error) {
        return error.name;
    }
}"""


def test_a_page_of_an_allowed_origin_gets_answers(browser, elsewhere, server, guarded_server, png, answer):
    """With its preflight, its token, refusals too, and headers; nothing where its origin is not allowed."""
    page = browser.new_page()
    page.goto(elsewhere)

    def predict(at, token: str, picture: bytes = png):
        arguments = [f"http://127.0.0.1:{at.port}/predict", token, base64.b64encode(picture).decode()]
        return page.evaluate(PREDICT_FROM_A_PAGE, arguments)

    assert predict(guarded_server, TOKEN) == [200, answer, True]
    assert [predict(guarded_server, token, body)[0] for token, body in (("wrong", png), (TOKEN, b"text"))] == [401, 415]
    assert predict(server, TOKEN) == "TypeError"
    page.goto(elsewhere.replace("127.0.0.1", "localhost"))
    assert predict(guarded_server, TOKEN) == "TypeError"
    page.close()
