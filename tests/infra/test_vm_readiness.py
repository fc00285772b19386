"""wait_ready.py before a new VM has the stack's address: what it proves over HTTP and HTTPS, and what it does not."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.readiness import SCRIPT, script_text
from tests.helpers.http_server import send
from tests.helpers.infra.vm_files import DOMAIN, make_certificate

SENT = {"MODEL_SHA256": "ab" * 32, "GIT_SHA": "c0" * 20}
VERSION = {"model": {"sha256": "ab" * 32}, "git_sha": "c0" * 20}


class Either(ThreadingHTTPServer):
    """HTTP and, where a client begins with a handshake and there is a certificate, HTTPS on one port."""

    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # a client that does not trust the certificate hangs up
            if request.recv(1, socket.MSG_PEEK) != b"\x16":
                super().finish_request(request, client_address)
            elif self.context:
                with self.context.wrap_socket(request, server_side=True) as secure:
                    super().finish_request(secure, client_address)


@contextlib.contextmanager
def vm(
    folder: Path, statuses: Mapping[str, int], certificate: str = "", version: object = VERSION
) -> Iterator[tuple[int, list[tuple[str, str, str]]]]:
    """A VM's port with what it answers on http and https, and the requests that it got as (scheme, path, host)."""
    requests: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
            requests.append((scheme, self.path, self.headers["Host"]))
            send(self, statuses[scheme], json.dumps(version if self.path == "/version" else {}))

        def log_message(self, *_):
            pass

    server = Either(("127.0.0.1", 0), Handler)
    if certificate:
        (folder / "vm.pem").write_text(certificate, encoding="utf-8")
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(folder / "vm.pem")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port, requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def authority(needs_tool, tmp_path_factory) -> tuple[str, Path]:
    """The domain's key and certificate, and the authority that made it."""
    folder = tmp_path_factory.mktemp("authority")
    return make_certificate(needs_tool("openssl"), folder), folder / "root.pem"


def ask_early(folder: Path, new: int, root: Path, *, old: int = 9, **env: str) -> subprocess.CompletedProcess[str]:
    """The script's process for a VM at the port `new`; the domain, were it asked, leads to the port `old`."""
    (folder / "address").write_text(f"127.0.0.1:{new}\n", encoding="utf-8")
    # Every name leads to this machine: what the domain's own server says is asked at the port in the URL.
    env = {"URL": f"https://{DOMAIN}:{old}", "ADDRESS_FILE": str(folder / "address"), **SENT, **env}
    env = {"POLL_S": "0.01", "HTTPS_WAIT_S": "0.1", "TIMEOUT_S": "60", "SSL_CERT_FILE": str(root), **env}
    script = "import socket; found = socket.getaddrinfo\n"
    script += "socket.getaddrinfo = lambda host, *rest, **more: found('127.0.0.1', *rest, **more)\n"
    script += script_text(SCRIPT)
    return subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)


def test_a_vm_with_the_certificate_proves_all_before_it_is_used(tmp_path, authority):
    with vm(tmp_path, {"http": 200, "https": 200}, authority[0]) as (port, requests):
        done = ask_early(tmp_path, port, authority[1])
    assert done.returncode == 0, done.stderr
    assert "ready over HTTPS, with the model and the code that were sent" in done.stdout
    assert {(scheme, path) for scheme, path, _ in requests} == {
        ("http", "/readyz"), ("https", "/readyz"), ("https", "/version")
    }  # fmt: skip
    assert {host.partition(":")[0] for _, _, host in requests} == {DOMAIN}


def test_the_first_vm_of_a_domain_proves_port_80_and_says_so(tmp_path, authority):
    with vm(tmp_path, {"http": 200}) as (port, _):
        done = ask_early(tmp_path, port, authority[1])
    assert done.returncode == 0, done.stderr
    assert "ready on port 80" in done.stdout
    assert "NOT PROVEN before the address leads to this VM: HTTPS, model and code;" in done.stdout


def test_a_vm_without_https_does_not_replace_one_with_it(tmp_path, authority):
    (tmp_path / "old").mkdir()
    old_vm = vm(tmp_path / "old", {"http": 404, "https": 200}, authority[0], VERSION | {"git_sha": "dead"})
    with vm(tmp_path, {"http": 200}) as (port, _), old_vm as (old, _):
        done = ask_early(tmp_path, port, authority[1], old=old)
    assert done.returncode == 1 and "over HTTPS, which works on the VM before" in done.stderr


def test_a_certificate_that_nobody_trusts_proves_nothing(tmp_path, authority):
    with vm(tmp_path, {"http": 200, "https": 200}, authority[0]) as (port, requests):
        done = ask_early(tmp_path, port, tmp_path / "address")  # a file without any authority
    assert "CERTIFICATE_VERIFY_FAILED" in done.stdout and "ready over HTTPS" not in done.stdout
    assert {scheme for scheme, _, _ in requests} == {"http"}


def test_a_vm_that_never_answers_is_a_failure(tmp_path, authority):
    with vm(tmp_path, {"http": 502}) as (port, requests):
        done = ask_early(tmp_path, port, authority[1], TIMEOUT_S="0.1", ADVICE="Look there.")
    assert done.returncode == 1 and "on port 80: /readyz answered status 502" in done.stderr
    assert "Look there." in done.stderr and {scheme for scheme, _, _ in requests} == {"http"}


def test_a_vm_that_has_the_address_is_asked_there(tmp_path, authority):
    """Pulumi runs a newer script for an old VM as well: the address of its boot may be another VM's by now."""
    with vm(tmp_path, {"http": 200, "https": 200}, authority[0]) as (port, _):
        done = ask_early(tmp_path, 9, authority[1], old=port, PULUMI_COMMAND_STDOUT="ready")
    assert done.returncode == 0, done.stderr
    assert "ready, with the model and the code that were sent" in done.stdout
