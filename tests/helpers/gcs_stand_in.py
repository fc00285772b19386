"""A stand-in for Google Cloud Storage, of this project's own: no emulator that anybody vouches for.

It answers the four requests of its XML API that obstore sends for a store (put an object that is not there, get one,
list a prefix, list a folder), as Google's documentation describes them; not those of the JSON API, and no credentials
are checked. What it keeps is gone when it ends.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE_KEYS = 3  # of a list; Google's own is 1,000


class _Objects(ThreadingHTTPServer):
    """The objects of one bucket."""

    daemon_threads = True

    def __init__(self, bucket: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket = bucket
        self.objects: dict[str, tuple[bytes, str, datetime]] = {}  # by name: content, ETag, time
        self.lock = threading.Lock()

    def handle_error(self, request, client_address) -> None:
        pass  # clients may leave


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "cloudtrial-gcs-stand-in"
    server: _Objects

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        data = self.rfile.read(length)
        if len(data) < length or (key := self._key()) is None:  # the client has died
            return
        with self.server.lock:
            if self.headers.get("x-goog-if-generation-match") == "0" and key in self.server.objects:
                return self._error(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
            self.server.objects[key] = (data, etag := _etag(data), datetime.now(UTC))
        self._answer(200, b"", {"ETag": etag, "x-goog-generation": "1"})

    def do_GET(self) -> None:
        key = self._key()
        if key is None:
            return
        if not key:
            return self._list({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})
        if key not in self.server.objects:
            return self._error(404, "NoSuchKey", "The specified key does not exist.")
        data, etag, modified_at = self.server.objects[key]
        modified = format_datetime(modified_at, usegmt=True)
        self._answer(200, data, {"ETag": etag, "x-goog-generation": "1", "Last-Modified": modified})

    def _key(self) -> str | None:
        """The object's name, empty for the bucket itself; None where that is not there, which is answered."""
        bucket, _, key = urlsplit(self.path).path.removeprefix("/").partition("/")
        if bucket != self.server.bucket:
            return self._error(404, "NoSuchBucket", "The specified bucket does not exist.")
        return unquote(key)

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter, after = query.get("prefix", ""), query.get("delimiter"), query.get("continuation-token", "")
        found: dict[str, str] = {}  # a key or a common prefix -> its entry
        for key, (data, etag, modified_at) in sorted(self.server.objects.items()):
            if not key.startswith(prefix):
                continue
            first, mark, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if mark:
                folder = f"{prefix}{first}{mark}"
                found[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            else:
                found[key] = (
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{escape(etag)}</ETag>"
                    f"<LastModified>{modified_at:%Y-%m-%dT%H:%M:%S.%fZ}</LastModified></Contents>"
                )
        names = [name for name in sorted(found) if name > after]
        more = (
            f"<NextContinuationToken>{escape(names[PAGE_KEYS - 1])}</NextContinuationToken>"
            if names[PAGE_KEYS:]
            else ""
        )
        entries = "".join(found[name] for name in names[:PAGE_KEYS])
        self._answer(200, f"<ListBucketResult>{entries}{more}</ListBucketResult>".encode(), {})

    def _error(self, status: int, code: str, message: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode(), {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def gcs_stand_in(bucket: str, folder: Path) -> Iterator[dict[str, str]]:
    """Serves a bucket. Yields what lets obstore find it without credentials, one of which is a file in the folder."""
    with _Objects(bucket) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": ""}
        path = folder / "no_account.json"
        path.write_text(json.dumps(account | {"private_key_id": ""}), encoding="utf-8")
        try:
            yield {"GOOGLE_BASE_URL": url, "GOOGLE_SERVICE_ACCOUNT": str(path)}
        finally:
            server.shutdown()
