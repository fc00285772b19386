"""An image file's bytes -> an open Pillow image, at a cost that is bounded before it is paid.

Pillow trusts files: it reads as many segments, scans, tags and pixels as they claim. Here each of these is counted.
What has no influence on the pixels is not given to Pillow at all.
"""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import mul
from typing import Any

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from service.decode_work import DecodeWork
from service.errors import BadRequest, Problem, UnprocessableImage, Unsupported
from service.schema import MAX_PIXELS, MAX_SCANS, MAX_SIDE_PX

# The smallest target has 512 MiB, of which the process, bodies and text take up to 340.
MAX_DECODE_BYTES = 144 * 2**20  # of memory, for an image
BIG_BYTES = 8 * 2**20  # images that take more, as files or decoded, are decoded one at a time
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # of a pixel in Pillow's memory; 4 in all other modes
WEBP_BYTES = 16  # of a pixel: libwebp's two canvases, Pillow's copy and the image; there is no reduced decoding
WEBP_COPIES = 3  # of the file
COEFFICIENT_BYTES = 2  # of a sample of a JPEG with several scans, which libjpeg holds until the last scan
MAX_SEGMENTS = 4096  # of a JPEG; 16 MiB of colour profile are 260
MAX_TAGS = 512  # of EXIF that are looked through for the orientation; cameras write about 50
RLE_PIXEL_WEIGHT = 16  # Pillow decodes run-length encoded BMP in Python

# Imported here: Pillow would import each reader with the first request that needs it.
READERS = (PngImagePlugin, JpegImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin)

# MAX_PIXELS is checked on every header. Pillow's own limit would warn first and fail later.
Image.MAX_IMAGE_PIXELS = None

# JPEG's markers: 0xFF, then the code; 0xFF00 and restart markers are part of a scan's data
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_START, _END, _SCAN, _COMMENT, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0xFE, 0x01
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_METADATA = {*range(0xE1, 0xF0), _COMMENT} - {0xEE}  # all but JFIF's and Adobe's, which say how colours are coded

_ORIENTATION_TAG, _LONG = 0x0112, 4
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

_one_big_image = threading.RLock()


@contextmanager
def open_image(data: bytes, draft_px: int, work: DecodeWork) -> Iterator[Image.Image]:
    """The image, its header read and its cost charged to `work`. Any exception inside becomes UnprocessableImage.

    draft_px: a JPEG may be decoded at a fraction of its size, but not smaller than this.
    """
    kind = sniff(data)
    size = len(data)
    try:
        metadata: dict[str, Any] = {}
        scans = 1
        if kind == "JPEG":
            data, scans, metadata = _read_jpeg(data)
        with _one_big(size), Image.open(_CountedFile(data, work), formats=[kind]) as image:
            check_size(*image.size)
            work.add_pixels(image.width * image.height * _pixel_weight(image), scans)
            whole_size = image.size
            image.draft(None, (draft_px, draft_px))  # only JPEG listens
            with _one_big(_decode_bytes(image, whole_size, scans, size)):
                image.info |= metadata
                yield image
    except Problem:
        raise
    except Exception as error:  # damaged files raise OSError, SyntaxError, struct.error and more
        reason = "Pillow cannot identify it" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UnprocessableImage(f"the {kind} image of {size} bytes is damaged or cut short ({reason})") from error


def sniff(data: bytes) -> str:
    """The format's name, by the first bytes."""
    if not data:
        raise BadRequest("the image has 0 bytes; send a PNG, JPEG, WebP, GIF or BMP file")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    start = ascii(data[:8].decode("latin-1"))
    raise Unsupported(f"the {len(data)} bytes are no PNG, JPEG, WebP, GIF or BMP image; they begin with {start}")


def check_size(width: int, height: int) -> None:
    """Raises UnprocessableImage for too many pixels, or a side that is too long: each row of pixels costs memory."""
    if width * height > MAX_PIXELS:
        limit = f"at most {MAX_PIXELS / 1e6:g} million pixels are read"
        raise UnprocessableImage(f"the image is {width} x {height} pixels; {limit}, so scale it down")
    if max(width, height) > MAX_SIDE_PX:
        limit = f"sides of at most {MAX_SIDE_PX} pixels are read"
        raise UnprocessableImage(f"the image is {width} x {height} pixels; {limit}, so scale or crop it")


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or damaged data.

    Pillow's own reading of EXIF copies all that any tag points to, and tags may overlap.
    """
    info = image.info
    try:
        profile = info.get("Raw profile type exif")
        exif = info.get("exif") or (bytes.fromhex("".join(profile.split("\n")[3:])) if profile else b"")
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
        return _exif_orientation(exif) or _xmp_orientation(xmp.encode() if isinstance(xmp, str) else xmp) or 1
    except (struct.error, KeyError, ValueError, AttributeError, TypeError):
        return 1


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of tags. Raises struct.error or KeyError for damaged data."""
    if not exif:
        return None
    tiff = memoryview(exif)[6:] if exif.startswith(b"Exif\0\0") else memoryview(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(tiff[:4])]
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for position in range(start + 2, start + 2 + 12 * min(count, MAX_TAGS), 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, position)
        if tag == _ORIENTATION_TAG:
            return struct.unpack_from(f"{order}I" if kind == _LONG else f"{order}H", tiff, position + 8)[0]
    return None


