"""Classifies a request that failed in transport: the kind of error, and one line that says why."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp

from eval.load.connection_timing import ConnectionTimings


def classify_transport_error(error: Exception, timings: ConnectionTimings, timeout_s: float | None) -> tuple[str, str]:
    """Error kind and detail. The order matters: the errors inherit from one another."""
    if isinstance(error, TimeoutError):
        return "timeout", f"{_describe_timeout(timings)} within {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        host_port = f"{error.host}:{error.port}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "dns", f"{error.host} is not found: {_error_text(error.os_error)}"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return "tls", f"the certificate of {host_port} is not trusted: {_error_text(error.os_error)}"
        if timings.tls_start is not None:
            return "tls", f"no TLS with {host_port}: {_error_text(error.os_error)}"
        return "connect", f"no connection to {host_port}: {_error_text(error.os_error)}"
    if isinstance(error, aiohttp.InvalidURL):
        return "connect", f"not an address: {error}"
    if isinstance(error, aiohttp.ClientResponseError):
        return "invalid_response", f"not HTTP: {error.message}"
    if (alert := error.__cause__) and isinstance(alert, ssl.SSLError):  # after the handshake, as of TLS 1.3
        return "tls", f"the server ended TLS: {_error_text(alert)}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "disconnected", "the connection was closed before the response"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "disconnected", f"the response is incomplete: {getattr(error.__cause__, 'message', error)}"
    return "disconnected", str(error) or type(error).__name__


def _describe_timeout(timings: ConnectionTimings) -> str:
    """What did not arrive in time."""
    if timings.start is None or timings.end is not None:
        return "no complete response"
    if timings.tls_start is not None:
        return "connected, but no TLS"
    return "no connection" if timings.connect_start is not None else "no address for the name"


def _error_text(error: BaseException) -> str:
    """The shortest message of the error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
