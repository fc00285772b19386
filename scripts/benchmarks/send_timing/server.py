"""A null server that notes when each request came, by the kernel's clock: the sender's timing, and not the server's.

It prints its port, and at SIGTERM the moments as JSON: {"by_kernel": true, "arrivals_ns": [...]}, of the wall clock.
Where the kernel tells no moments, they are those at which a request was read.

    python -m scripts.benchmarks.send_timing.server CORE
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from array import array

from eval.mock_server.profile import CIFAR10_CLASSES
from scripts.benchmarks.http_load import READ_BYTES
from scripts.benchmarks.http_messages import HOST
from scripts.benchmarks.null_server import Connection, serve
from service.schema import Prediction

SO_TIMESTAMPNS = 35  # of Linux on x86 and Arm; Python has no name for it
TIMESPEC = struct.Struct("qq")


class Arrivals:
    """The moments of all requests."""

    def __init__(self) -> None:
        self.ns = array("q")
        self.by_kernel = True


class TimedConnection(Connection):
    """Notes when the first bytes of each request came."""

    def __init__(self, sock: socket.socket, body: bytes, arrivals: Arrivals):
        super().__init__(sock, body)
        self._arrivals, self._read_ns = arrivals, 0

    def read(self) -> bytes:
        data, ancillary, _, _ = self.socket.recvmsg(READ_BYTES, socket.CMSG_SPACE(TIMESPEC.size))
        stamps = [value for _, kind, value in ancillary if kind == SO_TIMESTAMPNS]
        if stamps:
            seconds, nanoseconds = TIMESPEC.unpack(stamps[0])
            self._read_ns = seconds * 1_000_000_000 + nanoseconds
        elif data:
            self._read_ns, self._arrivals.by_kernel = time.time_ns(), False
        return data

    def on_message_begin(self) -> None:
        self._arrivals.ns.append(self._read_ns)


def main(core: int) -> None:
    """Serve on one core, until SIGTERM."""
    os.sched_setaffinity(0, {core})
    prediction = Prediction((0.82, *[0.02] * 9), CIFAR10_CLASSES)
    body, arrivals = json.dumps(prediction.to_json(with_probabilities=True)).encode(), Arrivals()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the benchmark's
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # so for every connection that it accepts
        print(listener.getsockname()[1], flush=True)
        try:
            serve(listener, lambda client: TimedConnection(client, body, arrivals))
        finally:
            json.dump({"by_kernel": arrivals.by_kernel, "arrivals_ns": arrivals.ns.tolist()}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