def _xmp_orientation(xmp: bytes) -> int | None:
    match = _XMP_ORIENTATION.search(xmp)
    return int(match[1]) if match else None


def _one_big(needed_bytes: int) -> AbstractContextManager[object]:
    """Where much memory is needed, one thread at a time; it may enter twice."""
    return _one_big_image if needed_bytes > BIG_BYTES else nullcontext()


def _decode_bytes(image: Image.Image, whole_size: tuple[int, int], scans: int, file_bytes: int) -> int:
    """The memory that decoding takes. Raises UnprocessableImage when it is too much."""
    width, height = whole_size
    needed, cure = image.width * image.height * MODE_BYTES.get(image.mode, 4), "scale it down"
    if image.format == "WEBP":
        needed, cure = width * height * WEBP_BYTES + WEBP_COPIES * file_bytes, "scale it down, or send a JPEG or PNG"
    elif isinstance(image, JpegImagePlugin.JpegImageFile) and scans > 1:
        _, across, down, _ = zip(*image.layer, strict=True)  # the sampling factors of each component
        samples = sum(map(mul, across, down)) / (max(across) * max(down))
        needed += int(width * height * samples * COEFFICIENT_BYTES)
        cure = "scale it down, or save it with one scan (not progressive)"
    if needed > MAX_DECODE_BYTES:
        found = f"the {image.format} image of {width} x {height} pixels takes {needed / 2**20:.0f} MiB to decode"
        raise UnprocessableImage(f"{found}; at most {MAX_DECODE_BYTES // 2**20} MiB are given to an image, so {cure}")
    return needed


class _CountedFile(io.BytesIO):
    """A file whose reads are charged: every loop of Pillow's readers reads."""

    def __init__(self, data: bytes, work: DecodeWork):
        super().__init__(data)
        self._work = work

    def read(self, size: int | None = -1, /) -> bytes:
        self._work.add_read()
        return super().read(size)


def _pixel_weight(image: Image.Image) -> int:
    """How many plain pixels one of this file's pixels costs."""
    tile = next(iter(getattr(image, "tile", ())), None)  # WebP has none
    if tile is None:
        return 1
    if tile[0] == "bmp_rle":
        return RLE_PIXEL_WEIGHT
    return 2 if "16" in str(tile[3]) else 1  # 16 bits a channel, by Pillow's "RGB;16B"


def _read_jpeg(data: bytes) -> tuple[bytes, int, dict[str, bytes]]:
    """The file up to its end marker without its metadata, its scans, and what may hold the orientation.

    Follows segments by their lengths, as libjpeg does, so that no marker can be hidden from it.
    """
    kept, kept_until, position, scans, segments = [], 0, 2, 0, 0
    metadata: dict[str, bytes] = {}
    end = len(data)
    while marker := _JPEG_MARKER.search(data, position):
        position, code = marker.end(), marker[1][0]
        if code == _END:
            end = position
            break
        if code in (_START, _TEMPORARY):  # without a length
            continue
        segments += 1
        if segments > MAX_SEGMENTS:
            raise UnprocessableImage(f"the JPEG has over {MAX_SEGMENTS} segments; save it again without its metadata")
        if code in _ARITHMETIC:
            raise UnprocessableImage("the JPEG is arithmetic-coded, which is not read; save it with Huffman coding")
        start, position = position + 2, position + int.from_bytes(data[position : position + 2])
        if code == _SCAN:
            scans += 1
        elif code in _METADATA and not scans:
            _keep_orientation(metadata, data[start:position])
            kept.append(data[kept_until : marker.start()])
            kept_until = position
    if scans > MAX_SCANS:
        raise UnprocessableImage(f"the JPEG has {scans} scans; at most {MAX_SCANS} are read, so save it again")
    if not kept and end == len(data):
        return data, max(1, scans), metadata
    return b"".join([*kept, data[kept_until:end]]), max(1, scans), metadata


def _keep_orientation(metadata: dict[str, bytes], segment: bytes) -> None:
    """Keep the first EXIF and the first XMP segment."""
    for name, prefix in (("exif", b"Exif\0\0"), ("xmp", b"http://ns.adobe.com/xap/1.0/\0")):
        if segment.startswith(prefix):
            metadata.setdefault(name, segment.removeprefix(prefix))
