"""What became of an exchange that broke off: its kind of error, and one line that says why."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp

from eval.load.connection_timing import Opening


def transport_failure(error: Exception, opening: Opening, timeout_s: float | None) -> tuple[str, str]:
    """Kind and detail of an exchange that broke off. Order matters: the errors inherit from one another."""
    if isinstance(error, TimeoutError):
        return "timeout", f"{_missing(opening)} within {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        where = f"{error.host}:{error.port}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "dns", f"{error.host} is not found: {_reason(error.os_error)}"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return "tls", f"the certificate of {where} is not trusted: {_reason(error.os_error)}"
        if opening.securing is not None:
            return "tls", f"no TLS with {where}: {_reason(error.os_error)}"
        return "connect", f"no connection to {where}: {_reason(error.os_error)}"
    if isinstance(error, aiohttp.InvalidURL):
        return "connect", f"not an address: {error}"
    if isinstance(error, aiohttp.ClientResponseError):
        return "bad_answer", f"not HTTP: {error.message}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "disconnected", "the connection was closed before the answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "disconnected", f"the answer broke off: {getattr(error.__cause__, 'message', error)}"
    return "disconnected", str(error) or type(error).__name__


def _missing(opening: Opening) -> str:
    """What did not come in time."""
    if opening.began is None or opening.ended is not None:
        return "no whole answer"
    if opening.securing is not None:
        return "connected, but no TLS"
    return "no connection" if opening.connecting is not None else "no address for the name"


def _reason(error: BaseException) -> str:
    """The plainest words for a refusal."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
