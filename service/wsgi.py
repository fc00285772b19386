"""The app for WSGI servers, loaded and warmed by its import; service/server.py and service/main.py serve it."""

from __future__ import annotations

import gc
import sys

gc.disable()  # while starting: next to nothing of what imports make is ever garbage, and looking for it takes long

from service.app import create_app  # noqa: E402  # after gc.disable
from service.errors import BundleError, SettingsError  # noqa: E402  # after gc.disable
from service.system import limit_kept_memory  # noqa: E402  # after gc.disable

limit_kept_memory()

try:
    app = create_app()
except (BundleError, SettingsError) as error:
    print(f"service: {error}", file=sys.stderr, flush=True)
    sys.exit(1)

gc.freeze()  # and it is not looked through again while requests wait
gc.enable()
