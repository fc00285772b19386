"""Find free ports, and wait until a process is ready on one."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Sequence

from infra.errors import PortInUse, StartError
from infra.local.process import Process
from infra.local.start_commands import HOST
from service.schema import READYZ

REQUEST_TIMEOUT_S = 5  # of one readiness request
POLL_S = 0.02  # between two
PORT_IN_USE = re.compile(r"(Connection|Address already) in use", re.IGNORECASE)  # as service, gunicorn and nginx say it


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on right now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_ready(port: int, running: Sequence[Process], timeout_s: float, route: str = READYZ) -> None:
    """Poll the route until it succeeds.

    Raises StartError, with the log's last lines, when a process ends or the time is up.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        ready = _is_ready(port, route)
        for process in running:
            _raise_if_failed(process)  # when ready as well: another program may serve that port
        if ready:
            return
        if time.monotonic() > deadline:
            raise StartError(f"was not ready within {timeout_s:.0f} s\n{running[0].log_tail()}")
        time.sleep(POLL_S)


def _raise_if_failed(process: Process) -> None:
    tail = process.log_tail()
    if PORT_IN_USE.search(tail):
        raise PortInUse(f"another program took its port\n{tail}")
    if (status := process.exit_status()) is not None:
        raise StartError(f"ended with status {status} before it was ready\n{process.log_tail()}")


def _is_ready(port: int, route: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("GET", route)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
