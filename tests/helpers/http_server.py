"""HTTP servers on this machine: of a function that sends each response, or of a WSGI application."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@contextmanager
def http_server(respond: Callable[[BaseHTTPRequestHandler, bytes], object]) -> Iterator[int]:
    """`respond(request, body)` is called for every GET, POST and PUT, most simply to `send`. Yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            respond(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request, client_address):
            pass  # clients may leave

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def wsgi_server(app: WSGIApplication, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A WSGI application such as Flask's, on a thread for each request. Yields its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=tls)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def send(request: BaseHTTPRequestHandler, status: int, text: str = "", **headers: str) -> None:
    """Send a response; `Retry_After="1"` sets Retry-After."""
    body = text.encode()
    request.send_response(status)
    for name, value in {**headers, "Content_Length": str(len(body))}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)
