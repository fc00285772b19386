"""The VM's nginx files on a real nginx: the hosts it answers to, what it passes on, and a scan of its TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.local.health import free_ports
from infra.local.nginx import nginx_process
from tests.helpers.http_server import http_server, send
from tests.helpers.infra.vm_files import ADDRESS, DOMAIN, files_of, make_certificate
from tests.helpers.tls_hello import HEARTBEAT, RENEGOTIATION_INFO, SESSION_TICKET, TLS_1_2, answer_to, say_hello

# For every site, as Debian's nginx.conf has it or laxer: the VM's own have to be stricter.
LAX = """
server_tokens on;
ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
ssl_ciphers ALL:COMPLEMENTOFALL:@SECLEVEL=0;
ssl_prefer_server_ciphers on;
gzip on;
"""


@dataclass(frozen=True)
class Site:
    """nginx with the sites of a VM of one form."""

    command: tuple[str, ...]
    folder: Path
    port_80: int
    port_443: int

    @contextlib.contextmanager
    def running(self) -> Iterator[Site]:
        """Started, and ended at the end."""
        with (self.folder / "nginx.log").open("wb") as log:
            nginx = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
        try:
            wait_for_port(nginx, self.port_80)
            yield self
        finally:
            nginx.terminate()
            nginx.wait()

    def fetch(self, path: str = "/", host: str = DOMAIN, *, tls: bool = True, **headers: str) -> Fetched:
        """GET over HTTPS, or over HTTP; the certificate is not looked at."""
        if tls:
            connection: http.client.HTTPConnection = NamedHost("127.0.0.1", self.port_443)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port_80)
        with contextlib.closing(connection):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers={"Host": host} | given)
            response = connection.getresponse()
            return Fetched(response.status, dict(response.headers), response.read())

    def send(self, head: bytes) -> int | None:
        """The status of a request as it is given, over HTTP; None when the connection is closed without one."""
        with socket.create_connection(("127.0.0.1", self.port_80), timeout=30) as connection:
            connection.sendall(head)
            with connection.makefile("rb") as reader:
                return int(line.split()[1]) if (line := reader.readline()) else None


@dataclass(frozen=True)
class Fetched:
    """A response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class NamedHost(http.client.HTTPSConnection):
    """HTTPS to an address, with the domain as SNI, whatever the Host header says."""

    def __init__(self, host: str, port: int):
        super().__init__(host, port, context=ssl._create_unverified_context(), timeout=30)

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), timeout=30)
        self.sock = ssl._create_unverified_context().wrap_socket(plain, server_hostname=DOMAIN)


def wait_for_port(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.02)


@pytest.fixture(scope="module")
def lay_out(needs_tool, tmp_path_factory):
    """lay_out("https", key="rsa") -> the VM's sites, enabled, in a folder of their own."""

    def make(form: str, upstream: int = 8080, key: str = "ec") -> Site:
        folder = tmp_path_factory.mktemp("nginx")
        port_80, port_443 = free_ports(2)
        launch = nginx_process(needs_tool("nginx"), folder, port_80, upstream)  # its main file, and temporary folders
        changes = {
            "listen 80": f"listen 127.0.0.1:{port_80}",
            "listen 443": f"listen 127.0.0.1:{port_443}",
            "127.0.0.1:8080": f"127.0.0.1:{upstream}",
            "/etc/classifier/certificate.pem": str(folder / "certificate.pem"),
            "/var/lib/classifier-acme": str(folder / "acme"),
            "client_header_timeout 10s": "client_header_timeout 1s",
        }
        for path, text in files_of(form).items():
            if path.startswith("/etc/nginx/"):
                target = folder / path.removeprefix("/etc/nginx/")
                target.parent.mkdir(exist_ok=True)
                for old, new in changes.items():
                    text = text.replace(old, new)
                target.write_text(text)
        (folder / "site.conf").write_text(LAX + "include sites-available/*.conf;\n")
        if form == "https":
            (folder / "certificate.pem").write_text(make_certificate(needs_tool("openssl"), folder, key=key))
        return Site(launch.command, folder, port_80, port_443)

    return make


@pytest.fixture(scope="module")
def upstream():
    """The port of a stand-in for the service, which responds with the headers that it received."""
    with http_server(lambda request, _: send(request, 200, json.dumps(dict(request.headers)))) as port:
        yield port


@pytest.fixture(scope="module")
def by_address(lay_out, upstream):
    """The site of a VM without a domain."""
    with lay_out("http", upstream).running() as site:
        yield site


