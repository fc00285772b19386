"""Image bytes -> the network's input. Knows nothing of torch or HTTP.

The bytes decide what an image is, not its name or declared type. Whatever a client sends ends in an array or in a
Problem that says what is wrong and what to send instead.
"""

from __future__ import annotations

import base64
import binascii
import io
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from service.decode_work import DecodeWork
from service.errors import BadRequest, UnprocessableImage
from service.image_file import check_size, open_image, orientation, sniff
from service.model import Bundle
from service.schema import IMAGE_PART, IMAGE_TYPES, PIXELS_KEY

RESIZE = Image.Resampling.BICUBIC  # Pillow widens the filter when it shrinks, so that nothing aliases
DRAFT_FACTOR = 4  # a JPEG is decoded at a fraction of its size, but never below this many times what is needed
PREVIEW_PX = 320  # longest side of a preview
PREVIEW_BYTES = 32 * 1024  # smaller files are their own preview

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

    The upright centre square is resized to S; an image that is S x S already keeps every bit. `work`: the budget of a
    request; without it, one image's.
    """
    with open_image(data, bundle.size_px * DRAFT_FACTOR, work or DecodeWork()) as image:
        small = _square(_resizable(image), bundle.size_px)
    return normalise(np.asarray(small), bundle)


def read_base64(text: Any, bundle: Bundle, work: DecodeWork | None = None) -> np.ndarray:
    """The same for an image in base64."""
    if not isinstance(text, str) or not text:
        raise BadRequest(f'"{IMAGE_PART}" must be the image in base64, as a non-empty string')
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "send standard base64 with padding, without line breaks or a data: prefix"
        raise UnprocessableImage(f'"{IMAGE_PART}" is not base64 ({error}); {hint}') from None
    return decode_image(data, bundle, work)


def read_pixels(rows: Any, bundle: Bundle) -> np.ndarray:
    """The same for nested lists [height][width][r, g, b] of numbers from 0 to 255."""
    wanted = f'"{PIXELS_KEY}" must be lists [height][width][r, g, b] of numbers from 0 to 255'
    try:
        pixels = np.array(rows)
    except (ValueError, OverflowError):
        raise UnprocessableImage(f"{wanted}; its rows or pixels differ in length") from None
    if pixels.dtype.kind not in "iuf":
        raise UnprocessableImage(f"{wanted}; it holds something that is not a number of that range")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UnprocessableImage(f"{wanted}; its shape is {list(pixels.shape)}")
    if bool in set(map(type, chain.from_iterable(chain.from_iterable(rows)))):  # among numbers NumPy reads true as 1
        raise UnprocessableImage(f"{wanted}; it holds true or false")
    check_size(pixels.shape[1], pixels.shape[0])
    invalid = pixels[~((pixels >= 0) & (pixels <= 255))]  # NaN fails both comparisons
    if invalid.size:
        raise UnprocessableImage(f"{wanted}; it holds {invalid.flat[0]:g}")
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    return normalise(np.asarray(_square(image, bundle.size_px)), bundle)


def normalise(pixels: np.ndarray, bundle: Bundle) -> np.ndarray:
    """uint8 [S, S, 3] -> float32 [3, S, S]: scaled to 0..1, minus the mean, over the standard deviation."""
    scale, offset = _line(bundle.mean, bundle.std)
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
            image = _resizable(image)
            scale = min(1.0, PREVIEW_PX / max(image.size))
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            small = _upright(image.resize(size, RESIZE, reducing_gap=2.0) if scale < 1 else image)
        buffer = io.BytesIO()
        _flat(small).save(buffer, "JPEG", quality=85)
        data, media_type = buffer.getvalue(), "image/jpeg"
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _resizable(image: Image.Image) -> Image.Image:
    """Decoded, in a mode whose values can be averaged: a palette's numbers and single bits cannot."""
    image.load()
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        values = np.divide(np.asarray(image), 257, dtype=np.float32)
        grey = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
        grey.info = image.info
        return grey
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB") if image.mode in ("1", "P") else image


def _square(image: Image.Image, side: int) -> Image.Image:
    """The centre square at that size: upright, RGB, on white where it was transparent."""
    if image.size != (side, side):
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        image = image.resize((side, side), RESIZE, (left, top, left + short, top + short), reducing_gap=2.0)
    return _flat(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    """Rotated by its EXIF orientation. Damaged EXIF data is ignored."""
    transposition = TRANSPOSITIONS.get(orientation(image))
    return image if transposition is None else image.transpose(transposition)


def _flat(image: Image.Image) -> Image.Image:
    """RGB, transparent parts on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")
