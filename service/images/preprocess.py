"""Image bytes -> the network's input. Knows nothing of torch or HTTP.

The bytes decide what an image is, not its name or declared type. Whatever a client sends ends in an array or in a
Problem that says what is wrong and what to send instead.
"""

from __future__ import annotations

import base64
import io
import math
import re
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from service.errors import BadRequest, UnprocessableImage
from service.images.decode_work import DecodeWork
from service.images.image_file import check_size, open_image, orientation
from service.images.image_formats import sniff
from service.manifest.records import ImageInput
from service.model import Bundle
from service.schema import IMAGE_PART, IMAGE_TYPES, PIXELS_KEY

RESIZE = Image.Resampling.BICUBIC  # Pillow widens the filter when it shrinks, so that nothing aliases
REDUCING_GAP = 2.0  # an image is averaged to at least this many times its new size, before it is resized with RESIZE
MARGIN = 1.5  # how far beyond a box pixels are averaged, in pixels of the new size
BAND_PIXELS = 2**18  # of an image that are converted at once
DRAFT_FACTOR = 4  # a JPEG is decoded at a fraction of its size, but never below this many times what is needed
DARKEST_MAX = 2  # lists without a value of this or more are taken for fractions, which may exceed 1 a little
PREVIEW_PX = 320  # longest side of a preview
PREVIEW_BYTES = 32 * 1024  # smaller files are their own preview

_URL_SAFE = b"-_"
# With blanks around it, as in an indented file. Those before it count from their first one, and are gone through once.
_LINE_BREAK = re.compile(r"(?:(?<![ \t])[ \t]++)?[\r\n]+[ \t]*")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/_-]")

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, bundle: Bundle, work: DecodeWork | None = None) -> np.ndarray:
    """An encoded image -> float32 [3, S, S], normalised. Raises Problem.

    The upright centre square is resized to the bundle's resize_px, and its middle is taken; an image that is S x S
    already keeps every bit where that is S as well. `work`: the budget of a request; without it, one image's.
    """
    with open_image(data, bundle.image.resize_px * DRAFT_FACTOR, work or DecodeWork()) as image:
        _load(image)
        small = _square(image, bundle.image)
    return normalise(np.asarray(small), bundle)


def read_base64(text: Any, bundle: Bundle, work: DecodeWork | None = None) -> np.ndarray:
    """The same for an image in base64."""
    return decode_image(base64_file(text), bundle, work)


def base64_file(text: Any) -> bytes:
    """The file of an image in base64. Raises Problem."""
    if not isinstance(text, str) or not text:
        cure = f'; pixels as lists are sent as "{PIXELS_KEY}"' if isinstance(text, list) else ""
        raise BadRequest(f'"{IMAGE_PART}" must be the image in base64, as a non-empty string{cure}')
    return _base64_bytes(text)


def _base64_bytes(text: str) -> bytes:
    """The bytes of standard or URL-safe base64, with or without line breaks, padding and a data: prefix."""
    if text[:5].lower() == "data:":
        prefix, comma, text = text.partition(",")
        if not comma or not prefix.lower().endswith(";base64"):
            raise UnprocessableImage(f'"{IMAGE_PART}" is a data: URI that is not in base64; encode it in base64')
    if any(space in text for space in "\n\r\t "):
        text = _LINE_BREAK.sub("", text.strip())
    digits = text.rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), _URL_SAFE, validate=True)
    except ValueError:  # binascii.Error is one
        raise UnprocessableImage(f'"{IMAGE_PART}" is not base64: {_base64_fault(digits)}') from None


def _base64_fault(digits: str) -> str:
    """What is wrong with text that cannot be decoded, and what to do."""
    invalid = _NOT_BASE64.search(digits)
    if invalid is None:
        return f"{len(digits)} digits are no whole number of bytes, so it is cut short; send all of it"
    if digits.startswith(("b'", 'b"')):
        return "it begins as Python writes bytes; send base64.b64encode(data).decode()"
    cure = "send JSON in which a '+' stays a '+'" if invalid[0] == " " else "send the file's bytes in base64"
    return f"it has {invalid[0]!a} at character {invalid.start()}; {cure}"


