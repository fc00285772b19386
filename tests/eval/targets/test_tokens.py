"""Bearer tokens: who gets one, over which route, and that no run leaves one anywhere."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import signal
import subprocess
import sys
from itertools import count
from urllib.parse import quote, unquote

import psutil
import pytest

from eval.__main__ import main
from eval.cli import run as run_command
from eval.errors import EndpointError
from eval.load.workers.shard import Shard
from eval.targets.endpoints import Endpoint, TargetSet, assign_tokens
from eval.targets.tokens import Scrubber, Token, is_loopback, read_token
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import GOOD, fake_endpoint
from tests.helpers.http_server import http_server, send
from tests.helpers.running_service import ready_service

pytestmark = pytest.mark.integration

TOKEN = "T0ken+of/the=\"0perat0r'&<wh0m>n0b0dy\\kn0ws"  # with what URLs, JSON and HTML escape
OTHER = "an0ther-t0ken-f0r-an0ther-target"


def run(*arguments):
    return main(
        ["run", "--images", "golden", "--limit", "2", "--baseline-rtt", "0", "--warmup", "0", *map(str, arguments)]
    )


def assign(names, *texts, url="https://{}.example", allow_http=False, **env):
    targets = TargetSet(tuple(Endpoint(name, None, url.format(name)) for name in names), {})
    options = [read_token(text, {"ONE": TOKEN, "TWO": OTHER, **env}) for text in texts]
    return {
        e.name: e.token and e.token.secret for e in assign_tokens(targets, options, allow_http=allow_http).endpoints
    }


# Who gets which


def test_each_target_gets_its_own_token_and_others_none():
    assert assign("abc", "a=ONE", "b=TWO") == {"a": TOKEN, "b": OTHER, "c": None}
    assert assign("a", "ONE") == {"a": TOKEN}


@pytest.mark.parametrize(
    ("names", "texts", "env", "says"),
    [
        ("ab", ["ONE"], {}, "--token-env ONE: say whose token it is, as TARGET=ONE; the run has a, b"),
        ("", ["ONE"], {}, "as TARGET=ONE; the run has twins"),
        ("a", ["b=ONE"], {}, "--token-env b=ONE: no target 'b' that can have a token, only a"),
        ("a", ["=ONE"], {}, "no target ''"),
        ("a", ["a=ONE", "TWO"], {}, "--token-env TWO: a has a token already; give it one"),
        ("a", ["a=THREE"], {}, "--token-env a=THREE: no such environment variable, or an empty one"),
        ("a", ["a=ONE"], {"ONE": ""}, "no such environment variable, or an empty one"),
        ("a", ["a=ONE"], {"ONE": "secret words"}, "does not fit a header"),
        ("a", ["a=ONE"], {"ONE": "secret\nX-Evil: 1"}, "does not fit a header"),
        ("a", ["a=ONE"], {"ONE": "sécret-token"}, "does not fit a header"),
        ("a", ["a=ONE"], {"ONE": "secret!"}, "its value has 7 characters; a token has at least 8"),
    ],
    ids=[
        "several",
        "twins only",
        "unknown",
        "no name",
        "twice",
        "not set",
        "empty",
        "space",
        "line",
        "accent",
        "short",
    ],
)
def test_an_unusable_token_option_says_why_and_shows_no_token(names, texts, env, says):
    with pytest.raises(EndpointError) as error:
        assign(names, *texts, **env)
    assert says in str(error.value)
    assert not re.search("secret|sécret|T0ken", str(error.value))


def test_a_token_error_comes_before_anything_is_sent(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONE", TOKEN)
    with fake_endpoint() as fake:
        assert run("--target", f"a={fake.url}", "--token-env", "b=ONE", "--out", tmp_path / "run") == 1
        assert (fake.posts, fake.requests) == ([], [])
    assert capsys.readouterr().err == "--token-env b=ONE: no target 'b' that can have a token, only a\n"
    assert not (tmp_path / "run").exists()


# Over which route


@pytest.mark.parametrize(
    "url", ["http://a.example", "http://10.0.0.5:8080", "http://127.1", "http://localhost.example"]
)
def test_a_token_goes_over_http_only_if_that_is_allowed(url):
    with pytest.raises(EndpointError, match=f"token of a would be sent to {url} in clear.*--allow-token-over-http"):
        assign("a", "ONE", url=url)
    assert assign("a", "ONE", url=url, allow_http=True) == {"a": TOKEN}
    assert assign("a", url=url) == {"a": None}


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://127.8.9.1", "http://localhost", "http://[::1]:8080"])
def test_a_token_goes_to_this_machine_over_http(url):
    assert is_loopback(url)
    assert assign("a", "ONE", url=url) == {"a": TOKEN}


def test_only_predictions_carry_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("ONE", TOKEN)
    with fake_endpoint() as fake, fake_endpoint() as other:
        targets = ("--target", f"a={fake.url}", "--target", f"b={other.url}", "--scenario", "single,poisson")
        assert (
            run(*targets, "--duration", "0.2", "--baseline-rtt", "2", "--token-env", "a=ONE", "--out", tmp_path / "run")
            == 0
        )
        assert {post.headers.get("Authorization") for post in fake.posts} == {f"Bearer {TOKEN}"}
        gets = fake.requests + other.requests
        assert {get.path for get in gets} == {"/version", "/readyz"}
        assert not any("Authorization" in request.headers for request in gets + other.posts)


def test_a_closed_version_gets_the_token_after_it_was_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ONE", TOKEN)
    with fake_endpoint() as fake:
        fake.wanted_token = TOKEN
        assert run("--target", f"a={fake.url}", "--token-env", "ONE", "--out", tmp_path / "run") == 0
        versions = [request.headers.get("Authorization") for request in fake.requests if request.path == "/version"]
    assert versions == [None, f"Bearer {TOKEN}"] * 2  # for the model, before there is a run, and in the run
    target = json.loads((tmp_path / "run" / "run.json").read_text())["targets"][0]
    assert target["version"]["model"] == {"name": "fake"}


# Nowhere in what is written


def encodings(token):
    """The token as endpoints may echo it."""
    data = token.encode()
    yield from (token, html.escape(token), json.dumps(token)[1:-1], json.dumps(token)[1:-1].replace("/", r"\/"))
    yield from (quote(token), quote(token, safe=""), "".join(f"%{byte:02X}" for byte in data), data.hex())
    for before in ("", "x", "xx", "Bearer ", "user:"):
        for after in ("", "y", "yy"):
            text = (before + token + after).encode()
            yield from (base64.b64encode(text).decode(), base64.urlsafe_b64encode(text).decode().rstrip("="))
    yield quote(base64.b64encode(data).decode(), safe="")


@pytest.mark.parametrize("token", [TOKEN, OTHER, "12345678", "abcdefghi", "abcdefghij"])
def test_a_token_is_masked_in_every_encoding(token):
    scrub = Scrubber([Token(OTHER), Token(token)])
    for text in encodings(token):
        masked = scrub(f"before {text} after")
        assert masked.startswith("before ") and "***" in masked and masked.endswith(" after")
        assert not left_of(token, masked), masked


def left_of(token, text):
    """Parts of the token that the text holds, decoded in every way."""
    texts = [text, unquote(text), html.unescape(text), text.replace("\\", "")]
    for run_ in re.findall(r"[A-Za-z0-9+/_-]{8,}", unquote(text)):
        for start in range(4):
            data = run_[start:].translate(str.maketrans("-_", "+/"))
            texts.append(base64.b64decode(data[: len(data) // 4 * 4]).decode("latin-1"))
        texts.append(bytes.fromhex(run_).decode("latin-1") if re.fullmatch(r"([0-9a-f]{2})+", run_) else "")
    parts = {token[start : start + 7] for start in range(len(token) - 6)}
    return [part for part in parts if any(part in one for one in texts)]


def test_text_without_a_token_stays_as_it_is():
    body = json.dumps(GOOD) + "%20&amp;\\n"
    assert Scrubber([Token(TOKEN)])(body) == Scrubber()(body) == body


def test_no_record_that_holds_a_token_shows_it():
    token = Token(TOKEN)
    endpoint = Endpoint("a", None, "https://a.example", token=token)
    shard = Shard("a", "https://a.example", (), 1.0, token, Scrubber([token]), False, 55.0, 1, (), ())
    for text in (repr(token), f"{token}", f"{endpoint}", f"{shard}", repr(read_token("ONE", {"ONE": TOKEN}))):
        assert not left_of(TOKEN, text), text


ECHOES = ("headers", "problem", "redirect", "page", "label", "throttled", "not_http", "header_line")


def echo(request, mode):
    """Answer with the token of the request, in this way."""
    token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
    encoded, forms = base64.b64encode(f"Bearer {token}".encode()).decode(), list(encodings(token))
    if mode == "headers":
        headers = {
            "X-Instance-Id": token,
            "X-Model-Version": encoded,
            "Server-Timing": f"{token};dur=1, {encoded};dur=2",
        }
        send(request, 200, json.dumps(GOOD), **{name.replace("-", "_"): value for name, value in headers.items()})
    elif mode == "problem":
        send(
            request, 401, json.dumps({"detail": f"{token} is wrong: {forms}"}), Content_Type="application/problem+json"
        )
    elif mode == "redirect":
        send(request, 302, Location=f"https://elsewhere.example/{quote(token)}/{encoded}?token={token}")
    elif mode == "page":  # what is kept of it ends within the token
        send(request, 500, f"<html>{' ' * 775}{html.escape(token)}</html>", Content_Type="text/html")
    elif mode == "label":
        send(request, 200, json.dumps({**GOOD, "label": f"{'-' * 150} {token}"}))
    elif mode == "throttled":
        send(request, 429, " ".join(forms[-30:]))
    else:
        line = token if mode == "not_http" else f"HTTP/1.1 200 OK\r\n{token}: {token}"
        request.wfile.write(f"{line}\r\n\r\n".encode())
        request.close_connection = True


def echo_version(request):
    """Its /version, which is closed, and then tells all that the request holds."""
    if not (token := (request.headers.get("Authorization") or "").removeprefix("Bearer ")):
        send(request, 401, "who are you?")
    else:
        nested = {form: [form, {"deep": form}] for form in encodings(token)}
        version = {"engine": token, "git_sha": token, "versions": {token: token}, "model": {"name": token, **nested}}
        send(request, 200, json.dumps(version))


def test_an_echoing_endpoint_leaves_the_token_nowhere(tmp_path):
    """A run with workers, ended by Ctrl-C; the echoes are in every file, stream and process that it could reach."""
    number, folder, command_lines = count(), tmp_path / "run", []

    def respond(request, body):
        if request.path == "/version":
            return echo_version(request)
        if request.command == "GET":
            return send(request, 200)
        if (index := next(number)) == 30:
            processes = [process, *psutil.Process(process.pid).children(recursive=True)]
            command_lines.extend(" ".join(psutil.Process(one.pid).cmdline()) for one in processes)
            process.send_signal(signal.SIGINT)
        echo(request, ECHOES[index % len(ECHOES)])

    with http_server(respond) as port:
        process = subprocess.Popen(
            [sys.executable, "-m", "eval", "run", "--target", f"a=http://127.0.0.1:{port}", "--token-env", "ONE",
             "--images", "golden", "--limit", "8", "--warmup", "2", "--baseline-rtt", "2",
             "--scenario", "single,poisson", "--rate", "40", "--duration", "60", "--workers", "2",
             "--cold-command", f"a=echo {OTHER}",
             "--out", str(folder)],
            cwd=ROOT, env=os.environ | {"ONE": TOKEN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    texts = {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert "***" in texts[str(folder / "samples.jsonl")] and "***" in texts[str(folder / "run.json")]
    assert "report.html" in {path.name for path in folder.iterdir()} and command_lines
    for name, text in {**texts, "stdout": out, "stderr": err, "command lines": "\n".join(command_lines)}.items():
        assert not left_of(TOKEN, text), name


def test_a_service_shows_its_token_to_nobody(tmp_path, monkeypatch):
    """A run measures the real service, whose /version is closed; then all that it answers and logs is searched."""
    monkeypatch.setenv("ONE", TOKEN)
    held, folder = {"Authorization": f"Bearer {TOKEN}"}, tmp_path / "run"
    settings = {"API_TOKEN": TOKEN, "PROTECT_STATUS": "1", "ENGINE": "onnx"}
    with ready_service(tmp_path / "log", **settings) as server:
        assert run("--target", f"a=http://127.0.0.1:{server.port}", "--token-env", "ONE", "--out", folder) == 0
        replies = [server.get(path, **held) for path in ("/", "/metrics", "/version", "/openapi.json", f"/{TOKEN[:6]}")]
        assert [reply.status for reply in replies] == [200, 200, 200, 200, 404]
        for headers in (held | {"Accept": "text/html"}, held, {"Authorization": f"Basic {TOKEN}"}, {}):
            replies += [server.post("/predict", b"no image", "image/png", **headers), server.get("/metrics", **headers)]
        processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        command_lines = " ".join(" ".join(process.cmdline()) for process in processes)
    texts = [f"{reply.headers}{reply.body.decode()}" for reply in replies]
    texts += [path.read_text() for path in (*folder.iterdir(), server.log) if path.is_file()]
    assert json.loads((folder / "run.json").read_text())["targets"][0]["version"]["engine"] == "onnx"
    for text in (*texts, command_lines):
        assert not left_of(TOKEN, text)


@pytest.mark.parametrize("failure", [RuntimeError(f"no {TOKEN}"), EndpointError(f"no {TOKEN}")], ids=["bug", "error"])
def test_an_error_and_a_traceback_show_no_token(tmp_path, monkeypatch, capsys, failure):
    def fail(*_):
        raise failure

    monkeypatch.setenv("ONE", TOKEN)
    monkeypatch.setattr(run_command, "create_run_dir", fail)
    assert run("--target", "a=http://127.0.0.1:9", "--token-env", "ONE", "--out", tmp_path / "run") == 1
    out, err = capsys.readouterr()
    assert "no ***\n" in err and not left_of(TOKEN, out + err)


def test_a_token_on_the_command_line_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("ONE", TOKEN)
    with fake_endpoint() as fake:
        more = ("--cold-command", f"a=curl -H 'Authorization: Bearer {quote(TOKEN)}' http://127.0.0.1")
        assert run("--target", f"a={fake.url}", "--token-env", "ONE", "--out", tmp_path / "run", *more) == 0
    text = (tmp_path / "run" / "run.json").read_text()
    assert "a=curl -H 'Authorization: Bearer ***'" in text and not left_of(TOKEN, text)
