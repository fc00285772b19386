"""The app for WSGI servers: `gunicorn --config service/gunicorn.conf.py service.wsgi:app`."""

from __future__ import annotations

import sys

from service.app import create_app
from service.model import BundleError
from service.settings import SettingsError

WORKER_BOOT_ERROR = 3  # on this status gunicorn ends; on any other it would start the worker again, for ever

try:
    app = create_app()
except (BundleError, SettingsError) as error:
    print(f"service: {error}", file=sys.stderr, flush=True)
    sys.exit(WORKER_BOOT_ERROR)
