"""gunicorn's threaded worker, with less work around each request, and with care when there is too much, or at the end.

- gthread hands a connection from its main thread to the pool and back for every request. Here the thread that has
  answered waits a moment for the next request itself, as long as there is a thread for every connection.
- A plain request that comes so, whole and for one small picture, needs neither gunicorn's parser nor its response: it
  is read by a look at its bytes, and its answer leaves in one piece. That takes a third of a millisecond off it.
- Refusing costs time as well: at ten times the load, a refusal that took the usual way (a thread, the parser, the app)
  would take more of the core than the network has left. So while the queue is full, plain requests are refused where
  they are first seen, by the same look, for a fifth of the cost, and many at a time: each interruption empties the
  caches that the network works from. The others take the usual way.
- On SIGTERM, connections that the kernel has accepted are taken in, and then new ones are refused at once.
"""

from __future__ import annotations

import io
import re
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from selectors import EVENT_READ
from typing import Any
from weakref import WeakKeyDictionary

from gunicorn.util import http_date
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.machine import few_arenas
from service.schema import PREDICT

STAY_MS = 100  # that a thread waits for the next request of its connection
GATHER_S = 0.02  # that refusals wait for others: one at a time, each would take the core from the network anew
LOOK_BYTES = 32 * 1024  # at the beginning of a request
LONGEST_BYTES = 64 * 1024  # that may still come of it; who sends more is better told to stop

HEAD = re.compile(
    rf"POST {PREDICT}(?:\?(?P<query>[!-~]*))? HTTP/1\.1(?P<lines>(?:\r\n[A-Za-z0-9-]+:[ \t]*[ -~]*)*)", re.ASCII
)
UNUSUAL = {"transfer-encoding", "expect", "upgrade"}
LENGTH_DIGITS = 6
KEPT = "keep-alive"


@dataclass(frozen=True, slots=True)
class Plain:
    """A prediction that a program asks for and stays connected, read from the first bytes."""

    environ: dict[str, Any]  # as much of WSGI's as the app needs for one small picture
    missing_bytes: int  # that are still to come of the body


class Worker(ThreadWorker):
    """One process of the service."""

    front: Any  # the app's service.front.Front

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        # Bytes of refused bodies that will be thrown away
        self._owed: WeakKeyDictionary[TConn, int] = WeakKeyDictionary()
        self._inside = 0  # requests that threads have, or will have next; connections at rest are not counted
        self._counting = threading.Lock()
        self._made_refusal, self._refusal_ends = b"", 0.0

    def load_wsgi(self) -> None:
        few_arenas()
        super().load_wsgi()
        app: Any = self.wsgi  # Flask's
        self.front = app.wsgi_app

    def handle(self, conn: TConn) -> Any:
        """Answer a request, and those that follow soon. True: keep the connection; anything else as gthread has it."""
        try:
            kept = super().handle(conn)
        finally:
            self._count(-1)
        while kept is True and self.alive and self.nr_conns <= self.cfg.threads and asks_more(conn):
            if self._refuse(conn):
                continue
            self._count(1)
            try:
                kept = self._answer(conn) or super().handle(conn)
            finally:
                self._count(-1)
        return kept

    def _count(self, more: int) -> None:
        with self._counting:
            self._inside += more

    def _full(self) -> bool:
        """Whether a request more would find no place: as many are inside as can wait or be computed, or nearly so."""
        return self._inside >= self.front.places or self.front.full()

    def _answer(self, conn: TConn) -> bool:
        """Answer a plain request that is there as a whole. False: the usual way has it, with all its bytes."""
        parser: Any = conn.parser  # HTTP/1's
        try:
            seen = conn.sock.recv(LOOK_BYTES)
        except OSError:
            return False
        plain = plain_request(seen)
        if plain is None or plain.missing_bytes or not self.front.has_short_way(plain.environ):
            parser.unreader.unread(seen)
            return False
        plain.environ["gunicorn.socket"] = conn.sock
        said: list[Any] = []
        try:
            body = b"".join(self.front.answer(plain.environ, lambda *status_headers: said.extend(status_headers)))
            status, headers = said
            conn.sock.sendall(answer_bytes(status, headers, body))
        except OSError:  # the client has gone
            return hang_up(conn)
        finally:
            self.front.count(plain.environ)
        return True

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """One round of the main thread."""
        if self.alive and self._full():
            time.sleep(GATHER_S)
        super().wait_for_and_dispatch_events(timeout)

    def enqueue_req(self, conn: TConn) -> None:
        """A new connection's request is waited for here while the queue is full, and else in a thread."""
        if conn.initialized or conn.data_ready or not self._full():
            self._count(1)
            super().enqueue_req(conn)
            return
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_client_socket_readable, conn))

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """A request comes on a connection that was waited for here."""
        if not self._refuse(conn):
            conn.data_ready = True  # a thread need not wait for it
            super().on_client_socket_readable(conn, client)

    def _refuse(self, conn: TConn) -> bool:
        """When the queue is full, answer a plain request with 503 and keep the connection. True: nothing is left to do.

        The head is enough: what is still to come of the body is thrown away when it comes.
        """
        if self._owed and self._owed.get(conn):
            return self._throw_away(conn)
        if not self.alive or not self._full():
            return False
        if len(self.keepalived_conns) >= self.max_keepalived:  # the usual way says so, and makes room for others
            return False
        try:
            seen = conn.sock.recv(LOOK_BYTES, socket.MSG_PEEK)
        except OSError:
            return False
        plain = plain_request(seen)
        if plain is None or plain.missing_bytes > LONGEST_BYTES:
            return False
        if plain.missing_bytes:
            self._owed[conn] = plain.missing_bytes
        try:
            conn.sock.recv(len(seen))
            conn.sock.sendall(self._refusal())
        except OSError:  # the client has gone, or does not read
            return hang_up(conn)
        conn.set_timeout()
        return True

    def _refusal(self) -> bytes:
        """The answer. What it says changes no faster than refusals are gathered, so one is made for all of them."""
        self.front.count_refusal()
        now = time.perf_counter()
        if now > self._refusal_ends:
            self._made_refusal, self._refusal_ends = answer_bytes(*self.front.refusal()), now + GATHER_S
        return self._made_refusal

    def _throw_away(self, conn: TConn) -> bool:
        try:
            thrown = conn.sock.recv(self._owed[conn])
        except OSError:
            return hang_up(conn)
        self._owed[conn] -= len(thrown)
        return bool(thrown)

    def set_accept_enabled(self, enabled: bool | None) -> None:
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                self.accept(listener)
                listener.close()

    def accept(self, listener: Any) -> None:
        """Take in all connections that have come, as far as there is room."""
        taken = -1
        while taken != self.nr_conns < self.worker_connections:
            taken = self.nr_conns
            super().accept(listener)  # which counts the connection, if there was one


