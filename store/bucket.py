"""A store in a bucket of S3 or Google Cloud Storage, by obstore, which is imported only when it is used."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from service.errors import StoreError
from store.records import StoredFile

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSStore, RetryConfig, S3Store

T = TypeVar("T")

MAX_REQUEST = timedelta(hours=1)  # a large file over a slow line; obstore's own limit is 30 seconds
SILENCE = timedelta(minutes=1)  # from a server, before the request counts as failed
CONNECT = timedelta(seconds=5)
MAX_RETRIES = 3
MAX_REASON_CHARACTERS = 300
GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"

# What a message of obstore holds -> what that means, and what to do. The first that matches counts.
MEANINGS = {
    "NoSuchBucket": "there is no such bucket; create it, or check its name",
    "bucket does not exist": "there is no such bucket; create it, or check its name",
    "redirect without LOCATION": "the bucket is in another region; set AWS_REGION to it",
    "latest/api/token": "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install boto3, which "
    "reads AWS_PROFILE and ~/.aws (`make setup` does)",
    "computeMetadata": "no Google credentials; type `gcloud auth application-default login`, or set "
    "GOOGLE_APPLICATION_CREDENTIALS",
    "403 Forbidden": "access denied: the credentials may not do that there",
    "lacked valid authentication": "access denied: the credentials are wrong or have expired; log in again",
    "401 Unauthorized": "access denied: the credentials are wrong or have expired",
    "error sending request": "no connection; check the network, and AWS_ENDPOINT_URL or GOOGLE_BASE_URL if one is set",
}


class BucketBackend:
    """Objects below a prefix of a bucket."""

    def __init__(self, scheme: str, bucket: str, prefix: str):
        self.url = "/".join(filter(None, (f"{scheme}://{bucket}", prefix)))
        with self._one_line():
            self._store = (_s3_store if scheme == "s3" else _gcs_store)(bucket, prefix or None)

    def create(self, path: str, data: bytes) -> bool:
        from obstore import put
        from obstore.exceptions import AlreadyExistsError

        with self._one_line():
            try:
                # in one request: whole or not at all
                interruptible(lambda: put(self._store, path, data, mode="create", use_multipart=False))
            except AlreadyExistsError:
                return False
        return True

    def chunks(self, path: str) -> Iterator[bytes]:
        from obstore import get

        with self._one_line(missing=path):
            stream = iter(interruptible(lambda: get(self._store, path)).stream())
            while chunk := interruptible(lambda: next(stream, None)):
                yield bytes(chunk)

    def files(self, folder: str) -> list[StoredFile]:
        import obstore

        with self._one_line():
            found = interruptible(lambda: obstore.list(self._store, folder).collect())
        return sorted(
            (StoredFile(meta["path"], meta["size"], meta["last_modified"]) for meta in found),
            key=lambda file: file.path,
        )

    def folders(self, folder: str) -> list[str]:
        from obstore import list_with_delimiter

        with self._one_line():
            prefixes = interruptible(lambda: list_with_delimiter(self._store, folder or None))["common_prefixes"]
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)

    @contextmanager
    def _one_line(self, missing: str | None = None) -> Iterator[None]:
        """Raise StoreError for what obstore raises; FileNotFoundError for an object that is `missing`."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as error:
            text = str(error).partition("\n\nDebug source")[0]
            meaning = next((meaning for sign, meaning in MEANINGS.items() if sign in text), None)
            if meaning is None and missing and isinstance(error, FileNotFoundError):
                raise FileNotFoundError(missing) from None
            reason = meaning or " ".join(text.split())[:MAX_REASON_CHARACTERS]
            raise StoreError(f"{self.url}: {reason}") from None


def interruptible(call: Callable[[], T]) -> T:
    """What the call returns. Ctrl-C ends the wait for it at once: Python does not see it while obstore waits."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result()


def _options(endpoint: str | None) -> tuple[ClientConfig, RetryConfig]:
    """Of every request. Plain HTTP is for a server on this machine or the like, which somebody has named."""
    client: ClientConfig = {"timeout": MAX_REQUEST, "read_timeout": SILENCE, "connect_timeout": CONNECT}
    if (endpoint or "").startswith("http://"):
        client["allow_http"] = True
    return client, {"max_retries": MAX_RETRIES, "retry_timeout": timedelta(minutes=2)}


def _s3_store(bucket: str, prefix: str | None) -> S3Store:
    """With the credentials that AWS's tools would use, where boto3 is installed; else those that obstore finds."""
    from obstore.store import S3Store

    client, retry = _options(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
    options: dict[str, Any] = {}
    if "AWS_ACCESS_KEY_ID" not in os.environ and (provider := _boto3_credentials()):
        options["credential_provider"] = provider
    return S3Store(bucket, prefix=prefix, client_options=client, retry_config=retry, **options)


def _boto3_credentials() -> Any:
    """What reads profiles, SSO and what else boto3 knows; None where it is not installed, or finds nothing."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except (ImportError, ValueError):  # it finds none; obstore then says where it looked
        return None


def _gcs_store(bucket: str, prefix: str | None) -> GCSStore:
    """With the application default credentials, where google-auth is installed; else those that obstore finds."""
    from obstore.store import GCSStore

    client, retry = _options(os.environ.get("GOOGLE_BASE_URL"))
    options: dict[str, Any] = {}
    if "GOOGLE_SERVICE_ACCOUNT" not in os.environ and (provider := _google_credentials()):
        options["credential_provider"] = provider
    return GCSStore(bucket, prefix=prefix, client_options=client, retry_config=retry, **options)


def _google_credentials() -> Any:
    """What reads those of a workflow and of an impersonated account as well, which obstore does not; None as above."""
    try:
        from google.auth import default
        from google.auth.credentials import with_scopes_if_required
        from google.auth.exceptions import DefaultCredentialsError
        from obstore.auth.google import GoogleCredentialProvider
    except ImportError:
        return None
    logging.getLogger("google.auth").setLevel(logging.ERROR)  # a bucket needs no project, of which it warns
    try:
        with warnings.catch_warnings(action="ignore"):  # nor a quota project
            found = default()[0]  # with scopes it would ask Google for the project's name
        scoped: Any = with_scopes_if_required(found, [GOOGLE_SCOPE])
        return GoogleCredentialProvider(scoped)
    except DefaultCredentialsError:
        return None
