"""The entry of Cloud Functions: hands every request to the one Flask app, and its answer back.

Start it with `functions-framework --target classify --source main.py`, in the root of what is shipped.

functions-framework imports this file in gunicorn's master and forks the worker afterwards. A warmed network does not
survive a fork (its compute threads stay behind), so the app is loaded in the worker, as soon as that exists.
"""

from __future__ import annotations

import atexit
import os
import traceback
from threading import Thread

os.environ["FORWARDED_ALLOW_IPS"] = ""  # gunicorn, which is imported below, would take SCRIPT_NAME from a local client

# gunicorn ends a worker that was silent for so long. Between requests Google withdraws the processor, and after a
# longer pause that would be every healthy one: its next request would wait for another load of the network. A request
# that takes too long is ended by Google itself (infra/gcp_function: timeout_seconds).
os.environ["CLOUD_RUN_TIMEOUT_SECONDS"] = "0"

import flask
import functions_framework
from gunicorn.arbiter import Arbiter
from werkzeug import Response
from werkzeug.exceptions import NotFound


def the_app() -> flask.Flask:
    """The service. Import makes every caller wait for the one load."""
    from service.wsgi import app

    return app


def load_or_halt() -> None:
    """Load the app; when it cannot be had, end the worker with the status that ends the server as well."""
    atexit.register(os._exit, 0)  # for a worker that ends meanwhile: half a library cannot be torn down
    try:
        the_app()
        atexit.unregister(os._exit)
        return
    except SystemExit:
        pass  # service.wsgi has printed why; SystemExit in this thread would end nothing
    except BaseException:
        traceback.print_exc()
    os._exit(Arbiter.WORKER_BOOT_ERROR)


os.register_at_fork(after_in_child=lambda: Thread(target=load_or_halt, name="load", daemon=True).start())


@functions_framework.http
def classify(request: flask.Request) -> Response:
    """The Flask app's answer to this request."""
    return flask.Response.from_app(the_app(), request.environ)


@functions_framework.errorhandler(NotFound)
def classify_reserved(_: NotFound) -> Response:
    """The framework keeps /favicon.ico and /robots.txt to itself: the app answers these too."""
    return classify(flask.request)
