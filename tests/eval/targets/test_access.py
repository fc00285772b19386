"""Headers, query, basic auth, certificates, proxies: what is sent, what is refused, and that no secret is written."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.errors import EndpointError
from eval.samples.store import read_run, read_samples
from eval.targets.access import environment_secrets, proxy_of, read_access
from eval.targets.endpoints import Endpoint, TargetSet, assign_access
from eval.targets.tokens import Token
from tests.helpers.fake_endpoint import GOOD, fake_endpoint
from tests.helpers.http_server import http_server, send, wsgi_server

pytestmark = pytest.mark.integration

KEY, PASSWORD = "the-key-of-the-gateway", "the-password-of-ann"
ENV = {"KEY": KEY, "USER_ANN": f"ann:{PASSWORD}", "SHORT": "short", "PROXY_PASSWORD": "of-the-proxy"}
QUICK = ("--images", "golden", "--limit", "2", "--baseline-rtt", "1", "--warmup", "1")


def only(**options):
    """The access of the endpoint a."""
    flags = {f"--{name.replace('_', '-')}": [f"a={text}" for text in texts] for name, texts in options.items()}
    return read_access(flags, ENV)["a"]


def test_options_of_one_endpoint_add_up():
    access = only(header=["X-Api-Key: $KEY", "Accept-Version: 2"], query=["version=3"], basic_env=["USER_ANN"])
    basic = f"Basic {base64.b64encode(f'ann:{PASSWORD}'.encode()).decode()}"
    assert access.headers == {"X-Api-Key": KEY, "Accept-Version": "2", "Authorization": basic}
    assert access.query == {"version": "3"}
    assert [token.secret for token in access.secrets] == [KEY, PASSWORD, f"ann:{PASSWORD}"]
    assert not any(secret in repr(access) for secret in (KEY, PASSWORD, basic))


def test_a_variable_may_stand_inside_a_value():
    assert only(header=["Authorization: ApiKey $KEY"]).headers == {"Authorization": f"ApiKey {KEY}"}
    assert only(proxy=["http://ann:$PROXY_PASSWORD@127.0.0.1:9"]).proxy == "http://ann:of-the-proxy@127.0.0.1:9"


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("--header", "a=X-Api-Key: 123456789", "X-Api-Key may be a secret, .* put it into a variable"),
        ("--query", "a=code=123456789", "code may be a secret"),
        ("--header", "a=X: $NONE", r"X is \$NONE, and that variable is not set"),
        ("--header", "a=X: $SHORT", "not 8 printable ASCII"),
        ("--header", "a=X", "expected HEADER:VALUE"),
        ("--header", "a=Content-Length: 3", "'Content-Length' is not the name of a header that can be set"),
        ("--header", "a=X Y: 3", "'X Y' is not the name"),
        ("--header", "a=X: a\nb", "characters that cannot be sent"),
        ("--header", "X-Api-Key:secret", "--header X-Api-Key:secret: expected NAME="),
        ("--query", "a=version", "expected KEY=VALUE"),
        ("--basic-env", "a=NONE", "the variable NONE is to hold USER:PASSWORD"),
        ("--basic-env", "a=KEY", "the variable KEY is to hold USER:PASSWORD"),
        ("--ca", "a=nowhere.pem", "there is no file nowhere.pem"),
        ("--ca", f"a={__file__}", "cannot be used .*PEM files"),
        ("--client-key", f"a={__file__}", "--client-cert is missing"),
        ("--proxy", "a=http://ann:secret@host", "its address has a user: put it into a variable"),
        ("--proxy", "a=host:80", "expected http://HOST:PORT"),
    ],
)
def test_an_option_that_cannot_work_says_why(flag, text, message):
    with pytest.raises(EndpointError, match=message) as error:
        read_access({flag: [text]}, ENV)
    assert "123456789" not in str(error.value)


def test_secrets_and_certificates_go_to_who_they_are_for():
    def assign(url, access, token=None):
        return assign_access(TargetSet((Endpoint("a", None, url, token=token),), {}), access, allow_http=False)

    key = read_access({"--header": ["a=X-Api-Key: $KEY"]}, ENV)
    assert assign("https://a.example", key).endpoints[0].access == key["a"]
    with pytest.raises(EndpointError, match="in clear"):
        assign("http://a.example", key)
    with pytest.raises(EndpointError, match="no address is called 'b', only a"):
        assign("https://a.example", {"b": key["a"]})
    with pytest.raises(EndpointError, match="has a token, and a header Authorization too"):
        assign("https://a.example", {"a": only(basic_env=["USER_ANN"])}, Token(KEY))


def test_the_environments_proxies_are_taken_and_masked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://ann:of-the-proxy@proxy.example:3128")
    assert [token.secret for token in environment_secrets()] == ["of-the-proxy"]
    assert proxy_of("https://a.example") == "http://ann:of-the-proxy@proxy.example:3128"
    assert proxy_of("http://a.example") is None and proxy_of("https://127.0.0.1") is None


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_every_secret_is_sent_and_none_is_written(tmp_path, monkeypatch, capsys):
    """The endpoint puts all that it was sent into its answer."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    sent = []

    async def echo(self, request):
        sent.append((dict(request.headers), dict(request.query)))
        return await self._good(request, echo=[str(request.url), *request.headers.values()], label=KEY)

    with fake_endpoint() as fake:
        monkeypatch.setattr(type(fake), "_echo", echo, raising=False)
        fake.mode = "echo"
        words = ("--header", "a=X-Api-Key: $KEY", "--query", "a=tag=$PROXY_PASSWORD", "--query", "a=version=2")
        out = tmp_path / "run"
        main(["run", *QUICK, "--target", f"a={fake.url}", *words, "--basic-env", "a=USER_ANN", "--out", str(out)])
    headers, query = sent[0]
    assert headers["X-Api-Key"] == KEY and query == {"probabilities": "1", "tag": "of-the-proxy", "version": "2"}
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == f"ann:{PASSWORD}"
    shown = "".join(capsys.readouterr()).encode() + written(out)
    assert b"***" in shown
    for secret in (KEY, PASSWORD, "of-the-proxy", headers["Authorization"].split()[1]):
        assert secret.encode() not in shown


