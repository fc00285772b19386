"""Starts the service: `python -m service.server`, the same on the VM, the dyno and in the container.

granian serves HTTP/1.1. Its parent process holds the port and starts one worker process, which holds the model; a
worker that dies is started again. One worker, because a forward pass already uses every core.

Slow clients. granian's own threads read heads and write answers, and service/web/asgi.py reads bodies on an event loop:
a client that sends or reads slowly holds no thread. A head has KEEP_ALIVE_S, a body BODY_TIMEOUT_S. granian counts the
time of a head from the end of the last answer, so a connection at rest has no longer; there is no deadline for who
reads an answer slowly, which costs a connection and the answer's memory.

Overload. A prediction has one of WEB_THREADS threads once its body is there. That is more than MAX_QUEUE and BATCH_MAX
hold images; what comes on top is refused with 503, before its image is decoded. Connections that are not even accepted
wait in the kernel's backlog, and get the places of those that a refusal now and then closes.

The end. Whoever keeps a connection open may send its next request just as the server closes it, and that request is
lost. So after SIGTERM every answer says `Connection: close` for a moment, before connections at rest are closed.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # Until granian has its handlers: imports take a second, in which a signal would end in a traceback or, to process 1
    # of a container, do nothing. There is nothing to clear away yet.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))

import socket
import sys
import time
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing import active_children
from threading import Timer
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from service.errors import BundleError, SettingsError
from service.model import load_bundle
from service.settings import Settings
from service.web.asgi import AsgiApp

APP = "service.wsgi:app"
MAX_CONNECTIONS = 800  # open at once, where a process may have 1024 files; more wait to be accepted
BACKLOG = 512  # that may wait so
MAX_HEAD_BYTES = 64 * 1024
ANNOUNCE_S = 0.25  # in which whoever keeps a connection open hears that it ends
DRAIN_S = 8  # for running requests after that: Cloud Run kills 10 s after SIGTERM, Heroku after 30 s
END_SIGNAL = signal.SIGUSR1  # to the worker: say so


def serve(app: str = APP) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError or BundleError for what can be seen beforehand."""
    settings = Settings.from_env(os.environ)
    if settings.refusal:  # of a store the worker takes an earlier version, where there is one
        from service.lifecycle.fallback_model import check_fallback  # here: else numpy is for the worker alone

        check_fallback(settings)
    elif not settings.model:
        load_bundle(settings.model_dir, [])  # without checksums: it looks at those of the files that it loads
    check_port_free(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"service: listening on {host}:{settings.port} as soon as the model is loaded", flush=True)
    server = Granian(
        app,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        workers=1,
        websockets=False,
        backpressure=MAX_CONNECTIONS,
        backlog=BACKLOG,
        http1_settings=HTTP1Settings(header_read_timeout=settings.keep_alive_s * 1000, max_buffer_size=MAX_HEAD_BYTES),
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN_S,
        log_level=LogLevels.error,
    )
    server.on_startup(announce_the_end)
    server.serve(target_loader=partial(load_app, web_threads=settings.web_threads))
    print("service: has ended", flush=True)


def announce_the_end() -> None:
    """In the parent, whose handler of SIGTERM is granian's by now: tell the worker first, and wait a moment."""
    signal.signal(END_SIGNAL, signal.SIG_IGN)  # inherited: a worker that still loads its model is not killed by it
    end = signal.getsignal(signal.SIGTERM)
    assert callable(end)

    def announce_and_end(*received: Any) -> None:
        for worker in active_children():
            if worker.pid:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, END_SIGNAL)
        time.sleep(ANNOUNCE_S)  # in the handler: a worker that ends meanwhile, told by the platform, is not replaced
        end(*received)

    signal.signal(signal.SIGTERM, announce_and_end)


def end_while_loading(*signalled: Any) -> None:
    """In the worker, a moment later: the parent may have the signal too, and takes an earlier end for a crash."""
    end = Timer(2 * ANNOUNCE_S, os._exit, (0,))
    end.daemon = True
    end.start()


def load_app(name: str, web_threads: int) -> AsgiApp:
    """In the worker: the Flask app called MODULE:ATTRIBUTE, whose answers close their connections near the end."""
    for number in (signal.SIGTERM, signal.SIGINT):  # until granian has its handlers here too; inherited ones do nothing
        signal.signal(number, end_while_loading)
    module, _, attribute = name.partition(":")
    app = AsgiApp(getattr(import_module(module), attribute).wsgi_app, web_threads)
    signal.signal(END_SIGNAL, app.end)
    return app


def check_port_free(host: str, port: int) -> None:
    """Raise SettingsError when something listens there: granian would share the port with another granian."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
            probe.bind((host, port))
    except OSError as error:  # such as where IPv6 is switched off
        raise SettingsError(f"port {port} of {host} cannot be had: {error.strerror}; set PORT or HOST") from None


if __name__ == "__main__":
    try:
        serve()
    except (SettingsError, BundleError) as error:
        sys.exit(f"service: {error}")
