"""Google's credentials on this machine, and the APIs that a project has to have before a program can ask for others."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import google.auth
import google.oauth2.credentials
import requests
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

SERVICE_USAGE = "https://serviceusage.googleapis.com/v1"
APIS = ("cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com")
ACCOUNT_DOMAIN = ".iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT_S = 10
# That pulumi's provider reads before the application default ones; the first may be JSON itself, and is not read here.
OWN_VARIABLES = (
    "GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON"
)  # fmt: skip


def find_credentials() -> Credentials | str | None:
    """The credentials; None for those that only pulumi's provider reads; a line where there are none. Asks no one."""
    if any(os.environ.get(name) for name in OWN_VARIABLES):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains about user credentials without a quota project
            return google.auth.default(scopes=[SCOPE], request=_no_answer)[0]
    except DefaultCredentialsError as error:
        path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        reason = f" ({' '.join(str(error).split())})" if path else ""
        return f"no Google credentials: `gcloud auth application-default login`{reason}"
    except GoogleAuthError:
        return None  # they are there, and would have asked Google


def missing_apis(credentials: Credentials | None, project: str) -> Iterator[str]:
    """A line where an API is off without which no program can switch on another; none if no one answers.

    They have to be on in the service account's own project, in whose name it asks; a person's credentials ask in the
    name of a project of Google's, and need neither.
    """
    if credentials is None or isinstance(credentials, google.oauth2.credentials.Credentials):
        return
    account = getattr(credentials, "service_account_email", None) or ""
    is_named = account.endswith(ACCOUNT_DOMAIN)
    own_project = account.partition("@")[2].removesuffix(ACCOUNT_DOMAIN) if is_named else project
    session = AuthorizedSession(credentials, refresh_timeout=TIMEOUT_S, max_refresh_attempts=1)
    urls = [f"{SERVICE_USAGE}/projects/{own_project}/services/{api}" for api in APIS]
    try:
        answers = [session.get(url, timeout=TIMEOUT_S).json() for url in urls]
    except (requests.RequestException, GoogleAuthError, ValueError):
        return  # offline, or Google is not itself: `up` will say it
    errors = [str(answer["error"]) for answer in answers if "error" in answer]
    states = [answer["state"] for answer in answers if "state" in answer]
    # Another refusal, such as of a project that it may not read, says nothing of the APIs.
    if any("SERVICE_DISABLED" in error for error in errors) or any(state != "ENABLED" for state in states):
        yield f"project {own_project} lacks APIs: gcloud services enable {' '.join(APIS)} --project {own_project}"


def _no_answer(*_: object, **__: object) -> SimpleNamespace:
    """Stands for the metadata server of a Google VM, which is known by its hardware's name as well."""
    return SimpleNamespace(status=404, headers={}, data=b"")
