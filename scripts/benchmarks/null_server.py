"""A server that answers every request at once with one label: it leaves only the cost of client and network.

python -m scripts.benchmarks.null_server PORT LABEL
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable
from functools import partial

import httptools

from scripts.benchmarks.http_load import READ_BYTES
from scripts.benchmarks.http_messages import HOST


class Connection:
    """A client's connection: answers each complete request."""

    def __init__(self, sock: socket.socket, body: bytes):
        self.socket = sock
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.on_message_complete = partial(sock.sendall, head.encode() + body)  # called by the parser
        self._parser = httptools.HttpRequestParser(self)

    def receive(self) -> bool:
        """Read and answer. Returns whether the connection is still open."""
        try:
            data = self.read()
        except ConnectionError:
            return False
        self._parser.feed_data(data)
        return bool(data)

    def read(self) -> bytes:
        """What has come; empty at the end."""
        return self.socket.recv(READ_BYTES)


def serve(listener: socket.socket, connect: Callable[[socket.socket], Connection]) -> None:
    """Serve until the process is killed. connect: makes the connection of a client's socket."""
    epoll, connections = select.epoll(), dict[int, Connection]()
    epoll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                connections[client.fileno()] = connect(client)
                epoll.register(client.fileno(), select.EPOLLIN)
            elif not connections[fd].receive():
                connections.pop(fd).socket.close()


def main(port: int, label: str) -> None:
    """Serve one label until the process is killed."""
    body = f'{{"label": "{label}"}}'.encode()
    with socket.create_server((HOST, port), backlog=1024) as listener:
        serve(listener, lambda client: Connection(client, body))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