def asks_more(conn: TConn) -> bool:
    """Whether the connection's next request begins within a moment."""
    parser: Any = conn.parser  # HTTP/1's
    if parser.unreader.buf.getbuffer():  # it has begun, with the bytes of the last one: gthread sees to that
        return False
    poll = select.poll()
    poll.register(conn.sock, select.POLLIN)
    return bool(poll.poll(STAY_MS))


def hang_up(conn: TConn) -> bool:
    """Let the usual way find the connection closed. False: there it goes."""
    with suppress(OSError):
        conn.sock.shutdown(socket.SHUT_RDWR)
    return False


def plain_request(seen: bytes) -> Plain | None:
    """None: it is something else, or more than one request, or its head is not whole."""
    head, whole, body = seen.partition(b"\r\n\r\n")
    environ = plain_head(head) if whole else None
    if environ is None:
        return None
    missing = int(environ["CONTENT_LENGTH"]) - len(body)
    return None if missing < 0 else Plain({**environ, "wsgi.input": io.BytesIO(body)}, missing)


@lru_cache(maxsize=64)  # a program's requests have one head, or few
def plain_head(head: bytes) -> dict[str, str] | None:
    """What WSGI's environ has of a plain request's head; None when anything about it is unusual."""
    found = HEAD.fullmatch(head.decode("latin-1"))
    if found is None:
        return None
    headers: dict[str, str] = {}
    for line in found["lines"].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in headers or name in UNUSUAL:
            return None
        headers[name] = value.strip(" \t")
    length, accept = headers.get("content-length", ""), headers.get("accept", "*/*")
    if not length.isdecimal() or len(length) > LENGTH_DIGITS or "text/html" in accept:
        return None
    if headers.get("connection", KEPT).lower() != KEPT:
        return None
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": PREDICT,
        "QUERY_STRING": found["query"] or "",
        "CONTENT_TYPE": headers.get("content-type", ""),
        "CONTENT_LENGTH": length,
        "HTTP_ACCEPT": accept,
    }


@lru_cache(maxsize=1)
def date_line(unix_s: int) -> str:
    """The value of a Date header; made once a second."""
    return http_date(unix_s)


def answer_bytes(status: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """A whole answer on a connection that stays open."""
    own = [("Date", date_line(int(time.time()))), ("Connection", KEPT)]
    lines = "".join(f"{name}: {value}\r\n" for name, value in (*own, *headers))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body
