import base64
import gzip
import io
import json
import random
import struct
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.errors import BadRequest, Problem, UnprocessableImage, Unsupported
from service.images.preprocess import PREVIEW_PX, decode_image, preview_uri, read_base64, read_pixels, resized
from service.manifest.records import ImageInput
from service.model import Bundle
from service.schema import IMAGE_TYPES, MAX_PIXELS
from tests.conftest import picture_bytes
from tests.helpers.running_service import png_of

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BUNDLE = Bundle(Path(), "test", ("a", "b"), ImageInput(32, 32, MEAN, STD), {}, {})
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def seen(array: np.ndarray) -> np.ndarray:
    """The uint8 [S, S, 3] pixels that a network input stands for."""
    assert array.shape == (3, 32, 32)
    assert array.dtype == np.float32
    pixels = array.transpose(1, 2, 0) * np.array(STD) * 255 + np.array(MEAN) * 255
    return np.rint(pixels).astype(int)


def look(data: bytes) -> np.ndarray:
    return seen(decode_image(data, BUNDLE))


def encode(image: Image.Image, fmt: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def quarters(side: int = 32) -> Image.Image:
    """Red, green over blue, white."""
    image = Image.new("RGB", (side, side), RED)
    image.paste(GREEN, (side // 2, 0, side, side // 2))
    image.paste(BLUE, (0, side // 2, side // 2, side))
    image.paste(WHITE, (side // 2, side // 2, side, side))
    return image


def corners(pixels: np.ndarray) -> list[tuple]:
    return [tuple(int(v) for v in pixels[y, x]) for y, x in ((8, 8), (8, 24), (24, 8), (24, 24))]


def close(found, wanted, by=3):
    np.testing.assert_allclose(np.array(found), np.array(wanted), atol=by)


# What is read


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "GIF", "WEBP"])
def test_a_32_pixel_image_keeps_every_bit(fmt):
    image = quarters()
    options = {"lossless": True} if fmt == "WEBP" else {}
    np.testing.assert_array_equal(look(encode(image, fmt, **options)), np.asarray(image))


def test_the_input_is_normalised_as_the_bundle_says():
    found = decode_image(picture_bytes(), BUNDLE)
    pixels = np.asarray(Image.open(io.BytesIO(picture_bytes()))) / 255
    np.testing.assert_allclose(found, ((pixels - MEAN) / STD).transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("fmt", IMAGE_TYPES.values())
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (7, 300), (640, 480)], ids=str)
def test_every_format_is_read_at_every_size(fmt, size):
    assert look(picture_bytes(size=size, fmt=fmt)).shape == (32, 32, 3)


MODES = [
    "1-PNG",
    "L-PNG",
    "LA-PNG",
    "P-PNG",
    "RGBA-PNG",
    "I;16-PNG",
    "L-JPEG",
    "CMYK-JPEG",
    "RGBA-WEBP",
    "1-BMP",
    "P-BMP",
    "L-GIF",
]


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("side", [32, 100])
def test_a_white_image_is_white_in_every_mode(kind, side):
    mode, fmt = kind.split("-")
    white = Image.new("RGB", (side, side), WHITE)
    image = Image.fromarray(np.full((side, side), 65535, np.uint16)) if mode == "I;16" else white.convert(mode)
    close(look(encode(image, fmt)), np.full((32, 32, 3), 255))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The same picture with a chunk more after the header."""
    return png[:33] + chunk(kind, content) + png[33:]


def test_a_png_of_the_right_size_keeps_every_bit():
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8))
    for picture in (noise, quarters(), quarters(32).effect_spread(3)):
        for level in (0, 1, 9):
            assert (look(encode(picture, compress_level=level)) == np.asarray(picture)).all()
    for png in (with_chunk(encode(noise), b"tEXt", b"a\0b"), encode(noise) + b"more"):
        assert (look(png) == np.asarray(noise)).all()
    turned = Image.Exif()
    turned[0x0112] = 3
    assert (look(encode(noise, exif=turned)) == np.asarray(noise)[::-1, ::-1]).all()


def test_a_damaged_png_is_refused():
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8))
    header, data, end = encode(noise)[:33], encode(noise)[41:-16], encode(noise)[-12:]
    wrong_sum = encode(noise)[:-20] + b"\0\0\0\0" + encode(noise)[-16:]
    short = header + chunk(b"IDAT", zlib.compress(zlib.decompress(data)[:-40])) + end
    for png in (wrong_sum, short, header + chunk(b"IDAT", data[:-9]) + end, header + chunk(b"IDAT", b"") + end, header):
        with pytest.raises(UnprocessableImage, match="damaged or cut short"):
            look(png)


def test_16_bit_grey_is_scaled_and_not_clipped():
    ramp = np.repeat(np.arange(32, dtype=np.uint16)[None] * 257 * 8, 32, 0)
    np.testing.assert_array_equal(look(encode(Image.fromarray(ramp)))[0, :, 0], np.arange(32) * 8)


def test_cmyk_keeps_its_colours():
    close(corners(look(encode(quarters(64).convert("CMYK"), "JPEG", quality=100))), [RED, GREEN, BLUE, WHITE], 8)


@pytest.mark.parametrize("side", [32, 64])
def test_transparent_parts_turn_white(side):
    image = quarters(side).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, side // 2, side // 2))
    close(corners(look(encode(image))), [WHITE, GREEN, BLUE, WHITE])


def test_a_palettes_transparent_colour_turns_white():
    image = quarters().quantize(8)
    red = image.getpixel((0, 0))
    close(corners(look(encode(image, "GIF", transparency=red))), [WHITE, GREEN, BLUE, WHITE])
    alpha = bytes(0 if i == red else 255 for i in range(8))
    close(corners(look(encode(image, "PNG", transparency=alpha))), [WHITE, GREEN, BLUE, WHITE])


def test_half_transparent_grey_is_mixed_with_white():
    close(look(encode(Image.new("LA", (32, 32), (0, 128)))), np.full((32, 32, 3), 127))


@pytest.mark.parametrize("fmt", ["GIF", "WEBP"])
def test_an_animation_shows_its_first_frame(fmt):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    close(look(encode(frames[0], fmt, save_all=True, append_images=frames[1:])), np.full((32, 32, 3), RED), 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("fmt", "side"), [("PNG", 32), ("PNG", 80), ("JPEG", 400), ("WEBP", 64)])
def test_a_rotated_photo_is_turned_upright(orientation, fmt, side):
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = quarters(side)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[turns[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    close(corners(look(encode(stored, fmt, exif=exif))), [RED, GREEN, BLUE, WHITE], 12)


def test_a_16_bit_image_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 3
    ramp = np.repeat(np.arange(32, dtype=np.uint16)[None] * 257, 32, 0)
    np.testing.assert_array_equal(look(encode(Image.fromarray(ramp), exif=exif))[0, :, 0], np.arange(32)[::-1])


def test_damaged_exif_data_is_passed_over():
    data = encode(quarters(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    close(corners(look(data)), [RED, GREEN, BLUE, WHITE])


def test_the_centre_square_of_an_oblong_image_is_seen():
    image = Image.new("RGB", (128, 64), BLACK)
    image.paste(quarters(64), (32, 0))
    close(corners(look(encode(image))), [RED, GREEN, BLUE, WHITE])
    close(corners(look(encode(image.rotate(90, expand=True)))), [GREEN, WHITE, RED, BLUE])


def test_shrinking_averages_and_does_not_pick():
    checkered = np.indices((320, 320)).sum(0) % 2 * 255
    close(look(encode(Image.fromarray(checkered.astype(np.uint8)))), np.full((32, 32, 3), 127), 6)


def test_a_big_photo_is_seen_like_its_small_copy():
    photo = Image.open(io.BytesIO(picture_bytes(size=(3000, 2000))))
    small = photo.crop((500, 0, 2500, 2000)).resize((32, 32), Image.Resampling.BICUBIC)
    close(look(encode(photo, "JPEG", quality=95)), np.asarray(small), 8)
    close(look(encode(photo)), np.asarray(small), 4)


# What could be meant in two ways: the pixels are computed here, and not by Pillow

RNG = np.random.default_rng(11)
GREY_16, COLOURS_16 = (RNG.integers(0, 65536, shape).astype(">u2") for shape in ((32, 32), (32, 32, 4)))
NOISE = RNG.integers(0, 256, (32, 32, 3), np.uint8)


def png_file(depth: int, colour_type: int, rows: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 32 x 32 whose rows are these bytes."""
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 32, 32, depth, colour_type, 0, 0, 0)
    more = b"".join(chunk(kind, data) for kind, data in chunks)
    image = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + image + chunk(b"IEND", b"")


def packed(values: np.ndarray, depth: int) -> np.ndarray:
    """Pixels of 1, 2 or 4 bits, several in a byte."""
    return np.packbits(np.unpackbits(values[..., None], axis=2)[..., 8 - depth :].reshape(32, -1), axis=1)


def as_grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, 2)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Both from 0 to 1, as 0 to 255."""
    return 255 * (colours * alpha + 1 - alpha)


def bmp_file(bits: int, rows: np.ndarray, masks: tuple[int, ...] = (), *, height: int = 32) -> bytes:
    content, version_5 = rows.tobytes(), len(masks) == 4
    size = 124 if version_5 else 40
    header = struct.pack("<IiiHHIIiiII", size, 32, height, 1, bits, 3 if masks else 0, len(content), 0, 0, 0, 0)
    header += struct.pack(f"<{len(masks)}I", *masks) + (b"BGRs" + bytes(64) if version_5 else b"")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start) + header + content


def gif_of_a_part(x: int, y: int, side: int) -> bytes:
    """A GIF of 32 x 32, red by its palette, of which one green frame covers only a part."""
    codes = "".join(f"{code:03b}" for code in reversed([*[4, 1] * side**2, 5]))  # a clear code before each pixel
    data = int(codes, 2).to_bytes(-(-len(codes) // 8), "little")
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    screen = struct.pack("<HHBBB", 32, 32, 0xF1, 0, 0) + bytes([*RED, *GREEN, *BLUE, *BLACK])
    frame = b"," + struct.pack("<HHHHB", x, y, side, side, 0) + b"\2"
    return b"GIF89a" + screen + frame + blocks + b"\0;"


def opaque_but(value: np.ndarray, transparent: np.ndarray) -> np.ndarray:
    return np.where(transparent[..., None], 255, value)


GREY_2 = RNG.integers(0, 4, (32, 32), np.uint8)
GREY_4 = RNG.integers(0, 16, (32, 32), np.uint8)
PALETTE = RNG.integers(0, 256, (16, 3), np.uint8)
SAME_16 = np.where(np.arange(32) < 9, 12345, GREY_16).astype(">u2")
COLOURS = COLOURS_16 / 65535
BGRA = np.dstack([NOISE[..., ::-1], RNG.integers(0, 256, (32, 32), np.uint8)])
BGRA_MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
RGB_565 = RNG.integers(0, 65536, (32, 32)).astype("<u2")
PIXELS = {
    "16-bit RGB": (png_file(16, 2, COLOURS_16[..., :3].copy()), 255 * COLOURS[..., :3]),
    "16-bit RGBA": (png_file(16, 6, COLOURS_16), on_white(COLOURS[..., :3], COLOURS[..., 3:])),
    "16-bit grey with alpha": (
        png_file(16, 4, COLOURS_16[..., :2].copy()),
        as_grey(on_white(COLOURS[..., 0], COLOURS[..., 1])),
    ),
    "16-bit grey, a value transparent": (
        png_file(16, 0, SAME_16, (b"tRNS", struct.pack(">H", 12345))),
        opaque_but(as_grey(SAME_16 / 257), SAME_16 == 12345),
    ),
    "16-bit RGB, a colour transparent": (
        png_file(16, 2, COLOURS_16[..., :3].copy(), (b"tRNS", COLOURS_16[4, 5, :3].tobytes())),
        opaque_but(255 * COLOURS[..., :3], (COLOURS_16[..., :3] == COLOURS_16[4, 5, :3]).all(2)),
    ),
    "RGB, a colour transparent": (
        png_file(8, 2, NOISE, (b"tRNS", NOISE[4, 5].astype(">u2").tobytes())),
        opaque_but(NOISE, (NOISE[4, 5] == NOISE).all(2)),
    ),
    "2-bit grey": (png_file(2, 0, packed(GREY_2, 2)), as_grey(GREY_2 * 85)),
    "2-bit grey, a value transparent": (
        png_file(2, 0, packed(GREY_2, 2), (b"tRNS", b"\0\1")),
        opaque_but(as_grey(GREY_2 * 85), GREY_2 == 1),
    ),
    "4-bit grey, a value transparent": (
        png_file(4, 0, packed(GREY_4, 4), (b"tRNS", b"\0\7")),
        opaque_but(as_grey(GREY_4 * 17), GREY_4 == 7),
    ),
    "4-bit palette, a colour transparent": (
        png_file(4, 3, packed(GREY_4, 4), (b"PLTE", PALETTE.tobytes()), (b"tRNS", b"\xff\0")),
        opaque_but(PALETTE[GREY_4], GREY_4 == 1),
    ),
    "gamma, not applied": (png_file(8, 2, NOISE, (b"gAMA", struct.pack(">I", 100_000))), NOISE),
    "BMP of 16 bits": (
        bmp_file(16, RGB_565[::-1], (0xF800, 0x7E0, 0x1F)),
        np.dstack([(RGB_565 >> 11) / 31, (RGB_565 >> 5 & 63) / 63, (RGB_565 & 31) / 31]) * 255,
    ),
    "BMP from top to bottom": (bmp_file(24, NOISE[..., ::-1].copy(), height=-32), NOISE),
    "BMP with an unused byte": (bmp_file(32, BGRA[::-1].copy()), NOISE),
    "BMP with alpha": (bmp_file(32, BGRA[::-1].copy(), BGRA_MASKS), on_white(NOISE / 255, BGRA[..., 3:] / 255)),
    "BMP with empty alpha": (bmp_file(32, (BGRA * [1, 1, 1, 0]).astype(np.uint8)[::-1], BGRA_MASKS), NOISE),
    "GIF frame of a part": (gif_of_a_part(8, 16, 4), np.full((32, 32, 3), 255)),
}
PIXELS["GIF frame of a part"][1][16:20, 8:12] = GREEN


@pytest.mark.parametrize(("data", "pixels"), PIXELS.values(), ids=PIXELS)
def test_the_pixels_are_those_of_the_formats_definition(data, pixels):
    close(look(data), pixels, by=2)  # Pillow leaves out the lower byte of 16 bits, of alpha too


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_is_not_applied(fmt):
    options: dict = {"quality": 100, "subsampling": 0} if fmt == "JPEG" else {"lossless": True}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 5000)).tobytes()  # would change every colour
    found = corners(look(encode(quarters(), fmt, icc_profile=profile, **options)))
    close(found, [RED, GREEN, BLUE, WHITE], by=2)


# JSON forms


def test_base64_and_nested_lists_are_seen_like_the_file():
    data = picture_bytes()
    rows = json.loads(json.dumps(np.asarray(Image.open(io.BytesIO(data))).tolist()))
    wanted = decode_image(data, BUNDLE)
    np.testing.assert_array_equal(read_base64(base64.b64encode(data).decode(), BUNDLE), wanted)
    np.testing.assert_array_equal(read_pixels(rows, BUNDLE), wanted)


def test_nested_lists_of_another_size_are_resized_like_a_file():
    data = picture_bytes(size=(50, 40))
    rows = np.asarray(Image.open(io.BytesIO(data))).tolist()
    np.testing.assert_array_equal(read_pixels(rows, BUNDLE), decode_image(data, BUNDLE))


def test_fractions_are_rounded():
    np.testing.assert_array_equal(seen(read_pixels([[[0.4, 254.6, 7]]], BUNDLE))[0, 0], (0, 255, 7))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        pytest.param((NOISE / 255).tolist(), "largest is 1, as where .* multiply them by 255", id="0 to 1"),
        pytest.param((NOISE / 250).tolist(), "largest is 1.02, .* multiply them by 255", id="0 to 1, overshot"),
        pytest.param((NOISE // 200).tolist(), "largest is 1, .* multiply them by 255", id="0 or 1"),
        pytest.param((NOISE / 127.5 - 1).tolist(), "as of normalised pixels", id="-1 to 1"),
        pytest.param((NOISE.astype(int) * 257).tolist(), "16 bits a channel; divide all by 257", id="16 bits"),
        pytest.param(NOISE.transpose(2, 0, 1).tolist(), r"\[3, 32, 32\], with channels first", id="channels first"),
        pytest.param(NOISE[None].tolist(), r"\[1, 32, 32, 3\], a batch; send its one image", id="batch of one"),
        pytest.param([NOISE.tolist()] * 2, r"\[2, 32, 32, 3\], a batch; send one image", id="batch"),
        pytest.param(NOISE[..., 0].tolist(), r"\[32, 32\], as of grey; send each value three times", id="grey"),
        pytest.param(NOISE[..., :1].tolist(), r"\[32, 32, 1\], as of grey", id="one channel"),
        pytest.param([], r"shape is \[0\]", id="empty"),
        pytest.param([[1, 2, 3]], r"shape is \[1, 3\]", id="flat"),
        pytest.param([[[1, 2]]], r"shape is \[1, 1, 2\]", id="two channels"),
        pytest.param([[[1, 2, 3, 4]]], r"shape is \[1, 1, 4\], .* leave the fourth out", id="four channels"),
        pytest.param([[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]], "differ in length", id="ragged"),
        pytest.param([[[1, 2, 256]]], "it holds 256", id="over"),
        pytest.param([[[1, -1, 3]]], "it holds -1", id="under"),
        pytest.param([[[1, float("nan"), 3]]], "it holds nan", id="NaN"),
        pytest.param([[[1, float("inf"), 3]]], "it holds inf", id="infinite"),
        pytest.param([[["1", "2", "3"]]], "not a number", id="strings"),
        pytest.param([[[1, 2, 3], [4, 5, "6"]]], "not a number", id="one string"),
        pytest.param([[[None, 1, 2]]], "not a number", id="null"),
        pytest.param([[[10**40, 1, 2]]], "not a number", id="huge"),
        pytest.param(None, "not a number", id="no list"),
        pytest.param("aGVsbG8=", 'a string, and base64 is sent as "image"', id="base64"),
        pytest.param({"a": 1}, "not a number", id="object"),
    ],
)
def test_wrong_lists_are_refused(rows, says):
    with pytest.raises(UnprocessableImage, match=says):
        read_pixels(rows, BUNDLE)


def test_black_lists_are_read():
    np.testing.assert_array_equal(seen(read_pixels([[[0, 0.0, 0]]], BUNDLE))[0, 0], (0, 0, 0))


JPEG_64 = base64.b64encode(picture_bytes(size=(41, 40), fmt="JPEG")).decode()
BASE64 = {
    "without padding": JPEG_64.rstrip("="),
    "URL-safe": JPEG_64.translate(str.maketrans("+/", "-_")),
    "lines": "\r\n".join(textwrap.wrap(JPEG_64, 76)) + "\r\n",
    "indented lines": textwrap.indent("\n".join(textwrap.wrap(JPEG_64, 64)), "    "),
    "blank lines": "\n \t \n".join(textwrap.wrap(JPEG_64, 50)) + " \t\r\n \n",
    "data URI": f"data:image/jpeg;base64,{JPEG_64}",
    "data URI without a type": f"DATA:;base64,{JPEG_64}",
    "all of it": "data:image/png;charset=x;BASE64,\n" + JPEG_64.rstrip("=").translate(str.maketrans("+/", "-_")),
}


@pytest.mark.parametrize("text", BASE64.values(), ids=BASE64)
def test_every_way_to_write_base64_is_read(text):
    assert JPEG_64.endswith("=") and {"+", "/"} <= set(JPEG_64)
    np.testing.assert_array_equal(read_base64(text, BUNDLE), read_base64(JPEG_64, BUNDLE))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("%%%", "it has '%' at character 0; send the file's bytes in base64", id="no digits"),
        pytest.param("aGVs" + JPEG_64[:40] + "=" + JPEG_64[40:], "it has '=' at character 44", id="padding inside"),
        pytest.param(str(JPEG_64.encode()), r"begins as Python writes bytes; send .*decode\(\)", id="str of bytes"),
        pytest.param("aäb", r"it has '\\xe4' at character 1", id="letter"),
        pytest.param("/9j/ 4AA", "it has ' ' at character 4; send JSON in which a '\\+' stays", id="plus as a space"),
        pytest.param(JPEG_64[:41], "41 digits are no whole number of bytes, so it is cut short", id="cut short"),
        pytest.param("data:image/png,%89PNG", "a data: URI that is not in base64", id="data URI of another kind"),
    ],
)
def test_broken_base64_is_refused_with_its_fault(text, says):
    with pytest.raises(UnprocessableImage, match=says):
        read_base64(text, BUNDLE)


@pytest.mark.parametrize("value", ["", None, 7, []], ids=repr)
def test_base64_must_be_a_string_with_something_in_it(value):
    with pytest.raises(BadRequest, match="non-empty string"):
        read_base64(value, BUNDLE)


# What is refused


PNG = picture_bytes()
FOREIGN = [
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image", "save it as PNG or JPEG"),
    (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "an AVIF image", "save it as PNG or JPEG"),
    (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41", "an MP4 or QuickTime video", "send one frame"),
    (b"\0\0\0\x14ftypqt  ", "an MP4 or QuickTime video", "send one frame"),
    (encode(quarters(), "TIFF"), "a TIFF image", "save it as PNG or JPEG"),
    (encode(quarters(), "JPEG2000"), "a JPEG 2000 image", "save it as PNG or JPEG"),
    (encode(quarters(), "ICO"), "an ICO icon", "save it as PNG or JPEG"),
    (encode(quarters(), "PPM"), r"a Netpbm image \(P6\)", "save it as PNG or JPEG"),
    (encode(quarters(), "PDF"), "a PDF document", "export the page"),
    (encode(quarters(), "AVIF"), "an AVIF image", "save it as PNG or JPEG"),
    (b"\xff\x0a\xfa\x1f", "a JPEG XL image", "save it as PNG or JPEG"),
    (b"8BPS\0\1", "a Photoshop document", "save it as PNG or JPEG"),
    (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", "render it as PNG"),
    (b"\n<!DOCTYPE html><html>", "a web page", "check the address"),
    (gzip.compress(PNG), "gzip data", "without Content-Encoding"),
    (b"PK\x03\x04\x14\0", "a ZIP archive", "send the image that is in it"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video", "send one frame"),
    (b"RIFF\0\0\0\0AVI LIST", "an AVI video", "send one frame"),
    (bytes(128) + b"DICM", "a DICOM image", "save it as PNG or JPEG"),
    (b"\x93NUMPY\1\0", "a NumPy array", "save it as PNG"),
    (b'{"image": "aGVsbG8="}', "JSON", "Content-Type: application/json"),
    (b"[[[1, 2, 3]]]", "JSON", "Content-Type: application/json"),
    (b"data:image/png;base64,iVBORw0KGgo=", "a data: URI", "Content-Type: application/json"),
    (base64.b64encode(PNG), "an image in base64", "Content-Type: application/json"),
    (b"--x\r\nContent-Disposition: form-data; name=image\r\n", "a form without its Content-Type", "let the HTTP"),
    (str(PNG).encode(), "the text that Python makes of bytes", "send those unchanged"),
    (PNG.hex().encode(), "an image in hexadecimal", "send those unchanged"),
    (b"[object File]", "the text that JavaScript makes of an object", "send the File or Blob itself"),
    (b"\0\0\0\x08wide\0\0\0\0mdat", "a QuickTime video", "send one frame"),
    (b"{\\rtf1\\ansi}", "an RTF document", "export the page"),
    (b'<?xml version="1.0"?><plist/>', "an XML document", "the image that is in it"),
    (b"https://example.org/cat.png", "an address", "send the bytes"),
    (PNG.replace(b"\r\n", b"").replace(b"\n", b"").replace(b"\0", b""), "a PNG whose line ends", "--data-binary"),
    (picture_bytes(fmt="WEBP").translate(None, b"\0\r\n"), "a WebP that lost its bytes 0", "--data-binary"),
    (PNG.replace(b"\r\n", b"\n"), "a PNG whose line ends", "--data-binary"),
    (PNG.decode("latin-1").encode(), "a PNG that was read as text", "send those unchanged"),
    (PNG.decode("utf-8", "replace").encode(), "a file that was read as text", "send those unchanged"),
    (PNG[:12] + b"CgBI" + PNG[16:], "a PNG in Apple's own form", "as an ordinary PNG"),
    (b"\r\n\r\n" + PNG, "a PNG behind 4 other bytes", "leave those out"),
]


@pytest.mark.parametrize(("data", "name", "cure"), FOREIGN, ids=[name for _, name, _ in FOREIGN])
def test_what_is_no_image_is_named_with_the_cure(data, name, cure):
    with pytest.raises(Unsupported, match=f"^this is {name}.*, which is not read; .*{cure}"):
        decode_image(data, BUNDLE)


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"cat.png", "they begin with 'cat.png', so "),
        (b"cats\n\xff", "they begin with 'cats', so "),
        (b"\xf3ab" * 9, ""),
    ],
)
def test_unknown_bytes_are_quoted_where_they_begin_as_text(data, start):
    with pytest.raises(Unsupported, match=f"no PNG, JPEG, WebP, GIF or BMP image; {start}check what is sent"):
        decode_image(data, BUNDLE)


@pytest.mark.parametrize("fmt", ["JPEG", "GIF", "BMP"])
def test_a_file_that_curl_d_has_stripped_is_named(fmt):
    stripped = picture_bytes(fmt=fmt).translate(None, b"\0\r\n")
    with pytest.raises(UnprocessableImage, match=f"the {fmt} image has lost its bytes .* `curl --data-binary @FILE`"):
        decode_image(stripped, BUNDLE)


def test_no_bytes_are_nothing_to_read():
    with pytest.raises(BadRequest, match="0 bytes"):
        decode_image(b"", BUNDLE)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_image_cut_short_is_undecodable(fmt, share):
    data = picture_bytes(size=(200, 200), fmt=fmt)
    with pytest.raises(UnprocessableImage, match=f"{fmt} image .*(damaged|cut short)"):
        decode_image(data[: max(12, int(len(data) * share))], BUNDLE)


def claims(fmt: str, side: int, **options: Any) -> bytes:
    """A small picture whose header claims to be side x side."""
    options |= {"lossless": True} if fmt == "WEBP" else {}
    data = bytearray(picture_bytes(fmt=fmt, **options))
    if fmt == "JPEG":
        at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif fmt == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
        at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1)) + 5
        data[at : at + 4] = struct.pack("<HH", side, side)
    elif fmt == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    else:
        data[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [png_of(20_000, 20_000)] + [claims(fmt, 16_000) for fmt in ("JPEG", "GIF", "BMP", "WEBP")],
    ids=["PNG", "JPEG", "GIF", "BMP", "WEBP"],
)
def test_a_decompression_bomb_is_refused_by_its_header(data):
    assert len(data) < 100_000
    with pytest.raises(UnprocessableImage, match=r"\d+ x \d+ pixels; at most 24 million") as caught:
        decode_image(data, BUNDLE)
    assert "scale it down" in caught.value.detail


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("size", [(1300, 1100), (150, 400), (20, 30)], ids=str)
def test_resizing_in_bands_has_pillows_own_pixels(mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), np.uint8)
    whole = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        whole = Image.fromarray(pixels[..., 0])
    elif mode == "P":
        image = whole.convert("RGB").quantize(50)
        whole = image.convert("RGB")
    else:
        image = whole.convert(mode)
        whole = image.convert({"1": "RGB", "LA": "RGBA"}.get(mode, mode))
    left, top = (size[0] - min(size)) // 2, (size[1] - min(size)) // 2
    box = (left, top, left + min(size), top + min(size))
    wanted = whole.resize((32, 32), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    np.testing.assert_array_equal(np.asarray(resized(image, (32, 32), box)), np.asarray(wanted))


def test_the_largest_image_allowed_is_read():
    assert MAX_PIXELS == 6000 * 4000
    close(look(png_of(6000, 4000)), np.zeros((32, 32, 3)))


@pytest.mark.parametrize("fmt", IMAGE_TYPES.values())
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on damaged metadata
def test_damaged_bytes_end_in_an_image_or_a_problem(fmt, seed):
    rng, data = random.Random(seed), bytearray(picture_bytes(size=(48, 40), fmt=fmt))
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        assert np.isfinite(decode_image(bytes(data), BUNDLE)).all()
    except Problem as problem:
        assert 400 <= problem.status < 500


# Previews


def shown(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_small_file_is_its_own_preview():
    data = picture_bytes(fmt="GIF")
    assert preview_uri(data) == "data:image/gif;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_large_one_is_shown_small_and_upright(mode):
    noise = np.random.default_rng(1).integers(0, 256, (900, 1500, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    uri = preview_uri(encode(Image.fromarray(noise).convert(mode), exif=exif, compress_level=1))
    assert uri.startswith("data:image/jpeg;base64,")
    assert shown(uri).size == (PREVIEW_PX * 900 // 1500, PREVIEW_PX)


@pytest.mark.parametrize("size", [(300, 200), (64, 96)], ids=["photo", "small"])
def test_the_shorter_side_is_resized_before_the_middle_is_taken(size):
    """As the pipelines of pretrained networks do it, which resize the whole image."""
    bundle = Bundle(Path(), "test", ("a", "b"), ImageInput(32, 48, MEAN, STD), {}, {})
    image = quarters(300).resize(size)
    scale = 48 / min(size)
    whole = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 32) // 2, (whole.height - 32) // 2
    close(seen(decode_image(encode(image), bundle)), np.asarray(whole.crop((left, top, left + 32, top + 32))), by=12)


def test_the_middle_is_taken_of_an_upright_image_of_odd_margin():
    bundle = Bundle(Path(), "test", ("a", "b"), ImageInput(32, 33, MEAN, STD), {}, {})
    image = Image.new("RGB", (33, 33), WHITE)
    image.paste(RED, (0, 0, 33, 1))  # its first row, the last when upright
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = seen(decode_image(encode(image, exif=exif), bundle))
    assert {tuple(pixel) for row in pixels for pixel in row.tolist()} == {WHITE}