def read_pixels(rows: Any, bundle: Bundle) -> np.ndarray:
    """The same for nested lists [height][width][r, g, b] of numbers from 0 to 255."""
    wanted = f'"{PIXELS_KEY}" must be lists [height][width][r, g, b] of numbers from 0 to 255'
    if isinstance(rows, str):
        raise UnprocessableImage(f'{wanted}; it is a string, and base64 is sent as "{IMAGE_PART}"')
    if _value_types(rows) - {int, float, bool}:  # of texts NumPy would make an array as wide as the longest
        raise UnprocessableImage(f"{wanted}; it holds something that is not a number of that range")
    try:
        pixels = np.array(rows)
    except (ValueError, OverflowError):
        raise UnprocessableImage(f"{wanted}; its rows or pixels differ in length") from None
    if pixels.dtype.kind not in "iuf":
        raise UnprocessableImage(f"{wanted}; it holds something that is not a number of that range")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UnprocessableImage(f"{wanted}; its shape is {list(pixels.shape)}{_shape_cure(pixels.shape)}")
    if bool in set(map(type, chain.from_iterable(chain.from_iterable(rows)))):  # among numbers NumPy reads true as 1
        raise UnprocessableImage(f"{wanted}; it holds true or false")
    check_size(pixels.shape[1], pixels.shape[0])
    invalid = pixels[~((pixels >= 0) & (pixels <= 255))]  # NaN fails both comparisons
    if invalid.size:
        raise UnprocessableImage(f"{wanted}; it holds {invalid.flat[0]:g}{_range_cure(pixels)}")
    if 0 < pixels.max() < DARKEST_MAX:
        found = f"its largest is {pixels.max():g}, as where they are from 0 to 1"
        raise UnprocessableImage(f"{wanted}; {found}, so multiply them by 255")
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    return normalise(np.asarray(_square(image, bundle.image)), bundle)


def _value_types(rows: Any) -> set[type]:
    """Of all that is in lists, however deep."""
    types, level = set[type](), [rows]
    while level:
        types.update(map(type, level))
        level = list(chain.from_iterable(value for value in level if isinstance(value, list)))
    return types - {list}


def _shape_cure(shape: tuple[int, ...]) -> str:
    """What to change in lists of another shape."""
    match shape:
        case (1, _, _, _):
            return ", a batch; send its one image without the outer list"
        case (_, _, _, _):
            return ", a batch; send one image in each request"
        case (3, _, _):
            return ", with channels first; move them last, as by transpose(1, 2, 0)"
        case (_, _, 4):
            return ", with four channels; leave the fourth out"
        case (_, _, 1) | (_, _):
            return ", as of grey; send each value three times"
    return ""


def _range_cure(pixels: np.ndarray) -> str:
    """What to change in numbers of another range."""
    low, high = pixels.min(), pixels.max()  # NaN if there is one
    if -10 <= low < 0 and high <= 10:
        return ", as of normalised pixels; send them as they were before that"
    if low >= 0 and 255 < high <= 65535:
        return ", as of 16 bits a channel; divide all by 257"
    return ""


def normalise(pixels: np.ndarray, bundle: Bundle) -> np.ndarray:
    """uint8 [S, S, 3] -> float32 [3, S, S]: scaled to 0..1, minus the mean, over the standard deviation."""
    scale, offset = _line(bundle.image.mean, bundle.image.std)
    scaled = np.multiply(pixels.transpose(2, 0, 1), scale, dtype=np.float32, order="C")
    scaled += offset
    return scaled