# Certificates


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory, needs_tool) -> Path:
    """ca.pem, and what it has signed: server.pem with server.key, client.pem with client.key."""
    needs_tool("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *new_key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        san = ("-addext", "subjectAltName=IP:127.0.0.1")
        openssl(folder, "req", *new_key, "-subj", f"/CN={name}", *san, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy", "-out", f"{name}.pem")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed)
    openssl(folder, "ec", "-in", "client.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
    both = (folder / "client.pem").read_bytes() + (folder / "client.key").read_bytes()
    (folder / "both.pem").write_bytes(both)
    return folder


@pytest.fixture
def closed_tls(certificates):
    """For servers that want a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("own", [("client.pem", "client.key"), ("both.pem",)])
def test_own_authority_and_client_certificate_open_the_door(closed_tls, certificates, own, tmp_path):
    words = ["--ca", f"a={certificates / 'ca.pem'}", "--client-cert", f"a={certificates / own[0]}"]
    words += ["--client-key", f"a={certificates / own[1]}"] if own[1:] else []
    streams = ("--scenario", "single,poisson", "--duration", "0.2", "--workers", "2")
    with fake_endpoint(tls=closed_tls) as fake:
        target = ("--target", f"a={fake.url}")
        assert main(["run", *QUICK, *streams, *target, *words, "--out", str(tmp_path / "run")]) == 0
    run = read_run(tmp_path / "run")
    assert {sample.error for sample in read_samples(tmp_path / "run", run) if sample.target == "a"} == {None}
    key = (certificates / "client.key").read_bytes().splitlines()[1]
    assert key not in written(tmp_path / "run")


@pytest.fixture
def closed_url(closed_tls):
    """Of one that says why it closes, which asyncio's do not."""
    with wsgi_server(lambda *_: [], closed_tls) as url:
        yield url


def test_without_them_it_is_said_what_is_missing(closed_url, certificates, capsys):
    def says(*words):
        assert main(["check", closed_url, "--images", "golden", *words]) == 1
        return capsys.readouterr().err

    assert "is not trusted" in says()
    assert "certificate required" in says("--ca", str(certificates / "ca.pem"))
    locked = ("--client-cert", str(certificates / "client.pem"), "--client-key", str(certificates / "locked.key"))
    assert "cannot be used (the key has a password)" in says(*locked)


# Proxies


def test_a_proxy_gets_its_password_and_no_file_does(tmp_path, monkeypatch, capsys):
    """It is asked by a whole address, and refuses once."""
    monkeypatch.setenv("PROXY_PASSWORD", "of-the-proxy")
    asked = []

    def respond(request, _):
        asked.append((request.path, request.headers.get("Proxy-Authorization")))
        if len(asked) < 3:
            send(request, 407, "who are you?")
        else:
            send(request, 200, json.dumps(GOOD), Content_Type="application/json")

    with http_server(respond) as port:
        words = ("--proxy", f"a=http://ann:$PROXY_PASSWORD@127.0.0.1:{port}")
        main(["run", *QUICK, "--target", "a=http://service.invalid", *words, "--allow-token-over-http",
              "--out", str(tmp_path / "run")])  # fmt: skip
    assert asked[-1][0].startswith("http://service.invalid/")
    assert base64.b64decode(asked[-1][1].split()[1]) == b"ann:of-the-proxy"
    assert b"of-the-proxy" not in written(tmp_path / "run") + "".join(capsys.readouterr()).encode()
