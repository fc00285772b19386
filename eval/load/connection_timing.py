"""Where the time of a new connection goes (the name, TCP's handshake, TLS's handshake), and what became of it."""

from __future__ import annotations

import socket
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp

from eval.targets.endpoints import KEEPALIVE_S


@dataclass
class Opening:
    """Moments of a connection being opened, of time.perf_counter; None for those that did not come."""

    began: float | None = None
    named: bool = False  # the address is a name, which was looked up, here or by a request just before
    connecting: float | None = None  # the address is known, TCP begins
    securing: float | None = None  # TCP is connected, TLS begins
    ended: float | None = None

    def network_ms(self) -> dict[str, float]:
        """Milliseconds of each part; empty when a connection was there already, or none came about."""
        if self.began is None or self.connecting is None or self.ended is None:
            return {}
        parts = {"dns": self.connecting - self.began} if self.named else {}
        parts["connect"] = (self.securing or self.ended) - self.connecting
        if self.securing is not None:
            parts["tls"] = self.ended - self.securing
        return {name: round(seconds * 1000, 3) for name, seconds in parts.items()}


_opening: ContextVar[Opening] = ContextVar("opening")  # of the request that this task sends


class TimedContext(ssl.SSLContext):
    """Notes when a handshake begins: aiohttp reports TCP and TLS as one step."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Called by asyncio when TCP is connected."""
        if opening := _opening.get(None):
            opening.securing = time.perf_counter()
        return super().wrap_bio(*args, **kwargs)


def connector(connections: int, *, fresh: bool, keepalive_s: float = KEEPALIVE_S) -> aiohttp.TCPConnector:
    """Connections that are kept and used again while rested for less than that; with `fresh` each only once."""
    context = TimedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    if fresh:  # no TLS session is resumed either: every handshake is a whole one
        return aiohttp.TCPConnector(
            limit=connections, ssl=context, socket_factory=_timed_socket, force_close=True, use_dns_cache=False
        )
    return aiohttp.TCPConnector(
        limit=connections, ssl=context, socket_factory=_timed_socket, keepalive_timeout=keepalive_s
    )


def _timed_socket(address: tuple[Any, ...]) -> socket.socket:
    """The socket for an address, and the moment at which the first of a name's addresses is tried."""
    if (opening := _opening.get(None)) and opening.connecting is None:
        opening.connecting = time.perf_counter()
    family, kind, protocol = address[:3]
    return socket.socket(family, kind, protocol)


def tracing() -> aiohttp.TraceConfig:
    """Fills the Opening that a request carries as its trace_request_ctx."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(_on_began)
    trace.on_dns_resolvehost_start.append(_on_named)
    trace.on_dns_cache_hit.append(_on_named)
    trace.on_connection_create_end.append(_on_ended)
    return trace


async def _on_began(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.began = time.perf_counter()
    _opening.set(context.trace_request_ctx)


async def _on_named(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.named = True


async def _on_ended(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.ended = time.perf_counter()
