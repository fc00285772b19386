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
class ConnectionTimings:
    """Moments of a connection being opened, of time.perf_counter; None for those that did not come."""

    start: float | None = None
    dns_resolved: bool = False  # the address is a name, which was looked up, here or by a request just before
    connect_start: float | None = None  # the address is known, TCP begins
    tls_start: float | None = None  # TCP is connected, TLS begins
    end: float | None = None

    def network_ms(self) -> dict[str, float]:
        """Milliseconds of each part; empty when a connection was there already, or none came about."""
        if self.start is None or self.connect_start is None or self.end is None:
            return {}
        phases_s = {"dns": self.connect_start - self.start} if self.dns_resolved else {}
        phases_s["connect"] = (self.tls_start or self.end) - self.connect_start
        if self.tls_start is not None:
            phases_s["tls"] = self.end - self.tls_start
        return {name: round(seconds * 1000, 3) for name, seconds in phases_s.items()}


_connection_timings: ContextVar[ConnectionTimings] = ContextVar("opening")  # of the request that this task sends


class TimingSSLContext(ssl.SSLContext):
    """Notes when a handshake begins: aiohttp reports TCP and TLS as one step."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Called by asyncio when TCP is connected."""
        if timings := _connection_timings.get(None):
            timings.tls_start = time.perf_counter()
        return super().wrap_bio(*args, **kwargs)


def create_connector(
    max_connections: int, *, no_connection_reuse: bool, keepalive_s: float = KEEPALIVE_S
) -> aiohttp.TCPConnector:
    """Connections that are kept and used again while rested for less than that; with `fresh` each only once."""
    ssl_context = TimingSSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ssl_context.load_default_certs()
    ssl_context.set_alpn_protocols(["http/1.1"])
    if no_connection_reuse:  # no TLS session is resumed either: every handshake is a whole one
        return aiohttp.TCPConnector(
            limit=max_connections, ssl=ssl_context, socket_factory=_timed_socket, force_close=True, use_dns_cache=False
        )
    return aiohttp.TCPConnector(
        limit=max_connections, ssl=ssl_context, socket_factory=_timed_socket, keepalive_timeout=keepalive_s
    )


def _timed_socket(address: tuple[Any, ...]) -> socket.socket:
    """The socket for an address, and the moment at which the first of a name's addresses is tried."""
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