@cache
def _line(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What a pixel of each channel is multiplied by, and what is added. float32 [3, 1, 1] each."""
    means, stds = (np.array(values).reshape(3, 1, 1) for values in (mean, std))
    return (1 / (255 * stds)).astype(np.float32), (-means / stds).astype(np.float32)


def preview_uri(data: bytes, work: DecodeWork | None = None) -> str:
    """An image that decode_image accepts, as a data URI small enough for a page."""
    media_type = {name: media for media, name in IMAGE_TYPES.items()}[sniff(data)]
    if len(data) > PREVIEW_BYTES:
        with open_image(data, PREVIEW_PX, work or DecodeWork()) as image:
            _load(image)
            scale = min(1.0, PREVIEW_PX / max(image.size))
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            small = _upright(resized(image, size, (0, 0, *image.size)), orientation(image))
        buffer = io.BytesIO()
        _flat(small).save(buffer, "JPEG", quality=85)
        data, media_type = buffer.getvalue(), "image/jpeg"
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _load(image: Image.Image) -> None:
    """Decode it, and make transparent what browsers show so, or opaque."""
    tile = next(iter(getattr(image, "tile", ())), None)
    frame = tile.extents if tile and image.format == "GIF" else (0, 0, *image.size)
    image.load()
    if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        image.putalpha(255)  # many programs leave the fourth byte empty
    if frame != (0, 0, *image.size) and "transparency" not in image.info and 0 in image.histogram():
        unused = image.histogram().index(0)  # Pillow fills what the frame leaves out with the palette's first colour
        left, top, right, bottom = frame
        width, height = image.size
        for box in ((0, 0, width, top), (0, bottom, width, height), (0, 0, left, height), (right, 0, width, height)):
            image.paste(unused, box)
        image.info["transparency"] = unused


def _square(image: Image.Image, target: ImageInput) -> Image.Image:
    """The middle of the centre square: upright, RGB, on white where it was transparent."""
    side, short = target.resize_px, min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = resized(image, (side, side), (left, top, left + short, top + short))
    square = _flat(_upright(square, orientation(image)))
    if side == target.size_px:
        return square
    start = (side - target.size_px) // 2
    return square.crop((start, start, start + target.size_px, start + target.size_px))


def resized(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A box of the image at that size, as Pillow's own resize with a reducing_gap has it.

    Band by band: the whole image converted, or with its colours multiplied by alpha, would be a copy or two of it.
    """
    if image.size == size:
        return _averageable(image)
    scales = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    factor_x, factor_y = (int(scale / REDUCING_GAP) or 1 for scale in scales)
    if factor_x == factor_y == 1:
        return _averageable(image).resize(size, RESIZE, box)
    reach_x, reach_y = (MARGIN * scale for scale in scales)
    left, right = max(0, int(box[0] - reach_x)), min(image.width, math.ceil(box[2] + reach_x))
    top, bottom = max(0, int(box[1] - reach_y)), min(image.height, math.ceil(box[3] + reach_y))
    step = factor_y * max(1, BAND_PIXELS // (factor_y * (right - left)))
    bands = []
    for start in range(top, bottom, step):
        band = _averageable(image.crop((left, start, right, min(start + step, bottom))))
        bands.append((band.convert("RGBa") if band.mode == "RGBA" else band).reduce((factor_x, factor_y)))
    small = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for index, band in enumerate(bands):
        small.paste(band, (0, index * bands[0].height))
    edges = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    inner = (edges[0] / factor_x, edges[1] / factor_y, edges[2] / factor_x, edges[3] / factor_y)
    small = small.resize(size, RESIZE, inner)
    return small.convert("RGBA") if small.mode == "RGBa" else small


def _averageable(image: Image.Image) -> Image.Image:
    """In a mode whose values can be averaged: a palette's numbers and single bits cannot."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        values = np.divide(np.asarray(image), 257, dtype=np.float32)
        grey = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
        transparent = image.info.get("transparency")
        if transparent is None:
            return grey
        grey.putalpha(Image.fromarray(np.asarray(image) != transparent))
        return grey.convert("RGBA")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image.convert("RGB") if image.mode in ("1", "P") else image


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Rotated by its EXIF orientation."""
    transposition = TRANSPOSITIONS.get(orientation)
    return image if transposition is None else image.transpose(transposition)


def _flat(image: Image.Image) -> Image.Image:
    """RGB, transparent parts on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")