@pytest.fixture(scope="module")
def by_domain(lay_out, upstream):
    """The sites of a VM that has a domain and its certificate."""
    with lay_out("https", upstream).running() as site:
        yield site


@pytest.fixture(scope="module", params=["ec", "rsa"])
def scanned(request, lay_out):
    """The sites with a certificate of each kind; certbot makes the first."""
    if request.param == "ec":
        yield request.getfixturevalue("by_domain")
    else:
        with lay_out("https", key="rsa").running() as site:
            yield site


@pytest.mark.parametrize("form", ["http", "https"])
def test_nginx_accepts_the_sites_without_a_warning(form, lay_out):
    checked = subprocess.run([*lay_out(form).command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "[" not in checked.stderr, checked.stderr  # [warn], [emerg]


# Hosts

HOSTS = {
    "{own}": 200,
    "{own}:80": 200,
    "{own}.": 200,
    "": 400,
    "example.org": 421,
    "localhost": 421,
    "127.0.0.1": 421,
    "127.0.0.1:8080": 421,
    "[::1]": 421,
    "169.254.169.254": 421,
    "{own}.example.org": 421,
    "example.org.{own}": 421,
    "x{own}": 421,
    "{own}@example.org": 421,
    "example.org:{own}": 421,
    "{own}/": 400,
    "{own}\0": 400,
    "{own}\r\nHost: example.org": 400,
}


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
@pytest.mark.parametrize("form", ["by_address", "by_domain"])
def test_nginx_answers_to_its_own_host_alone(form, host, request):
    site: Site = request.getfixturevalue(form)
    own, accepted = {"by_address": (ADDRESS, 200), "by_domain": (DOMAIN, 308)}[form]
    wanted = accepted if HOSTS[host] == 200 else HOSTS[host]
    assert site.send(f"GET / HTTP/1.1\r\nHost: {host.format(own=own)}\r\n\r\n".encode()) == wanted


def test_the_hosts_name_is_read_in_any_case(by_domain):
    assert by_domain.fetch(host=DOMAIN.upper()).status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", 421, id="none-in-1.0"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="none-in-1.1"),
        pytest.param(b"GET http://example.org/ HTTP/1.1\r\nHost: %s\r\n\r\n", 421, id="absolute-foreign"),
        pytest.param(b"GET http://%s/ HTTP/1.1\r\nHost: example.org\r\n\r\n", 200, id="absolute-own"),
    ],
)
def test_a_request_line_with_a_host_counts_before_the_header(by_address, head, status):
    assert by_address.send(head.replace(b"%s", ADDRESS.encode())) == status


def test_service_is_told_nginxs_host_not_the_headers(by_address):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", by_address.port_80)) as connection:
        connection.request("GET", f"http://{ADDRESS}/", headers={"Host": "example.org"})
        assert json.loads(connection.getresponse().read())["Host"] == ADDRESS


def test_another_host_on_a_connection_for_the_domain_is_refused(by_domain):
    assert [by_domain.fetch(host=host).status for host in (DOMAIN, "example.org", "127.0.0.1")] == [200, 421, 421]


@pytest.mark.parametrize("host", [DOMAIN, f"{DOMAIN}:80", DOMAIN.upper()])
def test_the_redirect_leads_to_the_domain_that_is_configured(by_domain, host):
    fetched = by_domain.fetch("/predict?probabilities=1", host, tls=False, X_Forwarded_Host="example.org")
    assert (fetched.status, fetched.headers["Location"]) == (308, f"https://{DOMAIN}/predict?probabilities=1")


def test_no_answer_names_the_version_of_nginx(by_domain):
    for fetched in (by_domain.fetch(), by_domain.fetch(host="example.org"), by_domain.fetch(tls=False)):
        assert fetched.headers["Server"] == "nginx"
        assert b"nginx/" not in fetched.body


# What reaches the service


@pytest.mark.parametrize(("form", "scheme"), [("by_address", "http"), ("by_domain", "https")])
def test_what_clients_say_of_themselves_is_replaced_or_dropped(form, scheme, request):
    site: Site = request.getfixturevalue(form)
    said = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix")
    said += ("X-Real-IP", "Forwarded", "Script-Name", "SCRIPT_NAME", "Path-Info", "PATH_INFO", "Remote-User", "Proxy")
    own = {"by_address": ADDRESS, "by_domain": DOMAIN}[form]
    claims = {name.replace("-", "_"): "/claimed" for name in said if "_" not in name}
    fetched = site.fetch("/", own, tls=scheme == "https", **claims, **{"X-Other": "kept"})
    received = json.loads(fetched.body)
    assert "/claimed" not in received.values() and not set(said[2:]) & set(received)
    assert (received["X-Forwarded-For"], received["X-Forwarded-Proto"]) == ("127.0.0.1", scheme)
    assert (received["Host"], received["X-Other"]) == (own, "kept")


