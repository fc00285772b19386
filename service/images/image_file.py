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

from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageChops, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from service.errors import Problem, UnprocessableImage
from service.images.decode_work import DecodeWork
from service.images.image_formats import sniff
from service.images.jpeg_file import read_jpeg
from service.schema import MAX_PIXELS, MAX_SIDE_PX

# The smallest target has 512 MiB, of which the process, bodies and text take up to 340.
MAX_DECODE_BYTES = 144 * 2**20  # of memory, for an image
BIG_BYTES = 8 * 2**20  # images that take more, as files or decoded, are decoded one at a time
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # of a pixel in Pillow's memory; 4 in all other modes
WEBP_BYTES = 16  # of a pixel: libwebp's two canvases, Pillow's copy and the image; there is no reduced decoding
WEBP_COPIES = 3  # of the file
COEFFICIENT_BYTES = 2  # of a sample of a JPEG with several scans, which libjpeg holds until the last scan
MAX_TAGS = 512  # of EXIF that are looked through for the orientation; cameras write about 50
MAX_PNG_TEXTS = 64  # of a kind: Pillow inflates each to up to 1 MiB; a colour profile stands once in a file
PNG_TEXTS = (b"iCCP", b"iTXt", b"zTXt")  # the names of chunks that are compressed, beside the pixels
MIN_FILE_BYTES = 64  # every format has a byte 0 among its first so many
RLE_PIXEL_WEIGHT = 16  # Pillow decodes run-length encoded BMP in Python

# Imported here: Pillow would import each reader with the first request that needs it.
READERS = (PngImagePlugin, JpegImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin)

# MAX_PIXELS is checked on every header. Pillow's own limit would warn first and fail later.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION_TAG, _LONG = 0x0112, 4
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")

_one_big_image = threading.RLock()


@contextmanager
def open_image(data: bytes, draft_px: int, work: DecodeWork) -> Iterator[Image.Image]:
    """The image, its header read and its cost charged to `work`. Any exception inside becomes UnprocessableImage.

    draft_px: a JPEG may be decoded at a fraction of its size, but not smaller than this.
    """
    kind = sniff(data)
    size = len(data)
    try:
        if b"\0" not in data[:MIN_FILE_BYTES] and b"\0" not in data and size >= MIN_FILE_BYTES:
            lost = f"the {kind} image has lost its bytes 0, 10 and 13, as with `curl -d @FILE`"
            raise UnprocessableImage(f"{lost}; send it with `curl --data-binary @FILE`")
        if kind == "PNG" and max(map(data.count, PNG_TEXTS)) > MAX_PNG_TEXTS:
            found = f"the PNG has over {MAX_PNG_TEXTS} compressed texts or profiles"
            raise UnprocessableImage(f"{found}; save it again without its metadata")
        jpeg = read_jpeg(data) if kind == "JPEG" else None
        if jpeg:
            data = jpeg.data
        scans = max(1, len(jpeg.scans)) if jpeg else 1
        times = 2 if jpeg and jpeg.longer else 1
        work.add_bytes(size)  # the turn before the lock: in the other order two requests would wait for each other
        with _one_big(size), Image.open(_CountedFile(data, work), formats=[kind]) as image:
            check_size(*image.size)
            work.add_pixels(image.width * image.height * _pixel_weight(image), scans * times)
            whole_size = image.size
            image.draft(None, (draft_px, draft_px))  # only JPEG listens
            with _one_big(_decode_bytes(image, whole_size, scans, size)):
                if jpeg:
                    image.info |= jpeg.metadata
                if jpeg and jpeg.longer:
                    _check_complete(image, jpeg.longer, draft_px, work)
                _complete_transparency(image)
                yield image
    except Problem:
        raise
    except Exception as error:  # damaged files raise OSError, SyntaxError, struct.error and more
        found = f"the {kind} image of {size} bytes is damaged or cut short"  # Pillow's own words may quote the file
        raise UnprocessableImage(f"{found}; send the whole file, or save it again") from error


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


def _check_complete(image: Image.Image, longer_file: bytes, draft_px: int, work: DecodeWork) -> None:
    """Raises UnprocessableImage unless a JPEG without its end has the same pixels when it has more data."""
    with Image.open(_CountedFile(longer_file, work), formats=["JPEG"]) as longer:
        longer.draft(None, (draft_px, draft_px))
        if ImageChops.difference(image, longer).getbbox():
            raise UnprocessableImage("the JPEG image is cut short: it lacks pixels at its end; send the whole file")


def _complete_transparency(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG to the 8 bits that Pillow gives its pixels, but not that colour."""
    colour = image.info.get("transparency")
    tile = next(iter(getattr(image, "tile", ())), None)
    if image.format != "PNG" or colour is None or tile is None:
        return
    if tile[3] in ("L;2", "L;4"):
        image.info["transparency"] = colour * (85 if tile[3] == "L;2" else 17)
    elif tile[3] == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)
