"""A request's body -> images. Three forms: multipart parts, the raw image, JSON."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from service.classifier import Classifier
from service.errors import BadRequest, Problem, TooLarge, UnknownParameter, Unsupported, quoted, quoted_start
from service.images.decode_work import DecodeWork
from service.images.image_formats import image_format, looks_like_json
from service.images.preprocess import base64_file, decode_image, preview_uri, read_pixels
from service.model import Bundle
from service.schema import (
    IMAGE_PART,
    JSON_TYPE,
    MAX_BATCH_IMAGES,
    MAX_PIXEL_LIST_BYTES,
    PIXELS_KEY,
    PREDICT_BATCH,
    PROBABILITIES,
)
from service.tabular.rows import looks_like_rows
from service.web.middleware import MULTIPART, too_large

JSON_STRUCTURE = (b"[", b"{", b",", b":", b'"')  # base64 holds none of them
MAX_JSON_STRUCTURE = 64  # of a long body; an object with one key needs six
COMPRESSIONS = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
URL_ENCODED = "application/x-www-form-urlencoded"
UNTYPED = ("", "application/octet-stream")  # no type: the bytes decide
SAMPLE_FIELD = "sample"  # of the page without its script
FORMS = f"send a {MULTIPART} part {IMAGE_PART!r}, the image's bytes as an image/* body, or JSON"


class InMemoryRequest(Request):
    """Keeps the files of a form in memory, where its body is: Werkzeug writes those over 500 kB to temporary files."""

    def make_form_data_parser(self) -> FormDataParser:
        return FormDataParser(
            lambda *_, **__: io.BytesIO(),
            max_form_memory_size=self.max_form_memory_size,
            max_content_length=self.max_content_length,
            max_form_parts=self.max_form_parts,
            cls=self.parameter_storage_class,
        )


@dataclass(frozen=True)
class ImageUpload:
    """An uploaded image."""

    pixels: np.ndarray  # the network's input
    encoded: bytes | None  # its file, None when it came as lists of pixels

    def preview(self, work: DecodeWork) -> str | None:
        """A data URI for the page."""
        return preview_uri(self.encoded, work) if self.encoded else None


def read_body(request: Request) -> None:
    """Read the whole body and cache it. Raises Problem when it is incomplete or over the limit.

    A body may be shorter than its declared length, and one of undeclared length is cut at the limit. The server
    reports neither, so both are checked here.
    """
    declared = request.content_length
    try:
        size = len(request.get_data())
        if declared is None:
            request.stream.read(1)  # at the limit this raises RequestEntityTooLarge
    except RequestEntityTooLarge:
        raise too_large() from None
    except HTTPException:
        raise
    except Exception as error:  # servers differ in what they raise for a bad chunk or a lost connection
        raise BadRequest(f"the body is incomplete ({type(error).__name__}); send it again") from error
    if size < (declared or 0):
        raise BadRequest(f"the body ended after {size} of {declared} bytes; send it again")


def check_query(request: Request) -> None:
    """Raises UnknownParameter for a query that would else be ignored."""
    for name, values in request.args.lists():
        if name != PROBABILITIES:
            raise UnknownParameter(
                f"the query parameter {quoted(name)} is not understood; the only one is {PROBABILITIES}=1"
            )
        if values not in (["0"], ["1"]):
            raise UnknownParameter(
                f"the query has {PROBABILITIES}={quoted(','.join(values))}; use {PROBABILITIES}=1 or =0"
            )


def check_encoding(request: Request) -> None:
    """Raises Unsupported for a compressed body."""
    encoding = request.environ.get("HTTP_CONTENT_ENCODING", "")
    if encoding.lower() in COMPRESSIONS:
        raise Unsupported(
            f"the body has Content-Encoding {quoted(encoding)}, which is not undone; send it uncompressed"
        )


def parse_image(request: Request, bundle: Bundle, work: DecodeWork, samples: Mapping[str, bytes]) -> ImageUpload:
    """The image of a single prediction, in any of the three forms; a form may name a sample instead. Raises Problem."""
    work.add_bytes(len(request.get_data()))
    kind = request.mimetype
    if kind == MULTIPART:
        if sample := samples.get(request.form.get(SAMPLE_FIELD, "")):
            return ImageUpload(decode_image(sample, bundle, work), sample)
        parts = _parts(request)
        if len(parts) > 1:
            raise TooLarge(f"{len(parts)} parts {IMAGE_PART!r}; post one, or post them all to {PREDICT_BATCH}")
        return ImageUpload(decode_image(parts[0][1], bundle, work), parts[0][1])
    if kind == JSON_TYPE:
        return _from_json(request.get_data(), bundle, work)
    data = request.get_data()
    if kind not in UNTYPED and not kind.startswith("image/"):
        raise Unsupported(f"a body of type {quoted(kind)} is not read; {_type_cure(kind, data)}")
    if not data:
        raise BadRequest(f"the body is empty; {FORMS}")
    return ImageUpload(decode_image(data, bundle, work), data)


def _type_cure(kind: str, data: bytes) -> str:
    """What to send in place of a body of this type."""
    if kind.endswith(("/json", "+json")) or looks_like_json(data):
        return f"send the JSON with Content-Type: {JSON_TYPE}"
    if kind == URL_ENCODED:
        return f"`curl -d` sends that, so use `curl -F {IMAGE_PART}=@FILE`, or {FORMS}"
    return FORMS


def parse_images(request: Request, classifier: Classifier, work: DecodeWork) -> list[ImageUpload]:
    """The images of a batch, in order. Raises Problem that names the part, or QueueFull before any is decoded."""
    work.add_bytes(len(request.get_data()))
    if request.mimetype != MULTIPART:
        wanted = f"{MULTIPART} with parts {IMAGE_PART!r}"
        if not request.get_data():
            raise BadRequest(f"the body is empty; send {wanted}")
        raise Unsupported(f"a batch of type {quoted(request.mimetype)} is not read; send {wanted}")
    parts = _parts(request)
    if len(parts) > MAX_BATCH_IMAGES:
        raise TooLarge(f"{len(parts)} parts {IMAGE_PART!r}; send at most {MAX_BATCH_IMAGES} in one request")
    classifier.begin_batch(work, len(parts))
    bundle = classifier.bundle
    return [_decode_part(f"part {i} ({quoted(name)})", data, bundle, work) for i, (name, data) in enumerate(parts, 1)]


def _decode_part(name: str, data: bytes, bundle: Bundle, work: DecodeWork) -> ImageUpload:
    try:
        return ImageUpload(decode_image(data, bundle, work), data)
    except Problem as problem:
        problem.detail = f"{name}: {problem.detail}"
        raise


def _parts(request: Request) -> list[tuple[str, bytes]]:
    """File name and bytes of every image part; a browser sends an empty one when no file was chosen."""
    files = [(file.filename or "", file.read()) for file in request.files.getlist(IMAGE_PART)]
    parts = [(name, data) for name, data in files if name or data]
    if not parts:
        raise BadRequest(_form_fault(request))
    return parts


def form_too_large() -> TooLarge:
    """What is wrong when Werkzeug refuses a form whose body is within the limit."""
    found = "the form has over 500 kB of text, or over 1000 parts"
    return TooLarge(f"{found}; send images as files, with a filename, and each as a part {IMAGE_PART!r}")


def _form_fault(request: Request) -> str:
    """Why a form has no image, and what to do. Parsing ends without a word where the form is malformed."""
    boundary, body = request.mimetype_params.get("boundary", ""), request.get_data()
    if not boundary:
        return f"the Content-Type {MULTIPART} has no boundary; do not set it yourself, the HTTP client does it"
    if not body:
        return f"the form is empty; send the image as a part {IMAGE_PART!r}, with a filename"
    delimiter = b"--" + boundary.encode("latin-1", "replace")
    if not re.search(re.escape(delimiter) + rb"(--|[ \t]*\r?\n)", body):
        start = f" begins with {text} and" if (text := quoted_start(body)) else ""
        found = f"the form{start} has nowhere the boundary {quoted(boundary)} of its Content-Type"
        return f"{found}; let the HTTP client set both"
    if delimiter + b"--" not in body:
        return (
            f"the form breaks off after {len(body)} bytes, without its end {quoted(f'--{boundary}--')}; send all of it"
        )
    if IMAGE_PART in request.form:
        cure = f"send the image's bytes with a filename, as `curl -F {IMAGE_PART}=@FILE` does"
        return f"the part {IMAGE_PART!r} is text; {cure}"
    names = {*request.files, *request.form} - {IMAGE_PART}
    others = quoted(sorted(name or "without a name" for name in names))  # None where Werkzeug finds no name
    found = f"the form has no file in a part {IMAGE_PART!r}" + (f", only parts {others}" if names else "")
    return f"{found}; choose an image and send it as that part, with a filename"


def _from_json(text: bytes, bundle: Bundle, work: DecodeWork) -> ImageUpload:
    wanted = f'send {{"{IMAGE_PART}": "<base64>"}} or {{"{PIXELS_KEY}": [[[r, g, b], ...], ...]}}'
    check_structure(text, MAX_JSON_STRUCTURE)
    try:
        body: Any = json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        if kind := image_format(text):
            raise BadRequest(f"the body is a {kind} file and not JSON; send it with Content-Type: image/*") from None
        raise BadRequest(f"the body is not JSON ({error}); {wanted}") from None
    if looks_like_rows(body):
        raise Unsupported(f"this model takes images, not rows of numbers; {wanted}")
    if not isinstance(body, dict) or (IMAGE_PART in body) == (PIXELS_KEY in body):
        received = f"an object with {quoted(sorted(body))}" if isinstance(body, dict) else f"{type(body).__name__}"
        raise BadRequest(f"the JSON body is {received if text else 'empty'}; {wanted}")
    if unknown := sorted(body.keys() - {IMAGE_PART, PIXELS_KEY}):
        raise UnknownParameter(f"the JSON body has {quoted(unknown)}, which is not understood; leave it out")
    if IMAGE_PART in body:
        file = base64_file(body[IMAGE_PART])
        return ImageUpload(decode_image(file, bundle, work), file)
    return ImageUpload(read_pixels(body[PIXELS_KEY], bundle), None)


def check_structure(text: bytes, most: int) -> None:
    """Raise TooLarge for a long body of many values: each takes 50 times its bytes, and parsing holds the GIL."""
    if len(text) > MAX_PIXEL_LIST_BYTES and sum(map(text.count, JSON_STRUCTURE)) > most:
        limit = f"pixels as lists may be at most {MAX_PIXEL_LIST_BYTES // 2**20} MiB of JSON"
        raise TooLarge(f"the JSON body has {len(text)} bytes; {limit}, so send the image as a file or in base64")
