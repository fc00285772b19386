"""The caller's credentials of Google."""

from __future__ import annotations

import os
import warnings

import google.auth
import google.oauth2.credentials
import requests
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from infra.errors import ProbeError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_VARIABLE = "GOOGLE_OAUTH_ACCESS_TOKEN"  # Pulumi's provider reads it as well
NO_CREDENTIALS = (
    "no Google credentials: run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS "
    f"or {TOKEN_VARIABLE}"
)


def open_session() -> requests.Session:
    """A session that carries the caller's credentials. Raises ProbeError when there are none."""
    if token := os.environ.get(TOKEN_VARIABLE):
        return AuthorizedSession(google.oauth2.credentials.Credentials(token=token))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains about user credentials without a quota project
            credentials, _ = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError:
        raise ProbeError(NO_CREDENTIALS) from None
    except GoogleAuthError as error:
        raise ProbeError(f"{NO_CREDENTIALS} ({' '.join(str(error).split())})") from None
    return AuthorizedSession(credentials)
