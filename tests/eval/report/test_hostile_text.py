"""Text of strangers in every output: the page runs and loads nothing for it, Markdown and terminals show it as text."""

from __future__ import annotations

import dataclasses
import re

import cmarkgfm
import pytest

from eval.__main__ import main
from eval.cli.samples import TAB
from eval.report.comparison import WRITERS
from eval.report.markdown import escape_markdown
from eval.report.render import REPORT_MD
from eval.samples.model import SAMPLES_FILE
from eval.samples.store import append_sample, write_run
from eval.validation import printable_lines
from tests.helpers.html_pages import text_of
from tests.helpers.synthetic_run import make_run

pytestmark = pytest.mark.integration

HTML = "\"'><script>pwned=1</script><img src=http://127.0.0.1:1/x onerror=pwned=1><svg onload=pwned=1></style>{{7*7}}"
MARKDOWN = "![i](http://127.0.0.1:1/i) https://evil.example www.evil.example me@evil.example @team #12 a|b `c` **d**"
CONTROLS = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\u2066\r\n\x00"
FORMULA = "=HYPERLINK(1)"
ATTACK = f"{HTML} {MARKDOWN} {CONTROLS}"
SHORT = ATTACK[:250]
TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
MARKDOWN_FORMAT = ("--format", "markdown")


def write_hostile_run(folder, names, run_id=SHORT):
    """A run with hostile text wherever text may be."""
    run, samples = make_run(n_images=20, names=names, foreign=True, twin=False, failures={names[0]: 4}, wrong=5)
    version = {
        "model": dict.fromkeys(("name", "version", "engine"), SHORT),
        "engine": SHORT,
        "engine_details": {"form": SHORT},
        "versions": {SHORT: SHORT},
        "cpu_model": SHORT,
        "cpu_generation": SHORT,
        "instruction_sets": [SHORT],
        "instruction_limits": {SHORT: SHORT},
        "instance_id": SHORT,
        "git_sha": SHORT,
        "startup_ms": {SHORT: 1.0},
    }
    run = dataclasses.replace(
        run,
        id=run_id,
        complete=False,
        incomplete_reason=ATTACK,
        command=["./cloudtrial", ATTACK],
        images_source=SHORT,
        images_sha256=SHORT,
        prices_sha256=SHORT,
        image_manifest=[dataclasses.replace(image, name=f"{i}{SHORT}") for i, image in enumerate(run.image_manifest)],
        classes=[f"{i}{SHORT}" for i in range(len(run.classes))],
        targets=[dataclasses.replace(t, version=version, failure=ATTACK, url=SHORT) for t in run.targets],
        client_environment={"cpu_model": SHORT, "os": SHORT, "arch": SHORT, "cores": 2},
        versions={SHORT: SHORT, "git_sha": SHORT},
    )
    folder.mkdir()
    write_run(folder, run)
    with (folder / SAMPLES_FILE).open("w") as file:
        for sample in samples:
            detail = FORMULA + ATTACK if sample.error else None
            append_sample(file, dataclasses.replace(sample, detail=detail, model_version=SHORT, instance_id=SHORT))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, names = tmp_path_factory.mktemp("hostile"), (SHORT[:90], FORMULA)
    a, b = write_hostile_run(root / "a", names), write_hostile_run(root / "b\x1b[31m@team", names, "b" + SHORT[:200])
    assert main(["report", str(a)]) == 0
    assert main(["report", "--trend", str(a), str(b)]) == 0
    return a, b