def test_header_names_with_underscores_do_not_reach_the_service(by_address):
    with socket.create_connection(("127.0.0.1", by_address.port_80), timeout=30) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: {ADDRESS}\r\nSCRIPT_NAME: /x\r\nPATH_INFO: /x\r\n\r\n".encode())
        assert b"/x" not in connection.makefile("rb").read()


def test_a_head_that_pauses_is_ended(by_address, by_domain):
    """Before nginx knows the host, the limit of the default server counts; nginx's own is 60 s."""
    for port in (by_address.port_80, by_domain.port_80):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {ADDRESS}".encode())
            assert connection.recv(1) == b""


def test_a_body_of_any_length_reaches_the_service(by_domain):
    with contextlib.closing(NamedHost("127.0.0.1", by_domain.port_443)) as connection:
        connection.request("POST", "/predict", bytes(3 << 20), {"Host": DOMAIN})
        assert connection.getresponse().status == 200


def test_port_80_with_a_domain_serves_the_acme_challenge(by_domain):
    challenge = by_domain.folder / "acme" / ".well-known" / "acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "abc").write_text("what was asked for")
    fetched = by_domain.fetch("/.well-known/acme-challenge/abc", tls=False)
    assert (fetched.status, fetched.body) == (200, b"what was asked for")


def test_port_80_with_a_domain_passes_on_readiness_alone(by_domain):
    """And of the request nothing but its host."""
    fetched = by_domain.fetch("/readyz?x=1", tls=False, Authorization="Bearer x", X_Forwarded_For="192.0.2.1")
    received = json.loads(fetched.body)
    assert fetched.status == 200 and received == {"Host": DOMAIN}
    for path in ("/readyz/", "/readyzz", "/version", "/healthz", "/metrics", "/predict"):
        assert by_domain.fetch(path, tls=False).status == 308
    assert by_domain.fetch("/readyz", "example.org", tls=False).status == 421
    assert by_domain.send(f"POST /readyz HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 2048\r\n\r\n".encode()) == 413


# TLS: what testssl looks for

AEAD = {
    "ec": {0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256", 0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
           0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305"},
    "rsa": {0xC02F: "ECDHE-RSA-AES128-GCM-SHA256", 0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
            0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305"},
}  # fmt: skip
MODERN = [cipher for ciphers in AEAD.values() for cipher in ciphers]
WEAK = {
    "null": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010),
    "anonymous": (0x0018, 0x001B, 0x0034, 0x003A, 0x006C, 0x00A6, 0xC018, 0xC019),
    "export": (0x0003, 0x0006, 0x0008, 0x000B, 0x0014, 0x0017, 0x0062, 0x0064),
    "rc4": (0x0004, 0x0005, 0xC007, 0xC011),
    "des": (0x0009, 0x0015, 0x001A),
    "3des": (0x000A, 0x0016, 0xC008, 0xC012),
    "cbc": (0x002F, 0x0035, 0x003C, 0x003D, 0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC024, 0xC027, 0xC028),
    "no-forward-secrecy": (0x009C, 0x009D, 0xC02D, 0xC02E, 0xC031, 0xC032),
    "finite-field": (0x0033, 0x0039, 0x0067, 0x006B, 0x009E, 0x009F, 0xCCAA),
    "ccm-camellia-aria": (0xC0AC, 0xC0AD, 0xC0AE, 0xC0AF, 0xC072, 0xC076, 0xC086, 0xC08A, 0xC05C, 0xC060),
}
# The registry's, and those that were never in it; no signalling values, no suites of TLS 1.3
REGISTERED = ((0, 0xFF), (0xC001, 0xC200), (0xCC00, 0xCD00), (0xD000, 0xD100), (0xFE00, 0xFF00))
ASSIGNED = [cipher for first, end in REGISTERED for cipher in range(first, end)]
PROTOCOL_VERSION, HANDSHAKE_FAILURE, UNRECOGNISED_NAME, INAPPROPRIATE_FALLBACK = 70, 40, 112, 86


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302], ids=["SSLv3", "TLSv1.0", "TLSv1.1"])
def test_old_protocols_are_refused(scanned, version):
    offered = [*MODERN, *(cipher for group in WEAK.values() for cipher in group)]
    answer = say_hello(scanned.port_443, DOMAIN, offered, version)
    assert answer.alert == (HANDSHAKE_FAILURE if version == 0x0300 else PROTOCOL_VERSION)


