"""A ClientHello of one's own making, for what no TLS library offers any more; and what a server says to it."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

HANDSHAKE, ALERT = 22, 21
SERVER_HELLO = 2
TLS_1_2 = 0x0303
SESSION_TICKET, RENEGOTIATION_INFO, HEARTBEAT = 0x0023, 0xFF01, 0x000F  # extensions
X25519, P_256 = 29, 23  # groups


@dataclass(frozen=True)
class ServerAnswer:
    """What a server says first: its ServerHello, an alert, or nothing before it closes the connection."""

    alert: int | None = None
    version: int | None = None
    cipher: int | None = None
    compression: int | None = None
    extensions: frozenset[int] = frozenset()

    @property
    def accepts(self) -> bool:
        """Whether it is a ServerHello."""
        return self.version is not None


def say_hello(
    port: int,
    name: str | None,
    ciphers: Sequence[int],
    version: int = TLS_1_2,
    compressions: bytes = b"\0",
    groups: Sequence[int] = (X25519, P_256),
) -> ServerAnswer:
    """Send one ClientHello to 127.0.0.1; `name` is its SNI."""
    hello = client_hello(name, ciphers, version, compressions, groups)
    return answer_to(port, struct.pack("!BHH", HANDSHAKE, min(version, 0x0301), len(hello)) + hello)


def answer_to(port: int, data: bytes) -> ServerAnswer:
    """Send these bytes, read one record."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as reader:
            head = reader.read(5)
            if len(head) < 5:
                return ServerAnswer()
            kind, _, length = struct.unpack("!BHH", head)
            body = reader.read(length)
    if kind == ALERT:
        return ServerAnswer(alert=body[1])
    assert (kind, body[0]) == (HANDSHAKE, SERVER_HELLO), (head, body[:20])
    return _server_hello(body[4 : 4 + int.from_bytes(body[1:4], "big")])


def client_hello(
    name: str | None, ciphers: Sequence[int], version: int, compressions: bytes, groups: Sequence[int]
) -> bytes:
    """The handshake message, without its record."""
    algorithms = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201)
    extensions = [
        (10, _list16(groups)),
        (11, b"\x01\x00"),  # uncompressed points
        (13, _list16(algorithms)),
        (SESSION_TICKET, b""),
        (HEARTBEAT, b"\x01"),
        (RENEGOTIATION_INFO, b"\x00"),
    ]
    if name is not None:
        extensions.insert(0, (0, struct.pack("!HBH", len(name) + 3, 0, len(name)) + name.encode()))
    packed = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
    body = struct.pack("!H", version) + secrets.token_bytes(32) + b"\0" + _list16(ciphers)
    body += bytes([len(compressions)]) + compressions + struct.pack("!H", len(packed)) + packed
    return b"\x01" + len(body).to_bytes(3, "big") + body


def _server_hello(body: bytes) -> ServerAnswer:
    version = int.from_bytes(body[:2], "big")
    place = 35 + body[34]  # after version, random and session
    cipher, compression = struct.unpack_from("!HB", body, place)
    place += 5
    extensions = set()
    while place < len(body):
        kind, length = struct.unpack_from("!HH", body, place)
        extensions.add(kind)
        place += 4 + length
    return ServerAnswer(None, version, cipher, compression, frozenset(extensions))


def _list16(values: Sequence[int]) -> bytes:
    return struct.pack(f"!H{len(values)}H", 2 * len(values), *values)
