"""Times of the phases of a new connection: DNS, TCP handshake, TLS handshake."""

from __future__ import annotations

import socket
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp

from eval.targets.access import KEEPALIVE_S, Access


@dataclass
class ConnectionTimings:
    """Moments of a new connection, of time.perf_counter(); None for those that were not reached."""

    start: float | None = None
    dns_resolved: bool = False  # the host is a name that was resolved, now or by a request just before
    connect_start: float | None = None  # the address is known, TCP starts
    tls_start: float | None = None  # TCP is connected, TLS starts
    end: float | None = None

    def phases_ms(self) -> dict[str, float]:
        """Milliseconds of each phase; empty if a connection was reused, or none was established."""
        if self.start is None or self.connect_start is None or self.end is None:
            return {}
        phases_s = {"dns": self.connect_start - self.start} if self.dns_resolved else {}
        phases_s["connect"] = (self.tls_start or self.end) - self.connect_start
        if self.tls_start is not None:
            phases_s["tls"] = self.end - self.tls_start
        return {name: round(seconds * 1000, 3) for name, seconds in phases_s.items()}


_connection_timings: ContextVar[ConnectionTimings] = ContextVar("connection_timings")  # of this task's request


class TimingSSLContext(ssl.SSLContext):
    """Records when a TLS handshake starts: aiohttp reports TCP and TLS as one step."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Called by asyncio when TCP is connected."""
        if timings := _connection_timings.get(None):
            timings.tls_start = time.perf_counter()
        return super().wrap_bio(*args, **kwargs)


def create_connector(
    max_connections: int, *, no_connection_reuse: bool, keepalive_s: float = KEEPALIVE_S, access: Access
) -> aiohttp.TCPConnector:
    """A connection pool; idle connections are reused for `keepalive_s`, or never."""
    ssl_context = TimingSSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ssl_context.load_default_certs()
    access.ssl_context(ssl_context)
    ssl_context.set_alpn_protocols(["http/1.1"])
    if no_connection_reuse:  # no TLS session is resumed either: every handshake is a full one
        return aiohttp.TCPConnector(
            limit=max_connections, ssl=ssl_context, socket_factory=_timed_socket, force_close=True, use_dns_cache=False
        )
    return aiohttp.TCPConnector(
        limit=max_connections, ssl=ssl_context, socket_factory=_timed_socket, keepalive_timeout=keepalive_s
    )


def _timed_socket(address: tuple[Any, ...]) -> socket.socket:
    """Create the socket for an address, and record when the first of a name's addresses is tried."""
    if (timings := _connection_timings.get(None)) and timings.connect_start is None:
        timings.connect_start = time.perf_counter()
    family, socket_type, protocol = address[:3]
    return socket.socket(family, socket_type, protocol)


def create_trace_config() -> aiohttp.TraceConfig:
    """Fills the ConnectionTimings that a request carries as its trace_request_ctx."""
    trace_config = aiohttp.TraceConfig()
    trace_config.on_connection_create_start.append(_on_connection_start)
    trace_config.on_dns_resolvehost_start.append(_on_dns_resolved)
    trace_config.on_dns_cache_hit.append(_on_dns_resolved)
    trace_config.on_connection_create_end.append(_on_connection_end)
    return trace_config


async def _on_connection_start(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.start = time.perf_counter()
    _connection_timings.set(context.trace_request_ctx)


async def _on_dns_resolved(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.dns_resolved = True


async def _on_connection_end(_: Any, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.end = time.perf_counter()