def test_sslv2_gets_no_handshake(scanned):
    hello = b"\x01\x00\x02\x00\x09\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x06\x00\x40" + bytes(16)
    assert not answer_to(scanned.port_443, bytes([0x80, len(hello)]) + hello).accepts


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_modern_protocols_serve_a_chain_that_a_client_can_check(scanned, version):
    trusting = ssl.create_default_context(cafile=scanned.folder / "root.pem")
    trusting.minimum_version = trusting.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", scanned.port_443), timeout=30) as plain,
        trusting.wrap_socket(plain, server_hostname=DOMAIN) as secure,
    ):
        assert secure.version() == version.name.replace("_", ".")
        assert secure.compression() is None
        assert re.search("GCM|CHACHA20", secure.cipher()[0])


def test_each_modern_cipher_of_tls_1_2_is_accepted(scanned, request):
    ciphers = AEAD[request.node.callspec.params["scanned"]]
    answers = [say_hello(scanned.port_443, DOMAIN, [cipher]) for cipher in ciphers]
    assert [(answer.version, answer.cipher) for answer in answers] == [(TLS_1_2, cipher) for cipher in ciphers]


@pytest.mark.parametrize("kind", WEAK)
def test_weak_ciphers_are_refused_one_by_one(scanned, kind):
    assert {say_hello(scanned.port_443, DOMAIN, [cipher]).alert for cipher in WEAK[kind]} == {HANDSHAKE_FAILURE}


def test_no_other_cipher_of_the_registry_is_accepted(scanned):
    others = [cipher for cipher in ASSIGNED if cipher not in MODERN]
    assert say_hello(scanned.port_443, DOMAIN, others).alert == HANDSHAKE_FAILURE


def test_weak_groups_are_refused(scanned):
    weak = [1, 3, 4, 15, 16, 17, 18, 19, 20, 21, 22]  # below 256 bits, and secp256k1
    assert say_hello(scanned.port_443, DOMAIN, MODERN, groups=weak).alert == HANDSHAKE_FAILURE


def test_no_compression_tickets_or_heartbeat_are_agreed(scanned):
    answer = say_hello(scanned.port_443, DOMAIN, MODERN, compressions=b"\x01\x40\x00")
    assert (answer.version, answer.compression) == (TLS_1_2, 0)
    assert not answer.extensions & {SESSION_TICKET, HEARTBEAT} and RENEGOTIATION_INFO in answer.extensions


def test_a_fallback_to_tls_1_2_is_noticed(scanned):
    assert say_hello(scanned.port_443, DOMAIN, [*MODERN, 0x5600]).alert == INAPPROPRIATE_FALLBACK


def test_renegotiation_by_the_client_is_refused(scanned, needs_tool):
    command = [needs_tool("openssl"), "s_client", "-tls1_2", "-servername", DOMAIN]
    command += ["-connect", f"127.0.0.1:{scanned.port_443}"]
    asked = {key: subprocess.run(command, input=f"{key}\n", capture_output=True, text=True) for key in "QR"}
    assert asked["Q"].returncode == 0, asked["Q"].stderr
    assert asked["R"].returncode != 0 and "no renegotiation" in asked["R"].stderr


@pytest.mark.parametrize("name", ["example.org", "localhost", f"www.{DOMAIN}", None])
def test_handshakes_for_another_name_are_rejected(scanned, name):
    answer = say_hello(scanned.port_443, name, MODERN)
    assert answer.alert == UNRECOGNISED_NAME and not answer.accepts


def test_https_tells_browsers_to_stay_with_it(by_domain):
    wanted = "max-age=31536000"
    assert by_domain.fetch().headers["Strict-Transport-Security"] == wanted
    with contextlib.closing(NamedHost("127.0.0.1", by_domain.port_443)) as connection:
        connection.request("POST", "/predict", headers={"Host": DOMAIN, "Content-Length": str(18 << 20)})
        response = connection.getresponse()
        assert (response.status, response.headers["Strict-Transport-Security"]) == (413, wanted)
