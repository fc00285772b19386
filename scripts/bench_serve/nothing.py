"""A server that answers every request at once with the label it was given: what is left is the client and the network.

python -m scripts.bench_serve.nothing PORT LABEL
"""

from __future__ import annotations

import select
import socket
import sys

from scripts.bench_serve.wire import HOST, LENGTH, READ_BYTES


def serve(port: int, label: str) -> None:
    body = f'{{"label": "{label}"}}'.encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    poll, connections = select.epoll(), dict[int, socket.socket]()
    waiting: dict[int, bytes] = {}  # what has come of a request that is not whole yet
    with socket.create_server((HOST, port), backlog=1024) as listener:
        poll.register(listener.fileno(), select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == listener.fileno():
                    connection, _ = listener.accept()
                    connections[connection.fileno()] = connection
                    poll.register(connection.fileno(), select.EPOLLIN)
                    continue
                try:
                    chunk = connections[fd].recv(READ_BYTES)
                except ConnectionError:
                    chunk = b""
                if not chunk:
                    poll.unregister(fd)
                    waiting.pop(fd, None)
                    connections.pop(fd).close()
                    continue
                got = waiting.pop(fd, b"") + chunk
                if is_whole(got):
                    connections[fd].sendall(answer)
                else:
                    waiting[fd] = got


def is_whole(request: bytes) -> bool:
    """Whether all of a request is there."""
    end = request.find(b"\r\n\r\n")
    length = LENGTH.search(request, 0, end + 2) if end >= 0 else None
    return length is not None and len(request) >= end + 4 + int(length[1])


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