@pytest.mark.parametrize("name", ["a/report.html", "trend.html"])
def test_a_page_of_hostile_text_runs_and_loads_nothing(browser, folders, name):
    page = browser.new_page()
    requests, messages = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    path = folders[0].parent / name
    page.goto(path.as_uri())
    assert page.evaluate("typeof pwned") == "undefined"
    assert [url for url in requests[1:] if not url.startswith("data:")] == []
    assert messages == []
    assert page.locator("script").count() <= 1
    assert "<script>pwned=1</script>" in page.locator("body").inner_text()
    links = page.locator("a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    assert [link for link in links if not re.match(r"#|[ab][/%]|trend\.json$", link)] == []
    assert all(len(text) < 60 for text in page.locator("svg.plot text").all_text_contents())
    handlers = page.locator("body *").evaluate_all(
        "all => all.filter((e) => [...e.attributes].some((a) => a.name.startsWith('on'))).length"
    )
    assert handlers == 0
    page.close()


def rendered(markdown: str) -> str:
    """As GitHub renders it, with any HTML in it."""
    return cmarkgfm.github_flavored_markdown_to_html(markdown, cmarkgfm.cmark.Options.CMARK_OPT_UNSAFE)


def elements(html: str) -> set[str]:
    return set(re.findall(r"<(\w+)", html))


def test_hostile_text_in_report_md_is_only_text(folders):
    html = rendered(text_of(folders[0], REPORT_MD))
    assert elements(html) <= TABLE | {"h1", "h2", "p", "strong", "blockquote", "br", "sub", "ul", "li", "code"}
    rows = html.split("<h2>Results")[1].split("</table>")[0].split("<tr>")[1:]
    assert len({len(re.findall(r"<t[dh]", row)) for row in rows}) == 1  # no cell more than the head has
    assert "&lt;script&gt;pwned=1&lt;/script&gt;" in html


@pytest.mark.parametrize(
    "text",
    ["https://evil.example/x", "see WWW.evil.example", "me@evil.example", "mailto:me@evil.example", "[x](http://e.x)",
     "![i](//e.x/i.png)", "<https://e.x>", "<img src=x onerror=y>", "&#60;b&#62;", "`c`", "**b** _i_ ~~s~~",
     "xmpp:a@evil.example", "\\[x](http://e.x)", "\\\\", "ftp://evil.example"],
)  # fmt: skip
def test_text_in_a_markdown_table_stays_that_text(text):
    cell = escape_markdown(text)
    html = rendered(f"| {cell} | x |\n|---|---|\n| {cell} | y |\n")
    assert elements(html) == TABLE
    shown = html.replace("<!-- -->", "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert f"<td>{text}</td>" in shown


@pytest.mark.parametrize("text", ["@team", "see @user/name", "#12", "owner/repo#12"])
def test_a_name_or_a_number_is_no_link_on_github(text):
    assert re.search(r"[@#]\w", escape_markdown(text)) is None


@pytest.mark.parametrize("command", [("compare", "--force"), ("compare", "--force", *MARKDOWN_FORMAT), ("samples",)])
def test_hostile_text_does_not_control_the_terminal(folders, capsys, command):
    arguments = folders if command[0] == "compare" else folders[:1]
    main([command[0], *map(str, arguments), *command[1:]])
    out, err = capsys.readouterr()
    assert len(out) > 1000
    assert printable_lines(out + err) == out + err


def test_an_error_does_not_control_the_terminal(tmp_path, capsys):
    assert main(["report", str(tmp_path / CONTROLS.replace("\x00", ""))]) == 1
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_text_that_a_spreadsheet_would_compute_has_an_apostrophe(folders, capsys):
    main(["samples", str(folders[0]), "--columns", "target,detail,latency_ms,send_delay_ms,server_timing_ms"])
    rows = [line.split(TAB) for line in capsys.readouterr().out.splitlines()[1:]]
    assert {row[0] for row in rows} >= {f"'{FORMULA}"}
    assert {row[1][:2] for row in rows if row[1] != "-"} == {"'="}
    assert all(float(row[2]) >= 0 for row in rows)


def test_a_comparison_in_markdown_has_no_foreign_link(folders, capsys):
    main(["compare", *map(str, folders), "--force", *MARKDOWN_FORMAT])
    html = rendered(capsys.readouterr().out)
    assert elements(html) <= TABLE | {"p", "strong", "ul", "li"}
    assert set(WRITERS) == {"text", "markdown", "json"}
